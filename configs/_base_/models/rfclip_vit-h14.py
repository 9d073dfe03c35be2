"""RF-CLIP on OpenCLIP's ViT-H/14 (LAION-2B)."""

_base_ = "./rfclip_vit-b16.py"
model = dict(clip=dict(model="ViT-H-14", pretrained="laion2b_s32b_b79k"))
