"""PASCAL Context validation (5104 or 5105 images), 60 classes, background first."""

_base_ = "./_test.py"
benchmark = "context60"
test_dataloader = dict(
    dataset=dict(
        type="PascalContextDataset",
        data_root="data/VOCdevkit/VOC2010",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClassContext"),
        ann_file="ImageSets/SegmentationContext/val.txt",
    )
)
