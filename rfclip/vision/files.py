"""Where the weights of vision models are, and what is in them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from rfclip.checks import near, shown
from rfclip.clip.downloads import download_from_hub
from rfclip.clip.weights import WeightsError, WeightsNotFoundError, read_weights
from rfclip.data import DATA
from rfclip.io.cache import expanded

AUTO = "auto"
PUBLISHED = {  # name of the DINO release -> timm's name of the same weights
    "dino_vits8": "vit_small_patch8_224.dino",
    "dino_vits16": "vit_small_patch16_224.dino",
    "dino_vitb8": "vit_base_patch8_224.dino",
    "dino_vitb16": "vit_base_patch16_224.dino",
}
TINY = {"tiny8": DATA / "tiny_vit" / "tiny8.safetensors", "tiny16": DATA / "tiny_vit" / "tiny16.safetensors"}
_CURE = (
    "give the path of a local weights file as vfm.pretrained, or take 'tiny8' or 'tiny16', which ship with the package "
    "and know its drawn world only"
)
_WRAPPED = ("teacher", "student")  # the two networks of a training checkpoint


def names() -> tuple[str, ...]:
    """The names that `vfm.pretrained` takes beside files."""
    return (*PUBLISHED, *TINY)


def resolved_name(pretrained: str, published: str, beside_tiny: bool) -> str:
    """Return a name or path as it is, and for 'auto' the name that it stands for.

    Args:
        pretrained: as it was given.
        published: the name of the weights that the method was published with.
        beside_tiny: whether the CLIP is the tiny one; then 'auto' is the tiny model of the same patch.

    Example:
        >>> resolved_name("auto", "dino_vitb8", beside_tiny=True), resolved_name("auto", "dino_vitb16", False)
        ('tiny8', 'dino_vitb16')
    """
    if pretrained != AUTO:
        return pretrained
    return f"tiny{16 if published.endswith('16') else 8}" if beside_tiny else published


def local_vision(pretrained: str) -> Path | None:
    """Return the file on this machine that a name or path means, or None if it is to be downloaded or not there."""
    path = TINY.get(pretrained) or (None if pretrained in PUBLISHED else expanded(pretrained))
    return path if path is not None and os.path.lexists(path) and path.is_file() else None


def find_weights(pretrained: str) -> Path:
    """Return the file of a name, downloaded if it is not here, or of a path.

    Raises:
        WeightsNotFoundError: there is no such name or file, or it cannot be downloaded.
        WeightsError: it is a folder.
    """
    if pretrained in PUBLISHED:
        what = f"weights {pretrained!r} of the vision model"
        return download_from_hub(f"timm/{PUBLISHED[pretrained]}", "model.safetensors", what, _CURE)
    path = TINY.get(pretrained) or expanded(pretrained)
    if not os.path.lexists(path) or not path.exists():
        raise WeightsNotFoundError(
            f"vfm.pretrained={shown(pretrained)} is no file here, nor a name{near(pretrained, names())}: there are "
            f"{', '.join(names())}; or {_CURE}"
        )
    if path.is_dir():
        raise WeightsError(f"vfm.pretrained={shown(pretrained)} is a folder: give the path of a file in it")
    return path


def read_tensors(path: Path) -> Mapping[str, Tensor]:
    """Read a vision model's weights (see :func:`rfclip.clip.weights.read_weights`), out of a training checkpoint too.

    Of a training checkpoint with one network, under 'teacher' or 'student', that one is taken, and of one with a
    backbone and a head, the backbone.

    Raises:
        WeightsError: the file cannot be read, or holds both networks.
    """
    tensors = read_weights(path, nested=_WRAPPED).tensors
    backbone = {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith("backbone.")}
    rest = [name for name in tensors if not name.startswith(("backbone.", "head."))]
    return backbone if backbone and not rest else tensors
