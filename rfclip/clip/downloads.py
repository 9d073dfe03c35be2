"""Where weights are: on the model hub, through open_clip, or here; what is here already needs no network."""

from __future__ import annotations

import http.client
import socket
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import constants, try_to_load_from_cache
from open_clip import pretrained as registry
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

from rfclip.clip.weights import WeightsNotFoundError

_USUAL_NAMES = [  # of weights in such a folder, the likeliest first
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"),
    *("open_clip_pytorch_model.pth", "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
]
_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
CURE = "give the path of a local weights file as clip.pretrained, or take clip.model='tiny', which brings its own"
_DOWNLOAD_ERRORS = (OSError, RuntimeError, ValueError, TypeError, http.client.HTTPException)


def download_tag(tag: Mapping[str, Any], what: str) -> Path:
    """Return the weights of an entry of open_clip's table.

    Args:
        tag: the entry, with 'hf_hub' ('owner/repository/' or 'owner/repository/file') or 'url'.
        what: for messages.

    Raises:
        WeightsNotFoundError: they are not here and cannot be downloaded.
    """
    repository, _, file = tag.get("hf_hub", "").rpartition("/")
    names = (file,) if file else (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)
    return _fetch(repository, names, lambda: registry.download_pretrained(tag), what)


def download_from_hub(repository: str, file: str | None, what: str, cure: str = CURE) -> Path:
    """Return a file ('owner/repository' and its name), or the weights (None), of a repository on the hub.

    Args:
        repository: 'owner/repository'.
        file: its name there, or None.
        what: for messages.
        cure: what to do without a network, for messages.

    Raises:
        WeightsNotFoundError: it is not here and cannot be downloaded.
    """
    names = (file,) if file else (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)
    return _fetch(
        repository, names, lambda: registry.download_pretrained_from_hf(repository, filename=file), what, cure
    )


def weights_in(folder: Path) -> Path:
    """Return the weights file of a folder in the layout of the hub.

    Raises:
        WeightsNotFoundError: there is none, or several without a usual name.
    """
    found = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    usual = sorted(
        (path for path in found if path.name in _USUAL_NAMES), key=lambda path: _USUAL_NAMES.index(path.name)
    )
    if usual or len(found) == 1:
        return (usual or found)[0]
    names = f"several weights files ({', '.join(path.name for path in found[:3])})" if found else "no weights file"
    raise WeightsNotFoundError(f"the folder {folder} holds {names}: give the path of one as clip.pretrained")


def _fetch(repository: str, names: tuple[str, ...], download: Callable[[], str], what: str, cure: str = CURE) -> Path:
    try:
        for name in names:
            cached = try_to_load_from_cache(repository, name) if repository else None
            if isinstance(cached, str):
                return Path(cached)
        _require_network()
        return Path(download())
    except _DOWNLOAD_ERRORS as error:
        raise WeightsNotFoundError(
            f"the {what} cannot be downloaded ({type(error).__name__}: {error}): without a network, {cure}"
        ) from error


def _require_network() -> None:
    """Fail at once where there is no network: the hub's client would try for most of a minute first."""
    if urllib.request.getproxies():
        return
    hub = urlsplit(constants.ENDPOINT)
    socket.create_connection((hub.hostname, hub.port or 443), timeout=10).close()
