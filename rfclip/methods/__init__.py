"""Dense-encoding methods. `METHODS` knows them by name; mmsegmentation's MODELS shares them."""

from rfclip.methods.base import METHODS, DenseOutput, Method, Recorder

from rfclip.methods.refocus_clip import RefocusCLIP  # isort: skip  (the order in which METHODS lists them)
from rfclip.methods.refocus_clip_release import RefocusCLIPRelease  # isort: skip
from rfclip.methods.baselines import NACLIP, SCLIP, ClearCLIP, MaskCLIP, MeanKK, VanillaCLIP  # isort: skip
from rfclip.methods.sc_clip import SCCLIP  # isort: skip
from rfclip.methods.sfp import SFP  # isort: skip
from rfclip.methods.pearl import PEARL  # isort: skip
from rfclip.methods.resclip import ResCLIP  # isort: skip
from rfclip.methods.proxy_clip import ProxyCLIP  # isort: skip
from rfclip.methods.cass import CASS  # isort: skip
from rfclip.methods.gla_clip import GLACLIP  # isort: skip
from rfclip.methods.lposs import LPOSS  # isort: skip
from rfclip.methods.refocused import Refocused  # isort: skip
from rfclip.methods.variants import FilteredMeanKK, RefocusVariant  # isort: skip

__all__ = [
    "CASS",
    "GLACLIP",
    "LPOSS",
    "METHODS",
    "NACLIP",
    "PEARL",
    "SCCLIP",
    "SCLIP",
    "SFP",
    "ClearCLIP",
    "DenseOutput",
    "FilteredMeanKK",
    "MaskCLIP",
    "MeanKK",
    "Method",
    "ProxyCLIP",
    "Recorder",
    "RefocusCLIP",
    "RefocusCLIPRelease",
    "RefocusVariant",
    "Refocused",
    "ResCLIP",
    "VanillaCLIP",
]
