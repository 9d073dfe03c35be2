"""VanillaCLIP, ViT-B/16, on Cityscapes: RF-CLIP's protocol with another method."""

_base_ = "../rfclip/rfclip_vit-b16_cityscapes.py"
model = dict(method=dict(_delete_=True, type="VanillaCLIP"))
