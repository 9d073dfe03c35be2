"""Paths as they are shown: what names a machine is cut off."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rfclip.io.cache import expanded


def without_paths(value: Any) -> Any:
    """A plain copy of nested dicts and lists in which absolute paths are cut to their last part."""
    if isinstance(value, Mapping):
        return {str(key): without_paths(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(entry) for entry in value]
    if isinstance(value, Path) or (isinstance(value, str) and expanded(value).is_absolute()):
        return Path(value).name
    return value
