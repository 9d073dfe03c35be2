"""What a run's numbers may stand beside: another run, its benchmark's shipped config, published and expected numbers.

Numbers that others published are in rfclip/data/published.json. In rfclip/data/expected.json are those that a finished
run is held against, with tolerances: an entry names a row of the published ones, or holds what this project measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any

from rfclip.benchmarks.configs import BENCHMARKS, benchmark_config, refiner_block
from rfclip.benchmarks.options import Options, build_config
from rfclip.benchmarks.protocols import PUBLISHED, SHARED, apply_published, published_benchmarks, published_settings
from rfclip.data import DATA
from rfclip.runs.manifest import DataFacts, Manifest, Results, Verdict, VisionFacts, config_facts

HEADING = "published (real data, ViT-B/16; not measured here)"
# What a manifest has beside the config
_ENTRIES = ("weights", "vocabulary", "templates", "precision", "protocol", "pamr", "data")
# Parts of the config that change no number, or that such entries tell of
_LEFT_OUT = ("model.clip", "model.method", "model.vocabulary", "model.keep_seg_logits", "model.test_cfg.window_batch")
_CLIP = {"model": "ViT-B-16", "pretrained": "openai"}  # of the published numbers, where no profile has another
_WINDOW = ("model.test_cfg.crop_size", "model.test_cfg.stride")
_ABSENT = "nothing"


def same_run(manifest: Any, identity: str, data: Callable[[], DataFacts]) -> bool:
    """Whether a run of this identity would only give its numbers again; the data is looked at where all else is."""
    known = isinstance(manifest, dict) and manifest.get("identity") == identity
    return known and manifest.get("data") == data()


def unlike(first: Manifest, second: Manifest) -> list[str]:
    """The entries and settings, by name, in which two runs differ beside their method, and its vision model."""
    entries = [key for key in _ENTRIES if first[key] != second[key]]  # type: ignore[literal-required]  # names of entries
    code = ["code"] if first["code"]["sha256"] != second["code"]["sha256"] else []
    leaves = (dict(_leaves(manifest["config"])) for manifest in (first, second))
    return entries + code + [key for key, _, _ in _differing(*leaves)]


def unlike_shipped(benchmark: str, manifest: Manifest) -> list[str]:
    """Name the settings of a run that are not those of its benchmark's shipped config.

    Under the published protocol the settings are those of the profile. Weights, method, vocabulary and whether PAMR ran
    are left out: a manifest has entries of their own for them.

    Args:
        benchmark: Name of the benchmark; one of somebody's own deviates from nothing.
        manifest: The run's manifest.

    Returns:
        Sentences like 'model.prob_thd 0.5 instead of 0.1', by the settings' names.
    """
    return [f"{key} {value} instead of {shipped}" for key, value, shipped in _own(benchmark, manifest)]


def unlike_published(benchmark: str, manifest: Manifest) -> list[str]:
    """What a run did otherwise than the published one; empty if the numbers can be compared."""
    weights, clip = manifest["weights"], _published(benchmark, manifest).get("clip", _CLIP)
    official = (weights.get("architecture"), weights.get("origin")) == (clip["model"], clip["pretrained"])
    return _unlike_measured(benchmark, manifest, published()["images"].get(benchmark, []), official)


def protocol(benchmark: str, manifest: Manifest) -> str:
    """In words, what numbers must share to stand in one column; the benchmark's own settings are left out.

    Sizes of windows are left out too: they go with the weights, and not all benchmarks have windows.
    """
    weights = manifest["weights"]
    settings = [f"{key} {value}" for key, value, _ in _own(benchmark, manifest) if key not in _WINDOW]
    names, official = manifest["vocabulary"]["name"], _vocabulary(benchmark, manifest)
    parts = {
        "profile": manifest["profile"],
        "protocol": manifest["protocol"],
        "layers": manifest["layers"],
        "PAMR": "on" if manifest["pamr"] else "off",
        "weights": " ".join(
            filter(None, [weights["model"], weights["pretrained"], (weights.get("sha256") or "")[:12]])
        ),
        "activation": weights.get("activation"),
        "vision model": _vision(manifest.get("vision")),
        "vocabulary": "published" if names == official else names.replace(benchmark, "published"),
        "templates": manifest["templates"]["name"],
        "precision": manifest["precision"],
        "code": manifest["code"]["sha256"][:12],
        "settings": "; ".join(settings) or None,
    }
    return ", ".join(f"{key} {value}" for key, value in parts.items() if value is not None)


def _vision(vision: VisionFacts | None) -> str | None:
    """The vision model beside the CLIP, if there is one."""
    return f"{vision['pretrained']} {(vision.get('sha256') or '')[:12]}".strip() if vision else None


def _vision_hash(manifest: Manifest) -> str | None:
    """The hash of the vision model's weights, if there is one."""
    return (manifest.get("vision") or {}).get("sha256")


