"""Where the shipped configs are: beside the package in a checkout, inside it in an installed wheel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

from rfclip.data import PACKAGE

BENCHMARKS = ("voc21", "voc20", "context60", "context59", "coco_object", "coco_stuff", "cityscapes", "ade20k")
PROFILES = "_base_/profiles"
REFINERS = "_base_/refiners"


def config_root() -> Path:
    """Return the folder of the shipped configs (with ``_base_`` and ``rfclip`` in it).

    Raises:
        FileNotFoundError: The package was copied without its configs.
    """
    package = PACKAGE
    for folder in (package / ".mim/configs", package.parent / "configs"):
        if (folder / "_base_").is_dir():
            return folder
    raise FileNotFoundError(
        f"no configs beside or inside {package}: install rfclip with pip, or run it from a full checkout"
    )


def listed(folder: str) -> tuple[str, ...]:
    """Names of the configs in a folder of :func:`config_root`, sorted, without suffix."""
    return tuple(sorted(path.stem for path in (config_root() / folder).glob("*.py")))


def benchmark_config(benchmark: str) -> Path:
    """Return the file of a benchmark's ViT-B/16 config.

    Args:
        benchmark: One of :data:`BENCHMARKS`.

    Raises:
        ValueError: Another name.
    """
    if benchmark not in BENCHMARKS:
        raise ValueError(f"no benchmark '{benchmark}'; there are {', '.join(BENCHMARKS)}")
    return config_root() / "rfclip" / f"rfclip_vit-b16_{benchmark}.py"


def config(benchmark: str) -> dict[str, Any]:
    """Return the model dict of a benchmark's config, ready for ``MODELS.build``; a fresh copy at each call.

    Args:
        benchmark: One of :data:`BENCHMARKS`.

    Raises:
        ValueError: Another name.
    """
    from mmengine.config import Config  # here, so that the command reads the names of the benchmarks at once

    return Config.fromfile(benchmark_config(benchmark)).model.to_dict()


def find_profile(name: str) -> tuple[str, dict[str, Any]]:
    """Return a profile's name and what it changes in a config.

    Args:
        name: A file of configs/_base_/profiles, such as 'paper', or the class of its method (case, '-' and '_' do not
            matter); or the class of a registered method that has no such file.

    Raises:
        ValueError: No such profile and no such method, or a profile of a method that is not registered.
    """
    from rfclip.checks import near, shown  # which imports numpy
    from rfclip.methods import METHODS

    plain = _plain(name)
    blocks = _blocks()
    named = [stem for stem in blocks if _plain(stem) == plain]
    of_class = [stem for stem, block in blocks.items() if _plain(block["type"]) == plain]
    for stem in (*named, *of_class):
        kind = blocks[stem]["type"]
        if METHODS.get(kind) is None:
            raise ValueError(f"profile '{stem}' needs the method {kind}, which is not registered; {_choices()}")
        return stem, {"model": {"method": {"_delete_": True, **deepcopy(blocks[stem])}}}
    kind = next((kind for kind in METHODS.names() if _plain(kind) == plain), name)
    if METHODS.get(kind) is None:
        close = near(name, (*METHODS.names(), *profiles()))
        raise ValueError(f"no profile {shown(name)}{close}; {_choices()}")
    return kind, {"model": {"method": {"_delete_": True, "type": kind}}}


def profiles() -> tuple[str, ...]:
    """The profiles whose method is registered, sorted: what can be run."""
    from rfclip.methods import METHODS

    return tuple(stem for stem, block in _blocks().items() if METHODS.get(block["type"]) is not None)


def method_block(name: str) -> dict[str, Any]:
    """The method block of a profile, as :func:`find_profile` takes it; ValueError if there is none."""
    block = find_profile(name)[1]["model"]["method"]
    return {key: value for key, value in block.items() if key != "_delete_"}


def refiner_block(name: str) -> dict[str, Any] | None:
    """The settings of a refiner, ready to be built; None for 'none'.

    Args:
        name: 'none'; or a file of configs/_base_/refiners, such as 'pamr', or its class (case, '-' and '_' do not
            matter); or the class of a registered refiner that has no such file.

    Raises:
        ValueError: Another name.
    """
    from mmengine.config import Config

    from rfclip import refiners
    from rfclip.checks import shown  # which imports numpy

    if name == "none":
        return None
    for stem in listed(REFINERS):
        if _plain(stem) == _plain(name):
            block: dict[str, Any] = Config.fromfile(config_root() / f"{REFINERS}/{stem}.py").model.refiner.to_dict()
            return block
    known = refiners.REFINERS
    if known.get(name) is None:
        choices = f"none, {', '.join(listed(REFINERS))}, and the classes {', '.join(sorted(known.names()))}"
        raise ValueError(f"no refiner {shown(name)}; there are {choices}")
    return {"type": name}


def profile_name(method: Mapping[str, Any], published: Callable[[str], Mapping[str, Any]] = lambda _: {}) -> str:
    """The profile that a method block is, e.g. 'paper'; with what differs from it, if something does.

    Args:
        method: The block; an empty one is the default method.
        published: Per profile the arguments of its method that were published for the benchmark at hand.
    """
    from rfclip.io.paths import without_paths  # which imports torch, and this module must not

    method = {key: value for key, value in method.items() if key != "_delete_"} or {"type": "RefocusCLIP"}
    kind = str(method["type"])
    found = {stem: block for stem, block in _blocks().items() if block["type"] == kind} or {kind: {"type": kind}}
    own = {stem: {**block, **published(stem)} for stem, block in found.items()}
    stem = min(own, key=lambda one: len(_differing(method, own[one])) + len(_differing(own[one], method)))
    changed = [f"{key}={without_paths(method[key])}" for key in _differing(method, own[stem])]
    return f"{stem} ({', '.join(changed)})" if changed else stem


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """The keys of the first that the second lacks or has with another value."""
    return [key for key, value in first.items() if key not in second or second[key] != value]


def _choices() -> str:
    from rfclip.methods import METHODS

    return f"there are {', '.join(profiles())}, and the methods {', '.join(sorted(set(METHODS.names())))}"


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


@lru_cache(maxsize=1)
def _blocks() -> dict[str, dict[str, Any]]:
    """The method blocks of the profiles by their names, sorted; not to be modified."""
    from mmengine.config import Config

    blocks = {name: Config.fromfile(config_root() / f"{PROFILES}/{name}.py").model.method for name in listed(PROFILES)}
    return {name: {k: v for k, v in block.to_dict().items() if k != "_delete_"} for name, block in blocks.items()}
