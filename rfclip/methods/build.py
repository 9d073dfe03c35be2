"""A settings block becomes a dense method that fits the weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rfclip.checks import shown
from rfclip.clip.loader import LoadedCLIP
from rfclip.methods.base import METHODS, Method
from rfclip.methods.distraction import resolve_distraction_dims


def build_method(settings: Mapping[str, Any] | None, loaded: LoadedCLIP) -> Method:
    """Build a dense method and give it the distraction dimensions of the weights, if it asks for them.

    Args:
        settings: `type` and the method's own arguments; `calibration_images` (a folder) serves 'auto' dimensions.
            None: RefocusCLIP.
        loaded: the CLIP.

    Raises:
        TypeError: no dict, an unknown argument, or a registered type that is no method.
        ValueError: an unknown type, or settings that do not fit the tower.
    """
    block = {"type": "RefocusCLIP"} if settings is None else settings
    method = METHODS.build(block, also=("calibration_images",))
    folder = block.get("calibration_images")
    if folder is not None and not isinstance(folder, (str, Path)):
        raise TypeError(f"calibration_images must be the path of a folder, got {shown(folder)}")
    dims = getattr(method, "distraction_dims", None)
    if folder is not None and not isinstance(dims, str):
        raise ValueError(
            f"calibration_images={folder!r} would not be looked at: it serves the distraction_dims='auto' of a method "
            f"that has them, and this is {method}"
        )
    if dims is not None:
        method = dataclasses.replace(method, distraction_dims=resolve_distraction_dims(loaded, dims, folder))
    if hasattr(method, "check_tower"):
        method.check_tower(loaded.model.visual)
    return method
