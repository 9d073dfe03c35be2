"""PASCAL VOC 2012 validation (1449 images), 20 classes: the background is ignored."""

_base_ = "./voc21.py"
benchmark = "voc20"
test_dataloader = dict(dataset=dict(type="PascalVOC20Dataset", reduce_zero_label=True))
