"""RF-CLIP: training-free open-vocabulary segmentation by target refocusing, a plugin for mmsegmentation.

Importing the package registers its models, methods, data sets and metric in mmseg's registries.
"""

import importlib
from typing import Any

from rfclip.plugin.compat import enable

enable()

from rfclip import methods  # noqa: F401  (they register)
from rfclip.benchmarks import datasets  # noqa: F401  (they register)
from rfclip.benchmarks.configs import config
from rfclip.plugin import (
    loading,  # noqa: F401  (they register)
    preprocess,  # noqa: F401  (they register)
    runtime,  # noqa: F401  (they register)
)
from rfclip.plugin.segmentor import RFCLIP, encode_dense
from rfclip.runs import metric as evaluation  # noqa: F401  (they register)
from rfclip.segment.api import OpenVocabSegmenter, Segmentation
from rfclip.version import __version__

__all__ = ["RFCLIP", "OpenVocabSegmenter", "Segmentation", "__version__", "config", "encode_dense", "explain"]


def __getattr__(name: str) -> Any:
    """Import rfclip.explain, and with it the plots, when it is first asked for."""
    if name == "explain":
        return importlib.import_module("rfclip.explain")
    raise AttributeError(f"module 'rfclip' has no attribute {name!r}")
