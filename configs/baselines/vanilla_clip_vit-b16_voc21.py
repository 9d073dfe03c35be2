"""VanillaCLIP, ViT-B/16, on PASCAL VOC with background: RF-CLIP's protocol with another method."""

_base_ = "../rfclip/rfclip_vit-b16_voc21.py"
model = dict(method=dict(_delete_=True, type="VanillaCLIP"))
