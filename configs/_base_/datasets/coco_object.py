"""COCO-Object val2017 (5000 images), 81 classes, background first."""

_base_ = "./_test.py"
benchmark = "coco_object"
test_dataloader = dict(
    dataset=dict(
        type="COCOObjectDataset",
        data_root="data/coco_object",
        data_prefix=dict(img_path="images/val2017", seg_map_path="annotations/val2017"),
    )
)
