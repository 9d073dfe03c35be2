"""PASCAL Context validation (5104 or 5105 images), 59 classes: the background is ignored."""

benchmark = "context59"
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
        type="PascalContextDataset59",
        data_root="data/VOCdevkit/VOC2010",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClassContext"),
        ann_file="ImageSets/SegmentationContext/val.txt",
        reduce_zero_label=True,
        pipeline=test_pipeline,
    ),
)
