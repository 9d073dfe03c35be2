"""Make mmsegmentation importable beside mmcv-lite, and say what is wrong with an mmcv that cannot work.

mmsegmentation 1.2 imports ``mmcv.ops`` unconditionally, and with mmcv-lite that fails for want of the
compiled module ``mmcv._ext``. None of those operators is used here, so a placeholder stands in for the
compiled module while ``mmcv.ops`` is imported for the first time. It leaves ``sys.modules`` again at once:
mmengine looks the module up with pkgutil, which fails on a module without a spec.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_EXTENSION = "mmcv._ext"
_OLDEST, _TOO_NEW = (2, 0, 1), (2, 2, 0)
_INSTALL = "pip install 'mmcv-lite>=2.0.1,<2.2'"


class UnusableMmcvError(ImportError):
    """No mmcv is installed, or none that mmsegmentation takes; the message says which to install."""


class _Placeholder(ModuleType):
    """Stands in for the compiled operators: every attribute is a function that says what is missing."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: Any, **kwargs: Any) -> Any:
            raise ImportError(
                f"the compiled operator '{name}' is not part of mmcv-lite; install the full mmcv "
                "(a release from 2.0.1 up to, not including, 2.2; built for your torch) to use it"
            )

        return missing


def enable() -> None:
    """Make ``import mmseg`` work with whichever mmcv is installed; safe to call any number of times.

    A full mmcv is left untouched.

    Raises:
        UnusableMmcvError: No mmcv is installed, or one whose version mmsegmentation refuses. The message tells what
            to install.
    """
    with _cache_for_yapf():
        version = _mmcv_version()
    _check_version(version)
    if "mmcv.ops" in sys.modules or importlib.util.find_spec(_EXTENSION) is not None:
        return
    sys.modules[_EXTENSION] = _Placeholder(_EXTENSION)
    try:
        importlib.import_module("mmcv.ops")
    finally:
        del sys.modules[_EXTENSION]


@contextmanager
def _cache_for_yapf() -> Iterator[None]:
    """Let mmengine be imported where there is no home directory, in which yapf, its formatter, would keep a file.

    For so long, the directory of caches is one in which nothing can be written.
    """
    if os.environ.get("XDG_CACHE_HOME") or not os.path.expanduser("~").startswith("~"):  # noqa: PTH111
        yield
        return
    os.environ["XDG_CACHE_HOME"] = os.devnull
    try:
        yield
    finally:
        del os.environ["XDG_CACHE_HOME"]


def _mmcv_version() -> str:
    try:
        return str(importlib.import_module("mmcv.version").__version__)
    except ModuleNotFoundError as error:
        if error.name not in ("mmcv", "mmcv.version"):
            raise
        raise UnusableMmcvError(
            f"rfclip needs mmcv, and none is installed: {_INSTALL} (no compiler needed), "
            "or a full mmcv of the same versions if other projects of yours need its operators"
        ) from error


def _check_version(version: str) -> None:
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    if numbers < _OLDEST or numbers >= _TOO_NEW:
        raise UnusableMmcvError(
            f"mmcv {version} is installed, but mmsegmentation works with versions from 2.0.1 up to, "
            f"not including, 2.2: {_INSTALL}"
        )
