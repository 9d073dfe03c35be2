"""RF-CLIP: training-free open-vocabulary segmentation by target refocusing, as a plugin for mmsegmentation."""

from rfclip.compat import enable

enable()
