"""VanillaCLIP, ViT-B/16, on ADE20K: RF-CLIP's protocol with another method."""

_base_ = "../rfclip/rfclip_vit-b16_ade20k.py"
model = dict(method=dict(_delete_=True, type="VanillaCLIP"))
