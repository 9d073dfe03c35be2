"""COCO-Object val2017 (5000 images), 81 classes, background first."""

benchmark = "coco_object"
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
        type="COCOObjectDataset",
        data_root="data/coco_object",
        data_prefix=dict(img_path="images/val2017", seg_map_path="annotations/val2017"),
        pipeline=test_pipeline,
    ),
)
