"""Two protocols for a method: the settings that its authors published, or those that all methods share.

Shared is the benchmark's config with another method's block. Published settings are in rfclip/data/protocols.json, the
words of which this module turns into entries of a config.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from copy import deepcopy
from functools import lru_cache
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from rfclip.benchmarks.configs import BENCHMARKS, benchmark_config, config
from rfclip.benchmarks.test_set import set_short_side
from rfclip.data import DATA

PUBLISHED, SHARED = PROTOCOLS = ("published", "shared")
# Entries of the model that take a value as it is
_PLAIN = ("logit_scale", "prob_thd", "area_thd", "alias_aggregation", "patch_fit", "templates", "refiner", "vocabulary")


def published_benchmarks(profile: str) -> tuple[str, ...]:
    """The benchmarks for which a profile has published settings; none if it has no entry."""
    entry = _protocols()["profiles"].get(profile)
    return () if entry is None else tuple(entry.get("benchmarks", BENCHMARKS))


def published_settings(profile: str, benchmark: str) -> dict[str, Any]:
    """What the authors of a profile's method published for a benchmark, in the words of protocols.json.

    Args:
        profile: As a file of configs/_base_/profiles is called.
        benchmark: Name of the benchmark.

    Returns:
        A fresh dict. 'method' and 'clip' are entries to merge; 'vocabulary' is always there.

    Raises:
        ValueError: There is nothing published; the sentence names what there is.
    """
    there = published_benchmarks(profile)
    if benchmark not in there:
        known = f"there are {', '.join(there)}" if there else f"profiles with some: {', '.join(_profiles())}"
        raise ValueError(
            f"profile '{profile}' has no published settings for '{benchmark}' ({known}); --protocol shared takes the "
            "config's own"
        )
    found: dict[str, Any] = {"vocabulary": benchmark}
    for entry in (_protocols()["common"], *(_protocols()["profiles"][name] for name in _ancestry(profile))):
        for settings in (entry.get("all", {}), entry.get(benchmark, {})):
            method = {**found.get("method", {}), **settings.get("method", {})}
            found.update(deepcopy(settings), **({"method": method} if method else {}))
    return found


def choose_protocol(asked: str | None, profile: str | None, benchmark: str) -> str:
    """The protocol of a run: published, where the profile has settings of its own and nobody asked for another.

    Args:
        asked: One of :data:`PROTOCOLS`, or None.
        profile: The run's profile; None: that of no file.
        benchmark: The run's benchmark, which may be one of somebody's own.

    Raises:
        ValueError: An unknown protocol, or 'published' where the profile has settings for other benchmarks alone.
    """
    if asked not in (None, *PROTOCOLS):
        raise ValueError(f"no protocol '{asked}'; there are {', '.join(PROTOCOLS)}")
    there = published_benchmarks(profile) if profile is not None else ()
    if asked == SHARED or not there:
        return SHARED
    if benchmark in there:
        return PUBLISHED
    if asked == PUBLISHED:
        published_settings(str(profile), benchmark)  # says what there is
    print_log(
        f"Nothing was published with '{profile}' for '{benchmark}': the config's own settings (protocol shared).",
        "current",
        logging.WARNING,
    )
    return SHARED


def apply_published(cfg: Config, profile: str, benchmark: str, clip: bool = True) -> None:
    """Change a config, which holds the profile's method already, to the published settings.

    Args:
        cfg: Is changed.
        profile, benchmark: As in :func:`published_settings`.
        clip: Whether the published CLIP takes the place of the config's.

    Raises:
        ValueError: There is nothing published, or no step of the pipeline resizes to a short side.
    """
    settings, model = published_settings(profile, benchmark), cfg.model
    weights = settings.get("clip", {}) if clip else {}
    _warn_of_lost(cfg, profile, benchmark, [*_PLAIN, "prior", "test_cfg", *(["clip"] if weights else [])])
    model.method.update(settings.get("method", {}))
    model.clip.update(weights)
    for key in _PLAIN:
        if settings[key] is not None or key in model:
            model[key] = settings[key]
    prior = settings["prior"]
    model.prior = None if prior is None else {**config(benchmark)["prior"], **prior}
    model.test_cfg = _windows(settings, model.get("test_cfg") or {})
    set_short_side(cfg, settings["short_side"])


def _warn_of_lost(cfg: Config, profile: str, benchmark: str, entries: Collection[str]) -> None:
    """Say which settings of a config that is not the shipped one give way to the published ones."""
    shipped = Config.fromfile(benchmark_config(benchmark))
    own = [f"model.{key}" for key in entries if cfg.model.get(key) != shipped.model.get(key)]
    own += ["test_pipeline (its short side)"] if cfg.get("test_pipeline") != shipped.test_pipeline else []
    if own:
        print_log(
            f"The config's {', '.join(own)} give way to what was published with '{profile}' for '{benchmark}'; "
            "--protocol shared keeps them, and --cfg-options win.",
            "current",
            logging.WARNING,
        )


def _windows(settings: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """The segmentor's test_cfg; how many windows are encoded together stays."""
    if settings["window"] is None:
        found: dict[str, Any] = {"mode": "whole"}
    else:
        side, stride = settings["window"]
        kept = {key: old[key] for key in ("window_batch",) if key in old}
        found = {"mode": "slide", "crop_size": side, "stride": stride, **kept}
    if settings["pad_multiple"] is not None:
        found["pad_multiple"] = settings["pad_multiple"]
    return found


def _ancestry(profile: str) -> list[str]:
    """A profile with settings and those that it is like, the farthest first."""
    like = _protocols()["profiles"][profile].get("like")
    return [*(_ancestry(like) if like else []), profile]


def _profiles() -> tuple[str, ...]:
    return tuple(_protocols()["profiles"])


@lru_cache(maxsize=1)
def _protocols() -> dict[str, Any]:
    return json.loads((DATA / "protocols.json").read_text(encoding="utf-8"))
