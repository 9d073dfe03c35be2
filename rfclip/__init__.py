"""RF-CLIP: training-free open-vocabulary segmentation by target refocusing, a plugin for mmsegmentation.

As a library, importing the package registers its models, methods, data sets and metric in mmseg's registries. Where no
mmcv is installed, or one that mmseg refuses, a warning says so once, and everything that needs no mmseg works.

Where the process is the command (``python -m rfclip``, the console script ``rfclip``, or a script in the checkout's
tools/ or datasets/), importing registers nothing and loads neither torch nor mmseg, so that ``--help`` answers at once:
:mod:`rfclip.cli` calls :func:`register` when it has read the command line. The names below are there in both cases.
"""

import importlib
import sys
import warnings
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfclip.plugin.compat import UnusableMmcvError, enable
from rfclip.version import __version__

if TYPE_CHECKING:
    from rfclip import explain
    from rfclip.benchmarks.configs import config
    from rfclip.plugin.segmentor import RFCLIP, encode_dense
    from rfclip.segment.api import OpenVocabSegmenter
    from rfclip.segment.result import Segmentation

__all__ = [
    "RFCLIP",
    "OpenVocabSegmenter",
    "Segmentation",
    "__version__",
    "config",
    "encode_dense",
    "explain",
    "register",
]

_HOMES = {
    "RFCLIP": "rfclip.plugin.segmentor",
    "OpenVocabSegmenter": "rfclip.segment.api",
    "Segmentation": "rfclip.segment.result",
    "config": "rfclip.benchmarks.configs",
    "encode_dense": "rfclip.plugin.segmentor",
}
_REGISTERING = (
    "rfclip.plugin.registries",
    "rfclip.plugin.loading",
    "rfclip.plugin.preprocess",
    "rfclip.plugin.runtime",
    "rfclip.plugin.segmentor",
    "rfclip.benchmarks.datasets",
    "rfclip.runs.metric",
)


def register() -> None:
    """Enter models, methods, data sets and metric in mmseg's registries; safe to call any number of times.

    Raises:
        UnusableMmcvError: an ImportError that says which mmcv to install.
    """
    enable()  # mmseg can be imported only after it
    for module in _REGISTERING:
        importlib.import_module(module)


def __getattr__(name: str) -> Any:
    """Import what the package offers when it is first asked for; rfclip.explain brings the plots along."""
    if name == "explain":
        return importlib.import_module("rfclip.explain")
    if name not in _HOMES:
        raise AttributeError(f"module 'rfclip' has no attribute {name!r}")
    if _HOMES[name].startswith("rfclip.plugin."):
        register()
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _is_command() -> bool:
    """Whether this process runs the command; one that it starts to read images, say, is no command."""
    program = getattr(sys, "argv", [""])[0]
    if program == "-m":  # so it is while Python looks for the module to run
        return ("-m", "rfclip") in pairwise(sys.orig_argv)
    path = Path(program).absolute()
    scripts = (Path(__file__).parents[1] / "tools", Path(__file__).parents[1] / "datasets")
    return program in sys.orig_argv and (path.name == "rfclip" or path.resolve().parent in scripts)


if not _is_command():
    try:
        register()
    except UnusableMmcvError as error:
        warnings.warn(str(error), stacklevel=2)
