"""Tensors kept on disk between runs: written whole or not at all, verified, never a reason to fail."""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from rfclip.io.atomic import write_whole

LOG = logging.getLogger(__name__)

_CHECKSUM = "__sha256__"


def cache_dir() -> Path | None:
    """Directory of the cache: ``$RFCLIP_CACHE``, else ``$XDG_CACHE_HOME/rfclip``, else ``~/.cache/rfclip``.

    The environment is read at each call, so a change takes effect at once. The directory need not exist; it is None
    where it would stand in a home directory that there is not.
    """
    folder = _named_dir()
    try:
        return folder.expanduser()
    except RuntimeError:  # so says pathlib where there is no home
        return None


def expanded(path: str | Path) -> Path:
    """A path with '~' replaced by the home directory; where there is none it stays, and is a name as any other."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def fingerprint(module: nn.Module, leave_out: str | None = None) -> str:
    """A hash of what a module computes, beside the values of its weights.

    That is, of each part: its class, settings (heads, eps, pooling, ...), the types of its weights, and the values of
    its buffers (masks).

    Args:
        module: Any module; not modified.
        leave_out: A child whose parts do not count.
    """
    parts = []
    for name, part in module.named_modules():
        if leave_out is None or name.split(".")[0] != leave_out:
            settings = {key: _plain(value) for key, value in vars(part).items() if key[0] != "_" and key != "training"}
            weights = {key: f"{tuple(w.shape)} {w.dtype}" for key, w in part.named_parameters(recurse=False)}
            buffers = {key: _hash(b.detach().cpu()) for key, b in part.named_buffers(recurse=False)}
            parts.append(
                (name, type(part).__qualname__, *(sorted(each.items()) for each in (settings, weights, buffers)))
            )
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _plain(value: object) -> str | None:
    """A setting as text, if it is a plain value or a function."""
    if inspect.isroutine(value):
        return value.__qualname__
    return repr(value) if value is None or isinstance(value, (bool, int, float, str, tuple, list)) else None


def _hash(tensor: torch.Tensor) -> str:
    return hashlib.sha256(save({"": tensor.contiguous()})).hexdigest()


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
    if path is None:
        return None
    try:
        tensors = load(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except (OSError, SafetensorError) as error:
        LOG.warning(f"Cache file {path} cannot be read ({error}); it is rebuilt.")
        return None
    checksum = tensors.pop(_CHECKSUM, None)
    if checksum is None or not torch.equal(checksum, _checksum(key, tensors)):
        LOG.warning(f"Cache file {path} is damaged; it is rebuilt.")
        return None
    return tensors


def write_tensors(key: str, tensors: dict[str, torch.Tensor]) -> None:
    """Keep contiguous CPU ``tensors`` under ``key``.

    Readers and writers in other threads and processes see a whole file or none. Where the directory cannot
    be written (read-only, full, no home directory), that is logged once and the tensors are not kept.
    """
    path = _path(key)
    if path is None:
        _warn_unwritable(_named_dir(), "there is no such home directory")
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, save({**tensors, _CHECKSUM: _checksum(key, tensors)}))
    except OSError as error:
        _warn_unwritable(path.parent, error.strerror or type(error).__name__)


def _named_dir() -> Path:
    """The directory as the environment writes it."""
    if own := os.environ.get("RFCLIP_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "rfclip"


def _path(key: str) -> Path | None:
    folder = cache_dir()
    return None if folder is None else folder / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"


def _checksum(key: str, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Of the key too, so that a file under another's name is known for what it is."""
    return torch.tensor(list(hashlib.sha256(key.encode() + save(tensors)).digest()), dtype=torch.uint8)


@functools.cache
def _warn_unwritable(folder: Path, reason: str) -> None:
    LOG.warning(
        f"The cache directory {folder} cannot be written ({reason}): results are computed again in each run. "
        "Set RFCLIP_CACHE to a writable directory."
    )
