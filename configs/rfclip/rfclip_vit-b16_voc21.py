"""RF-CLIP, ViT-B/16, on PASCAL VOC with background."""

_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/models/rfclip_vit-b16.py",
    "../_base_/datasets/voc21.py",
]
model = dict(
    vocabulary="voc21",
    prior=dict(image_weight=0.1, mean_vector_weight=0.03, cluster_threshold=0.10, scope="image"),
    prob_thd=0.1,
    background_index=0,
    test_cfg=dict(_delete_=True, mode="whole"),
)
