"""PASCAL VOC 2012 validation (1449 images), 21 classes, background first."""

benchmark = "voc21"
test_pipeline = [
    dict(type="LoadImageFromFile", imdecode_backend="rfclip"),  # mmcv's, and more kinds of pictures
    dict(type="Resize", scale=(2048, 336), keep_ratio=True),  # longest and shortest side, pixels
    dict(type="LoadAnnotations"),  # after Resize: labels keep the original size
    dict(type="PackSegInputs"),
]
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="UnfinishedSampler"),
    dataset=dict(
        type="PascalVOCDataset",
        data_root="data/VOCdevkit/VOC2012",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),  # or SegmentationClassAug
        ann_file="ImageSets/Segmentation/val.txt",
        pipeline=test_pipeline,
    ),
)
