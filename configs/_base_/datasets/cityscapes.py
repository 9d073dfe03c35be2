"""Cityscapes validation (500 images), 19 classes."""

benchmark = "cityscapes"
test_pipeline = [
    dict(type="LoadImageFromFile", imdecode_backend="rfclip"),  # mmcv's, and more kinds of pictures
    dict(type="Resize", scale=(2048, 560), keep_ratio=True),  # longest and shortest side, pixels
    dict(type="LoadAnnotations"),  # after Resize: labels keep the original size
    dict(type="PackSegInputs"),
]
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="UnfinishedSampler"),
    dataset=dict(
        type="CityscapesDataset",
        data_root="data/cityscapes",
        data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val"),
        pipeline=test_pipeline,
    ),
)
