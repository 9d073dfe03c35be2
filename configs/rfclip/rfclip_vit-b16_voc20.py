"""RF-CLIP, ViT-B/16, on PASCAL VOC without background."""

_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/models/rfclip_vit-b16.py",
    "../_base_/datasets/voc20.py",
]
model = dict(
    vocabulary="voc20",
    prior=dict(image_weight=0.4, mean_vector_weight=0.02, cluster_threshold=0.10, scope="image"),
)
