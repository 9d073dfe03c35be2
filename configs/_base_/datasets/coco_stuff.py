"""COCO-Stuff164k val2017 (5000 images), 171 classes."""

_base_ = "./_test.py"
benchmark = "coco_stuff"
test_dataloader = dict(
    dataset=dict(
        type="COCOStuffDataset",
        data_root="data/coco_stuff164k",
        data_prefix=dict(img_path="images/val2017", seg_map_path="annotations/val2017"),
    )
)
