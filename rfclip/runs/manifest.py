"""What a number hangs on, gathered beside it: config, names, weights, code, data, versions, machine, time.

No host names and no absolute paths: of a path outside the working folder only the last part is kept.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import platform
import subprocess
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict

import torch
from mmengine.config import Config

from rfclip.benchmarks.configs import profile_name
from rfclip.benchmarks.options import benchmark_name
from rfclip.benchmarks.protocols import PUBLISHED, SHARED, published_benchmarks, published_settings
from rfclip.benchmarks.test_set import named_infos, part_configs, type_name
from rfclip.clip.sources import local_weights
from rfclip.clip.text import load_templates, load_vocabulary
from rfclip.clip.weights import hash_file
from rfclip.data import PACKAGE
from rfclip.io.cache import expanded
from rfclip.io.paths import without_paths
from rfclip.methods import METHODS
from rfclip.methods.vision import SightedMethod
from rfclip.runs.areas import fingerprint
from rfclip.version import __version__
from rfclip.vision.files import local_vision, resolved_name
from rfclip.vision.model import check_vfm
from rfclip.words.vocabulary import shipped_vocabularies

PACKAGES = (
    "torch", "torchvision", "numpy", "scipy", "mmengine", "mmsegmentation", "mmcv", "mmcv-lite",
    "open_clip_torch", "timm",
)  # fmt: skip
# Parts of the package that no run reads, so that their code changes no number
BESIDE_RUNS = (
    ".mim/", "segment/", "explain/", "analysis/", "cost/", "demo/", "cli/", "data/published.json", "data/expected.json",
)  # fmt: skip
_DECIDING = ("config", "files", "vocabulary", "templates", "weights", "vision", "code")
_FILES = (("clip", "model"), ("method", "distraction_dims"), ("method", "calibration_images"))  # that may name some


class VisionFacts(TypedDict, total=False):
    """What vision model a method was to have; the last: what its weights turned out to be once loaded."""

    type: str
    pretrained: str
    heads: int | None
    file_sha256: str | None
    sha256: str


class WeightsFacts(TypedDict, total=False):
    """What weights were asked for; the last four: what they turned out to be once loaded."""

    model: str
    pretrained: str | None
    file_sha256: str | None
    sha256: str
    architecture: str
    origin: str | None
    activation: str


class NamesFacts(TypedDict, total=False):
    """A vocabulary, with its numbers of classes and queries, or templates, with their count."""

    name: str
    sha256: str
    classes: int
    queries: int
    count: int


class CodeFacts(TypedDict):
    """The package: its hash counts, the commit is shown beside it."""

    version: str
    sha256: str
    git: str | None


class ConfigFacts(TypedDict):
    """The parts of a config that decide numbers."""

    model: dict[str, Any]
    dataset: dict[str, Any]
    evaluator: dict[str, Any]
    loop: dict[str, Any] | None
    data_preprocessor: dict[str, Any] | None


class DataFacts(TypedDict):
    """A data set: how many images, and one hash of them and their labels."""

    images: int
    sha256: str


class Facts(TypedDict):
    """What is known before a run: everything but the data that its numbers depend on."""

    config_file: str | None
    overrides: dict[str, Any]
    config: ConfigFacts
    files: dict[str, str]
    vocabulary: NamesFacts
    templates: NamesFacts
    weights: WeightsFacts
    vision: VisionFacts | None
    profile: str
    protocol: str
    layers: Any
    refiner: str | None
    pamr: bool
    prob_thd: float
    resize: list[Any]
    window: dict[str, Any]
    precision: str
    code: CodeFacts
    identity: str


class Manifest(Facts):
    """What stands beside the numbers of a finished run."""

    versions: dict[str, str]
    machine: dict[str, Any]
    time: dict[str, Any]
    data: DataFacts


class Verdict(TypedDict):
    """A run against what is expected of it: mIoU and tolerance in percent, and a sentence."""

    mIoU: float
    tolerance: float
    passed: bool
    sentence: str


class Results(TypedDict):
    """results.json: metrics, also per class, in percent; None where nothing can be said."""

    metrics: dict[str, float | None]
    per_class: dict[str, dict[str, float | None]]
    manifest: Manifest
    alarms: list[str]
    expected: Verdict | None


def decisive_facts(cfg: Config, overrides: Mapping[str, Any]) -> Facts:
    """Everything but the data that the numbers of a run depend on, and its hash under ``identity``.

    Args:
        cfg: The full config, all options merged in.
        overrides: The command line's options that changed the config, to be shown.
    """
    model = cfg.model
    refiner = type_name(model.refiner) if model.get("refiner") else None
    facts: Facts = {
        "config_file": Path(cfg.filename).name if cfg.filename else None,
        "overrides": without_paths(dict(overrides)),
        "config": config_facts(cfg),
        "files": _file_facts(model),
        "vocabulary": _vocabulary_facts(model.vocabulary),
        "templates": _templates_facts(model.get("templates", "imagenet80")),
        "weights": _weights_facts(model.clip),
        "vision": _vision_facts(model.get("method") or {}, beside_tiny=model.clip.get("model") == "tiny"),
        "profile": _profile(cfg),
        "protocol": cfg.get("protocol", SHARED),
        "layers": model.get("method", {}).get("layers"),
        "refiner": refiner,
        "pamr": refiner == "PAMR",
        "prob_thd": model.get("prob_thd", 0.0),
        "resize": _resize(part_configs(cfg)),
        "window": model.get("test_cfg", {}).to_dict() if model.get("test_cfg") else {"mode": "whole"},
        "precision": model.clip.get("precision", "fp32"),
        "code": {"version": __version__, "sha256": code_hash(), "git": git_commit()},
        "identity": "",
    }
    facts["identity"] = identity(facts)
    return facts


def config_facts(cfg: Config) -> ConfigFacts:
    """The parts of a config that decide numbers, without paths: model, data set with its pipeline, evaluator, loop.

    The data root is left out: moved data is the same data, which :func:`data_facts` can tell.
    """
    told = [key for key in ("beta", "format_only") if key in cfg.test_evaluator]
    parts = {
        "model": cfg.model.to_dict(),
        "dataset": _without(cfg.test_dataloader.dataset.to_dict(), ("data_root", "test_mode")),
        "evaluator": {key: cfg.test_evaluator.get(key) for key in ("type", "ignore_index", *told)},
        "loop": cfg.get("test_cfg"),
        "data_preprocessor": cfg.get("data_preprocessor"),
    }
    return without_paths(parts)


def identity(facts: Mapping[str, Any]) -> str:
    """The hash of what decides a number. Of the code its hash counts, not the commit shown beside it."""
    deciding = {key: facts[key] for key in _DECIDING}
    deciding["code"] = facts["code"]["sha256"]
    return _sha256(json.dumps(deciding, sort_keys=True, default=str))


def circumstances() -> dict[str, Any]:
    """Versions and machine, which should not change a number and are recorded in case they do."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return {
        "versions": {"python": platform.python_version(), "rfclip": __version__, **_versions()},
        "machine": {
            "system": platform.system(),
            "architecture": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "memory_gib": round(memory / 2**30, 1) if memory else None,
            "gpus": gpus,
        },
    }


