"""MeanKK, ViT-B/16, on PASCAL Context with background: RF-CLIP's protocol with another method."""

_base_ = "../rfclip/rfclip_vit-b16_context60.py"
model = dict(method=dict(_delete_=True, type="MeanKK"))
