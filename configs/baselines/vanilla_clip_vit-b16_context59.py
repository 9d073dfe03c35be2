"""VanillaCLIP, ViT-B/16, on PASCAL Context without background: RF-CLIP's protocol with another method."""

_base_ = "../rfclip/rfclip_vit-b16_context59.py"
model = dict(method=dict(_delete_=True, type="VanillaCLIP"))