def data_facts(prints: Mapping[str, str]) -> DataFacts:
    """Number of images and one hash of a data set, from the fingerprints of its images by name."""
    lines = sorted(f"{name} {data}" for name, data in prints.items())
    return {"images": len(lines), "sha256": _sha256("\n".join(lines))}


def fingerprints(dataset: Any, names: Collection[str] | None = None) -> dict[str, str]:
    """Fingerprint of each image's files, by the image's name; reads all of them.

    Args:
        dataset: The data set.
        names: Only of these images; None: of all.
    """
    return {name: fingerprint(info) for name, info in named_infos(dataset) if names is None or name in names}


@lru_cache(maxsize=1)
def code_hash() -> str:
    """Hash of the source and the small data files that can change a run's numbers, committed or not."""
    paths = sorted(path for suffix in ("py", "json", "txt") for path in PACKAGE.rglob(f"*.{suffix}"))
    named = ((path.relative_to(PACKAGE).as_posix(), path) for path in paths)
    return _sha256("\n".join(f"{name} {hash_file(path)}" for name, path in named if not name.startswith(BESIDE_RUNS)))


@lru_cache(maxsize=1)
def git_commit() -> str | None:
    """The commit of the checkout that the package runs from, with '+' if files differ; None outside git."""
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _profile(cfg: Config) -> str:
    """The profile of a config's method; under the published protocol, what was published with it is no difference."""
    benchmark = benchmark_name(cfg)

    def published(profile: str) -> Mapping[str, Any]:
        there = cfg.get("protocol") == PUBLISHED and benchmark in published_benchmarks(profile)
        return published_settings(profile, benchmark).get("method", {}) if there else {}

    return profile_name(cfg.model.get("method", {}), published)


