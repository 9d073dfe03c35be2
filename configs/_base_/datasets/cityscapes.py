"""Cityscapes validation (500 images), 19 classes."""

_base_ = "./_test.py"
benchmark = "cityscapes"
test_pipeline = _base_.test_pipeline
test_pipeline[1]["scale"] = (2048, 560)  # longest and shortest side, pixels
test_dataloader = dict(
    dataset=dict(
        type="CityscapesDataset",
        data_root="data/cityscapes",
        data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val"),
        pipeline=test_pipeline,
    )
)
