"""ADE20K validation (2000 images), 150 classes: the zero label is ignored."""

_base_ = "./_test.py"
benchmark = "ade20k"
test_dataloader = dict(
    dataset=dict(
        type="ADE20KDataset",
        data_root="data/ade/ADEChallengeData2016",
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        reduce_zero_label=True,
    )
)
