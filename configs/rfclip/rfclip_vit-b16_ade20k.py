"""RF-CLIP, ViT-B/16, on ADE20K."""

_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/models/rfclip_vit-b16.py",
    "../_base_/datasets/ade20k.py",
]
model = dict(
    vocabulary="ade20k",
    prior=dict(image_weight=0.3, mean_vector_weight=0.05, cluster_threshold=0.06, scope="image"),
)
