"""PASCAL Context validation (5104 or 5105 images), 59 classes: the background is ignored."""

_base_ = "./context60.py"
benchmark = "context59"
test_dataloader = dict(dataset=dict(type="PascalContextDataset59", reduce_zero_label=True))