@lru_cache(maxsize=1)
def published() -> dict[str, Any]:
    """All published numbers, by table: 'main', 'ablation', 'suppression', 'cost'; do not modify."""
    return json.loads((DATA / "published.json").read_text(encoding="utf-8"))


def published_miou(benchmark: str, profile: str, pamr: bool, protocol: str = SHARED) -> float | None:
    """The published mIoU, in percent, of a profile with or without PAMR; None if there is none.

    Numbers of methods with settings of their own stand beside the published protocol alone.

    Args:
        benchmark: Name of the benchmark, or 'mean' for the mean of the eight.
        profile: 'paper' and 'release' share the numbers of RF-CLIP, which are those of the released code.
        pamr: Whether PAMR ran.
        protocol: 'published' or 'shared'.
    """
    for row in (*published()["main"], *published()["ablation"]):
        if profile in row.get("profiles", ()) and (row["pamr"], row.get("protocol", SHARED)) == (pamr, protocol):
            return row["mIoU"].get(benchmark)
    return None


def verdict(benchmark: str, results: Results) -> Verdict | None:
    """Compare a finished run with what is expected of it; None if nothing is.

    Args:
        benchmark: Name of the benchmark.
        results: ``metrics`` and ``manifest`` of the run.
    """
    for entry in _expected():
        expected = _expected_miou(entry, benchmark, results["manifest"])
        if expected is not None:
            miou, tolerance = results["metrics"]["mIoU"], entry.get("tolerances", {}).get(benchmark, entry["tolerance"])
            passed = miou is not None and abs(miou - expected) <= tolerance
            found = f"{'pass' if passed else 'FAIL'}: mIoU {'unknown' if miou is None else f'{miou:.2f}'}"
            source = "published" if "published" in entry else "measured by this project"
            sentence = f"{found}, expected {expected} within {tolerance} ({source})"
            return {"mIoU": expected, "tolerance": tolerance, "passed": passed, "sentence": sentence}
    return None


def entry(results: Mapping[str, Any], tolerance: float) -> dict[str, Any]:
    """What to add to expected.json so that later runs are held against these.

    Args:
        results: Finished runs of one protocol, by benchmark.
        tolerance: In percent of mIoU.
    """
    manifest = next(iter(results.values()))["manifest"]
    vision = _vision_hash(manifest)
    return {
        "profile": manifest["profile"],
        "protocol": manifest["protocol"],
        "pamr": manifest["pamr"],
        "weights": manifest["weights"]["sha256"],
        **({"vision": vision} if vision else {}),
        "tolerance": tolerance,
        "images": {name: result["manifest"]["data"]["images"] for name, result in results.items()},
        "mIoU": {name: round(result["metrics"]["mIoU"], 2) for name, result in results.items()},
    }


@lru_cache(maxsize=1)
def _expected() -> list[dict[str, Any]]:
    return json.loads((DATA / "expected.json").read_text(encoding="utf-8"))


