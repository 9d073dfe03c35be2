"""Dense-encoding methods, one per file, registered in mmsegmentation's MODELS under their class names."""

from rfclip.methods.base import DenseOutput, Recorder
from rfclip.methods.clear_clip import ClearCLIP
from rfclip.methods.mask_clip import MaskCLIP
from rfclip.methods.mean_kk import MeanKK
from rfclip.methods.naclip import NACLIP
from rfclip.methods.refocus_clip import RefocusCLIP
from rfclip.methods.refocus_clip_release import RefocusCLIPRelease
from rfclip.methods.sclip import SCLIP
from rfclip.methods.vanilla_clip import VanillaCLIP

METHODS = (
    "RefocusCLIP",
    "RefocusCLIPRelease",
    "MeanKK",
    "NACLIP",
    "ClearCLIP",
    "SCLIP",
    "MaskCLIP",
    "VanillaCLIP",
)

__all__ = [
    "METHODS",
    "NACLIP",
    "SCLIP",
    "ClearCLIP",
    "DenseOutput",
    "MaskCLIP",
    "MeanKK",
    "Recorder",
    "RefocusCLIP",
    "RefocusCLIPRelease",
    "VanillaCLIP",
]
