"""VanillaCLIP, ViT-B/16, on COCO-Stuff164k: RF-CLIP's protocol with another method."""

_base_ = "../rfclip/rfclip_vit-b16_coco_stuff.py"
model = dict(method=dict(_delete_=True, type="VanillaCLIP"))