def _expected_miou(entry: Mapping[str, Any], benchmark: str, manifest: Manifest) -> float | None:
    asked = (entry["profile"], entry.get("protocol", SHARED), entry["pamr"])
    if (manifest["profile"], manifest["protocol"], manifest["pamr"]) != asked:
        return None
    if "published" in entry:
        comparable = not unlike_published(benchmark, manifest)
        return published_miou(benchmark, *asked[::2], asked[1]) if comparable else None
    found = (manifest["weights"].get("sha256"), _vision_hash(manifest))
    weights, images = found == (entry["weights"], entry.get("vision")), entry["images"].get(benchmark)
    return None if _unlike_measured(benchmark, manifest, [images], weights) else entry["mIoU"].get(benchmark)


def _unlike_measured(benchmark: str, manifest: Manifest, images: Collection[int], weights: bool) -> list[str]:
    """What keeps a run from standing beside numbers of the shipped config on so many images, in fp32.

    Args:
        benchmark: Name of the benchmark.
        manifest: The run's manifest.
        images: The numbers of images that will do.
        weights: Whether the run's are those of the numbers.
    """
    model, activation = manifest["weights"]["model"], manifest["weights"].get("activation")
    counted, names = manifest["data"]["images"], manifest["vocabulary"]["name"]
    tag = _published(benchmark, manifest).get("clip", _CLIP)["pretrained"]
    natural = "GELU" if tag != "openai" and manifest["weights"].get("origin") == tag else "QuickGELU"
    found = {
        f"{counted} images instead of {' or '.join(map(str, images)) or '?'}": counted in images,
        f"weights {model}": weights,
        f"vocabulary {names}": names == _vocabulary(benchmark, manifest),
        manifest["precision"]: manifest["precision"] == "fp32",
        f"activation {activation}": activation in (None, natural),
    }
    return [what for what, same in found.items() if not same] + unlike_shipped(benchmark, manifest)


def _own(benchmark: str, manifest: Manifest) -> list[tuple[str, Any, Any]]:
    """Name, value and shipped value of each setting that differs from the benchmark's shipped config."""
    if benchmark not in BENCHMARKS:
        return []
    published_with = _profile(manifest) if manifest["protocol"] == PUBLISHED else None
    return _differing(dict(_leaves(manifest["config"])), _shipped(benchmark, bool(manifest["pamr"]), published_with))


def _profile(manifest: Manifest) -> str:
    """The profile of a run, without what differs from it."""
    return manifest["profile"].partition(" ")[0]


def _published(benchmark: str, manifest: Manifest) -> dict[str, Any]:
    """The published settings that a run was made with; empty under the shared protocol."""
    if manifest["protocol"] != PUBLISHED or benchmark not in published_benchmarks(_profile(manifest)):
        return {}
    return published_settings(_profile(manifest), benchmark)


def _vocabulary(benchmark: str, manifest: Manifest) -> str:
    """The vocabulary that goes with a benchmark under a run's protocol."""
    return str(_published(benchmark, manifest).get("vocabulary", benchmark))


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Name and both values of each leaf that differs; of a block that is None in the first, the block alone."""
    none = tuple(f"{key}." for key, value in first.items() if value is None)
    keys = (key for key in sorted(first.keys() | second.keys()) if not key.startswith(none))
    pairs = ((key, first.get(key, _ABSENT), second.get(key, _ABSENT)) for key in keys)
    return [pair for pair in pairs if pair[1] != pair[2]]


@lru_cache
def _shipped(benchmark: str, pamr: bool, profile: str | None) -> dict[str, Any]:
    """The settings of a benchmark's shipped config, or, with a profile, those that were published with it."""
    cfg = build_config(Options(benchmark_config(benchmark)))
    if profile is not None:
        apply_published(cfg, profile, benchmark)
    if pamr:
        cfg.model.refiner = refiner_block("pamr")
    return dict(_leaves(config_facts(cfg)))


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every entry of nested mappings, and of lists of mappings, by its dotted name."""
    if any(name == left or name.startswith(f"{left}.") for left in _LEFT_OUT):
        return
    if isinstance(value, (list, tuple)) and any(isinstance(entry, Mapping) for entry in value):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        yield name, list(value) if isinstance(value, tuple) else value
        return
    for key, entry in value.items():
        yield from _leaves(entry, f"{name}.{key}" if name else str(key))
