"""RF-CLIP, ViT-B/16, on PASCAL Context without background."""

_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/models/rfclip_vit-b16.py",
    "../_base_/datasets/context59.py",
]
model = dict(
    vocabulary="context59",
    prior=dict(image_weight=0.25, mean_vector_weight=0.04, cluster_threshold=0.09, scope="image"),
)
