"""RF-CLIP: training-free open-vocabulary segmentation by target refocusing, a plugin for mmsegmentation.

Importing the package registers its models, methods, data sets and metric in mmseg's registries. Where no mmcv is
installed, or one that mmseg refuses, a warning says so once, and everything that needs no mmseg works.
"""

import importlib
import warnings
from typing import Any

from rfclip.plugin.compat import UnusableMmcvError, enable
from rfclip.version import __version__

__all__ = ["RFCLIP", "OpenVocabSegmenter", "Segmentation", "__version__", "config", "encode_dense", "explain"]

_REGISTERED = (
    "rfclip.plugin.registries",
    "rfclip.plugin.loading",
    "rfclip.plugin.preprocess",
    "rfclip.plugin.runtime",
    "rfclip.plugin.segmentor",
    "rfclip.benchmarks.datasets",
    "rfclip.runs.metric",
)
_NAMES = {  # where a public name is defined
    "RFCLIP": "rfclip.plugin.segmentor",
    "encode_dense": "rfclip.plugin.segmentor",
    "OpenVocabSegmenter": "rfclip.segment.api",
    "Segmentation": "rfclip.segment.result",
    "config": "rfclip.benchmarks.configs",
}


def register() -> None:
    """Register everything in mmseg's registries; safe to call any number of times.

    Raises:
        UnusableMmcvError: an ImportError that says which mmcv to install.
    """
    enable()
    for module in _REGISTERED:
        importlib.import_module(module)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name == "explain":  # a package that can be called
        return importlib.import_module("rfclip.explain")
    if name not in _NAMES:
        raise AttributeError(f"module 'rfclip' has no attribute {name!r}")
    if _NAMES[name].startswith("rfclip.plugin."):
        register()
    return getattr(importlib.import_module(_NAMES[name]), name)


try:
    register()
except UnusableMmcvError as error:
    warnings.warn(str(error), stacklevel=2)
