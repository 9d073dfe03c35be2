"""RF-CLIP that redistributes the attention of the last block only."""

_base_ = "./rfclip_vit-b16.py"
model = dict(method=dict(layers="last"))
