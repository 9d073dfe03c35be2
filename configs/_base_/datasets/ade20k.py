"""ADE20K validation (2000 images), 150 classes: the zero label is ignored."""

benchmark = "ade20k"
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
        type="ADE20KDataset",
        data_root="data/ade/ADEChallengeData2016",
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        reduce_zero_label=True,
        pipeline=test_pipeline,
    ),
)
