"""PASCAL VOC 2012 validation (1449 images), 21 classes, background first."""

_base_ = "./_test.py"
benchmark = "voc21"
test_dataloader = dict(
    dataset=dict(
        type="PascalVOCDataset",
        data_root="data/VOCdevkit/VOC2012",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),  # or SegmentationClassAug
        ann_file="ImageSets/Segmentation/val.txt",
    )
)
