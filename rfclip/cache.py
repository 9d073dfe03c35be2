"""Tensors kept on disk between runs: written whole or not at all, verified, never a reason to fail."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.logging import print_log
from safetensors import SafetensorError
from safetensors.torch import load, save

_CHECKSUM = "__sha256__"


def cache_dir() -> Path:
    """Directory of the cache: ``$RFCLIP_CACHE``, else ``$XDG_CACHE_HOME/rfclip``, else ``~/.cache/rfclip``.

    The environment is read at each call, so a change takes effect at once. The directory need not exist.
    """
    if own := os.environ.get("RFCLIP_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "rfclip"
    return Path("~/.cache/rfclip").expanduser()


def cached_tensors(key: str, make: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The tensors kept under ``key``, made by ``make`` if there are none.

    Args:
        key: Everything that the tensors depend on, as one string (hashed into a file name).
        make: Called without arguments when the entry is missing or damaged.

    Returns:
        CPU tensors by name, equal to what ``make`` gave when the entry was written.
    """
    kept = read_tensors(key)
    if kept is not None:
        return kept
    made = {name: tensor.detach().cpu().contiguous() for name, tensor in make().items()}
    write_tensors(key, made)
    return made


def read_tensors(key: str) -> dict[str, torch.Tensor] | None:
    """The tensors kept under ``key``, or None where there are none or the file is damaged (logged)."""
    path = _path(key)
    try:
        tensors = load(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, SafetensorError) as error:
        print_log(f"Cache file {path} cannot be read ({error}); it is rebuilt.", "current", logging.WARNING)
        return None
    checksum = tensors.pop(_CHECKSUM, None)
    if checksum is None or not torch.equal(checksum, _checksum(tensors)):
        print_log(f"Cache file {path} is damaged; it is rebuilt.", "current", logging.WARNING)
        return None
    return tensors


def write_tensors(key: str, tensors: dict[str, torch.Tensor]) -> None:
    """Keep contiguous CPU ``tensors`` under ``key``: a temporary file of this call's own, then one rename.

    So readers and writers in other threads and processes see a whole file or none. Where the directory cannot
    be written (read-only, full), that is logged once and the tensors are not kept.
    """
    path = _path(key)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(save({**tensors, _CHECKSUM: _checksum(tensors)}))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        _warn_unwritable(path.parent, error.strerror or type(error).__name__)


def _path(key: str) -> Path:
    return cache_dir() / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"


def _checksum(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.tensor(list(hashlib.sha256(save(tensors)).digest()), dtype=torch.uint8)


@functools.cache
def _warn_unwritable(folder: Path, reason: str) -> None:
    print_log(
        f"The cache directory {folder} cannot be written ({reason}): results are computed again in each run. "
        "Set RFCLIP_CACHE to a writable directory.",
        "current",
        logging.WARNING,
    )
