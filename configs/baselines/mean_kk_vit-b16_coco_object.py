"""MeanKK, ViT-B/16, on COCO-Object: RF-CLIP's protocol with another method."""

_base_ = "../rfclip/rfclip_vit-b16_coco_object.py"
model = dict(method=dict(_delete_=True, type="MeanKK"))
