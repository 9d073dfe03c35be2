"""RF-CLIP: training-free open-vocabulary segmentation by target refocusing, a plugin for mmsegmentation."""

from rfclip.compat import enable

enable()
