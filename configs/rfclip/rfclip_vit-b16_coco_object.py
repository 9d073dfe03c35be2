"""RF-CLIP, ViT-B/16, on COCO-Object."""

_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/models/rfclip_vit-b16.py",
    "../_base_/datasets/coco_object.py",
]
model = dict(
    vocabulary="coco_object",
    prior=dict(image_weight=0.25, mean_vector_weight=0.01, cluster_threshold=0.10, scope="image"),
    prob_thd=0.1,
    background_index=0,
)
