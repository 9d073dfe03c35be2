"""RF-CLIP, ViT-B/16, on COCO-Stuff164k."""

_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/models/rfclip_vit-b16.py",
    "../_base_/datasets/coco_stuff.py",
]
model = dict(
    vocabulary="coco_stuff",
    prior=dict(image_weight=0.2, mean_vector_weight=0.02, cluster_threshold=0.02, scope="image"),
)
