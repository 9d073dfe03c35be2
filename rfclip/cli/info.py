"""rfclip info: versions, devices, folders, and what ships with the package; to be added to a report of a fault."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import rfclip
from rfclip.benchmarks.configs import BENCHMARKS, config_root, listed, profiles
from rfclip.data import DATA, PACKAGE

PACKAGES = (
    "torch",
    "torchvision",
    "mmcv",
    "mmcv-lite",
    "mmengine",
    "mmsegmentation",
    "open_clip_torch",
    "timm",
    "numpy",
    "opencv-python",
    "pillow",
    "matplotlib",
    "gradio",
)


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser.description = "Versions, devices, folders, and the names that ship with the package."
    parser.add_argument(
        "--models", action="store_true", help="list the models of open_clip that can be used, with tags"
    )
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> int:
    """Print it."""
    if args.models:
        for name, tags in models().items():
            print(f"{name}: {', '.join(tags)}")
        return 0
    for what, value in facts().items():
        print(f"{what:16}{value}")
    return 0


def facts() -> dict[str, str]:
    """What there is, by its heading."""
    import torch

    from rfclip.io.cache import cache_dir
    from rfclip.vision.files import names

    cards = [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    return {
        "rfclip": f"{rfclip.__version__} in {PACKAGE}",
        "python": f"{platform.python_version()} on {platform.platform()}",
        **{name: installed(name) for name in PACKAGES},
        "devices": ", ".join(["cpu", *cards]),
        "cache": str(cache_dir() or "none: there is no home directory, and RFCLIP_CACHE is not set"),
        "configs": str(config_root()),
        "benchmarks": ", ".join(BENCHMARKS),
        "methods": ", ".join(profiles()),
        "vision models": ", ".join(names()),
        "analyses": ", ".join(listed("analysis")),
        "vocabularies": shipped("vocabularies"),
        "templates": shipped("templates"),
    }


def installed(name: str) -> str:
    """The version of a package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def shipped(folder: str) -> str:
    """The names of the lists in a folder of the package's data."""
    return ", ".join(sorted(path.stem for path in (DATA / folder).glob("*.json") if path.stem[0] != "_"))


def models() -> dict[str, list[str]]:
    """The models of open_clip whose image tower is a ViT that the methods can read, with the tags of their weights."""
    import open_clip

    from rfclip.clip.architecture import check_config

    found: dict[str, list[str]] = {}
    for name in open_clip.list_models():
        try:
            check_config(open_clip.get_model_config(name), name)
        except ValueError:
            continue
        found[name] = [tag for model, tag in open_clip.list_pretrained() if model == name]
    return {name: tags for name, tags in found.items() if tags}
