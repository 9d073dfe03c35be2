"""Where the shipped configs are: beside the package in a checkout, inside it in an installed wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rfclip.data import PACKAGE

BENCHMARKS = ("voc21", "voc20", "context60", "context59", "coco_object", "coco_stuff", "cityscapes", "ade20k")


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
        name: 'paper', 'release' or another file of configs/_base_/profiles, or the class of its method (case, '-' and
            '_' do not matter); or the class of a registered method that has no such file.

    Raises:
        ValueError: No such profile and no such method.
    """
    from mmengine.config import Config

    from rfclip.methods import METHODS

    files = {path.stem: path for path in sorted((config_root() / "_base_/profiles").glob("*.py"))}
    plain = name.lower().replace("_", "").replace("-", "")
    plain = {"refocusclip": "paper", "refocuscliprelease": "release"}.get(plain, plain)
    for stem, path in files.items():
        if stem.replace("_", "") == plain:
            return stem, Config.fromfile(path).to_dict()
    if METHODS.get(name) is None:
        others = ", ".join(sorted(set(METHODS.names())))
        raise ValueError(f"no profile '{name}'; there are {', '.join(files)}, and the methods {others}")
    return name, {"model": {"method": {"_delete_": True, "type": name}}}


def method_block(name: str) -> dict[str, Any]:
    """The method block of a profile, as :func:`find_profile` takes it; ValueError if there is none."""
    block = find_profile(name)[1]["model"]["method"]
    return {key: value for key, value in block.items() if key != "_delete_"}
