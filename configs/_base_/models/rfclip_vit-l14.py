"""RF-CLIP on OpenAI's CLIP ViT-L/14."""

_base_ = "./rfclip_vit-b16.py"
model = dict(clip=dict(model="ViT-L-14"))
