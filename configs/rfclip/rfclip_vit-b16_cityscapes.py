"""RF-CLIP, ViT-B/16, on Cityscapes."""

_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/models/rfclip_vit-b16.py",
    "../_base_/datasets/cityscapes.py",
]
model = dict(
    vocabulary="cityscapes",
    prior=dict(image_weight=0.1, mean_vector_weight=0.03, cluster_threshold=0.14, scope="window"),
)
