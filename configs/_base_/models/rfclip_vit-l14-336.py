"""RF-CLIP on OpenAI's CLIP ViT-L/14 at 336 pixels."""

_base_ = "./rfclip_vit-b16.py"
model = dict(clip=dict(model="ViT-L-14-336"), test_cfg=dict(crop_size=336))  # a window of the native size