def _without(value: Any, keys: Collection[str]) -> Any:
    """Nested dicts and lists without some keys."""
    if isinstance(value, Mapping):
        return {key: _without(entry, keys) for key, entry in value.items() if key not in keys}
    return [_without(entry, keys) for entry in value] if isinstance(value, (list, tuple)) else value


def _resize(parts: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The sizes, or factors, of all steps that resize."""
    steps = [step for part in parts for step in part.get("pipeline", ()) if type_name(step) == "Resize"]
    sizes = (step.get("scale", step.get("scale_factor")) for step in steps)
    return [list(size) if isinstance(size, (list, tuple)) else size for size in sizes]


def _vocabulary_facts(spec: Any) -> NamesFacts:
    vocabulary = load_vocabulary(spec)
    name = str(spec) if isinstance(spec, (str, Path)) else "list"
    return {
        "name": name if name in shipped_vocabularies() else Path(name).name,
        "sha256": _sha256(json.dumps(vocabulary.names)),
        "classes": len(vocabulary.names),
        "queries": len(vocabulary.queries),
    }


def _templates_facts(spec: Any) -> NamesFacts:
    templates = load_templates(spec)
    name = str(spec) if isinstance(spec, str) else "list"
    return {"name": without_paths(name), "sha256": _sha256(json.dumps(templates)), "count": len(templates)}


def _file_facts(model: Mapping[str, Any]) -> dict[str, str]:
    """Of the files and folders that the config names beside the weights, a hash: of a folder, of its listing."""
    found = {}
    for block, key in _FILES:
        value = (model.get(block) or {}).get(key)
        path = expanded(value) if isinstance(value, str) else None
        if path is not None and path.is_file():
            found[f"{block}.{key}"] = hash_file(path)
        elif path is not None and path.is_dir():
            listing = sorted(f"{file.name} {file.stat().st_size}" for file in path.iterdir() if file.is_file())
            found[f"{block}.{key}"] = _sha256("\n".join(listing))
    return found


def _weights_facts(clip: Mapping[str, Any]) -> WeightsFacts:
    pretrained = clip.get("pretrained")
    return {
        "model": without_paths(clip.get("model")),
        "pretrained": without_paths(pretrained),
        "file_sha256": _hash_of(local_weights(clip.get("model", ""), pretrained)),
    }


def _vision_facts(method: Mapping[str, Any], beside_tiny: bool) -> VisionFacts | None:
    """Of a method without a vision model None."""
    method = method["head"] if isinstance(method.get("head"), Mapping) else method
    kind = METHODS.get(type_name(method)) if method.get("type") else None
    if not (inspect.isclass(kind) and issubclass(kind, SightedMethod)):
        return None
    settings = check_vfm("method.vfm", method.get("vfm"))
    name = resolved_name(settings["pretrained"], kind.published_vision, beside_tiny)
    return {
        "type": settings["type"],
        "pretrained": without_paths(name),
        "heads": settings["heads"],
        "file_sha256": _hash_of(local_vision(name)),
    }


def _hash_of(path: Path | None) -> str | None:
    return None if path is None else _file_hash(path, path.stat().st_mtime_ns)


@lru_cache
def _file_hash(path: Path, _modified: int) -> str:
    return hash_file(path)


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
