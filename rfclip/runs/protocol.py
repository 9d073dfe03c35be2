"""What a run did otherwise than its benchmark's shipped config says, from the run's manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from rfclip.benchmarks.configs import BENCHMARKS, benchmark_config
from rfclip.benchmarks.options import Options, build_config
from rfclip.runs.manifest import config_facts

# Entries that change no number, or that a manifest tells of by themselves
_LEFT_OUT = ("model.clip", "model.method", "model.vocabulary", "model.keep_seg_logits", "model.test_cfg.window_batch")
_WINDOW = ("model.test_cfg.crop_size", "model.test_cfg.stride")
_ABSENT = "nothing"


def deviations(benchmark: str, manifest: Mapping[str, Any]) -> list[str]:
    """Name the settings of a run that are not those of its benchmark's shipped config.

    Weights, method, vocabulary and whether PAMR ran are left out: a manifest has entries of their own for them.

    Args:
        benchmark: Name of the benchmark; one of somebody's own deviates from nothing.
        manifest: The run's manifest (rfclip/runs/manifest.py).

    Returns:
        Sentences like 'model.prob_thd 0.5 instead of 0.1', by the settings' names.
    """
    return [f"{key} {value} instead of {shipped}" for key, value, shipped in _differing(benchmark, manifest)]


def own_settings(benchmark: str, manifest: Mapping[str, Any]) -> list[str]:
    """The settings of :func:`deviations` as the run has them, e.g. 'model.prior None', the same for all benchmarks.

    Sizes of windows are left out: they go with the weights, and not all benchmarks have windows.
    """
    return [f"{key} {value}" for key, value, _ in _differing(benchmark, manifest) if key not in _WINDOW]


def _differing(benchmark: str, manifest: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Name, value and shipped value of each setting that differs; of a block that is None, the block alone."""
    if benchmark not in BENCHMARKS:
        return []
    there, shipped = dict(_leaves(manifest["config"])), _shipped(benchmark, bool(manifest["pamr"]))
    keys = [key for key in sorted(there.keys() | shipped.keys()) if not _is_below_none(key, there)]
    pairs = ((key, there.get(key, _ABSENT), shipped.get(key, _ABSENT)) for key in keys)
    return [pair for pair in pairs if pair[1] != pair[2]]


def _is_below_none(key: str, leaves: Mapping[str, Any]) -> bool:
    parts = key.split(".")
    return any(leaves.get(".".join(parts[:count]), _ABSENT) is None for count in range(1, len(parts)))


@lru_cache
def _shipped(benchmark: str, pamr: bool) -> dict[str, Any]:
    return dict(_leaves(config_facts(build_config(Options(benchmark_config(benchmark), pamr=pamr)))))


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
