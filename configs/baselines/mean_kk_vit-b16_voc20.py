"""MeanKK, ViT-B/16, on PASCAL VOC without background: RF-CLIP's protocol with another method."""

_base_ = "../rfclip/rfclip_vit-b16_voc20.py"
model = dict(method=dict(_delete_=True, type="MeanKK"))
