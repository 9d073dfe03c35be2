"""Where the architecture and the weights of a CLIP come from: open_clip's table, the hub, a folder, a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_clip import pretrained as registry

from rfclip.clip import architecture as arch
from rfclip.clip.downloads import download_from_hub, download_tag, weights_in
from rfclip.clip.tiny import TINY_FOLDER
from rfclip.clip.weights import WeightsError, WeightsNotFoundError
from rfclip.io.cache import expanded

TINY_WEIGHTS = "tiny_clip.safetensors"
_HUB = "hf-hub:"
_FOLDER = "local-dir:"
_CONFIG = "open_clip_config.json"


@dataclass(frozen=True)
class Source:
    """Where the architecture and the weights come from, before the weights are read."""

    name: str
    path: Path
    config: Mapping[str, Any] | None = None  # None: read off the shapes of the weights
    named: bool = False  # config comes from an open_clip model name
    together: bool = False  # config and weights come from one place
    folder: Path | None = None  # where the tokenizer is, if it is not CLIP's own
    tag: Mapping[str, Any] | None = None  # open_clip's entry for the tag
    origin: str | None = None
    preprocess: Mapping[str, Any] | None = None


def brings_weights(model: str | Path) -> bool:
    """Whether a model has weights of its own, so that `pretrained` can be left out."""
    return model == "tiny" or str(model).startswith(_HUB) or _folder_of(str(model)) is not None


def local_weights(model: str | Path, pretrained: str | Path | None) -> Path | None:
    """Return the file on this machine that `load_clip` would read, or None if that is a tag's or the hub's."""
    if model == "tiny":
        return TINY_FOLDER / TINY_WEIGHTS
    if pretrained is not None:
        path = expanded(str(pretrained))
        return path if _stands(path) and path.is_file() else None
    folder = _folder_of(str(model))
    return None if folder is None else weights_in(folder)


def find(model: str, pretrained: str | None) -> Source:
    """Find architecture and weights; refuse an unusable architecture before its weights are fetched."""
    if model.startswith(_HUB):
        return _find_on_hub(model, pretrained)
    folder = _folder_of(model)
    if folder is not None:
        return _find_in_folder(model, folder, pretrained)
    if pretrained is None:
        raise WeightsError(
            f"clip.pretrained is missing for clip.model={model!r}: give an open_clip tag or a local file "
            "(random weights are never used), or take clip.model='tiny', which brings its own"
        )
    if model == "auto":
        return Source("auto", _local(pretrained))
    if Path(model).suffix == ".json":
        config, preprocess = arch.read_config(expanded(model))
        arch.check_config(config, model)
        return Source(model, _local(pretrained), config, preprocess=preprocess)
    config = arch.named_config(model)
    arch.check_config(config, model)
    name = arch.clean_name(model)
    if not registry.is_pretrained_cfg(name, pretrained):
        return Source(name, _local(pretrained, registry.list_pretrained_tags_by_model(name)), config, named=True)
    tag = registry.get_pretrained_cfg(name, pretrained)
    path = download_tag(tag, f"tag {pretrained!r} of {name}")
    origin = pretrained.lower().replace("-", "_")  # how open_clip compares tags
    return Source(name, path, config, named=True, tag=tag, origin=origin, preprocess=tag)


def _find_on_hub(model: str, pretrained: str | None) -> Source:
    repository = model.removeprefix(_HUB)
    path = download_from_hub(repository, _CONFIG, f"config of {model}")
    config, preprocess = arch.read_config(path)
    arch.check_config(config, model)
    weights = _local(pretrained) if pretrained else download_from_hub(repository, None, f"weights of {model}")
    return Source(model, weights, config, together=not pretrained, preprocess=preprocess)


def _folder_of(model: str) -> Path | None:
    """Return the folder that a model names, or None; a name is no folder, whatever lies here."""
    if model.startswith(_FOLDER):
        return expanded(model.removeprefix(_FOLDER))
    if model == "auto" or arch.is_named(model):
        return None
    path = expanded(model)
    return path if _stands(path) and path.is_dir() else None


def _find_in_folder(model: str, folder: Path, pretrained: str | None) -> Source:
    config, preprocess = arch.read_config(folder / _CONFIG)
    arch.check_config(config, model)
    weights = _local(pretrained) if pretrained else weights_in(folder)
    return Source(model, weights, config, together=not pretrained, folder=folder, preprocess=preprocess)


def _stands(path: Path) -> bool:
    """Whether there is something of this name, which may be far too long for one."""
    return os.path.lexists(path) and path.exists()


def _local(pretrained: str, tags: list[str] | None = None) -> Path:
    path = expanded(pretrained)
    there = _stands(path)
    if there and path.is_dir():
        own = f", or leave it out and give clip.model='{_FOLDER}{path}'" if (path / _CONFIG).exists() else ""
        raise WeightsError(f"clip.pretrained={pretrained!r} is a folder: give the path of a file in it{own}")
    if there:
        return path
    also = f", nor a tag of this model (its tags: {', '.join(tags) or 'none'})" if tags is not None else ""
    raise WeightsNotFoundError(
        f"clip.pretrained={pretrained!r} is no file here{also}: give a path that exists, or take "
        "clip.model='tiny', which brings its own weights"
    )
