"""RF-CLIP, ViT-B/16, on PASCAL Context with background."""

_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/models/rfclip_vit-b16.py",
    "../_base_/datasets/context60.py",
]
model = dict(
    vocabulary="context60",
    prior=dict(image_weight=0.25, mean_vector_weight=0.04, cluster_threshold=0.09, scope="image"),
    prob_thd=0.1,
    background_index=0,
)
