"""Numbers that others published (rfclip/data/published.json), and whether a run may be held against them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from rfclip.data import DATA
from rfclip.runs.protocol import deviations

HEADING = "published (real data, ViT-B/16; not measured here)"
_FILE = DATA / "published.json"


@lru_cache(maxsize=1)
def published() -> dict[str, Any]:
    """All published numbers, by table: 'main', 'ablation', 'suppression', 'cost'; do not modify."""
    return json.loads(_FILE.read_text(encoding="utf-8"))


def published_miou(benchmark: str, profile: str, pamr: bool) -> float | None:
    """The published mIoU, in percent, of a profile with or without PAMR; None if there is none.

    Args:
        benchmark: Name of the benchmark, or 'mean' for the mean of the eight.
        profile: 'paper' and 'release' share the numbers of RF-CLIP, which are those of the released code.
        pamr: Whether PAMR ran.
    """
    for row in (*published()["main"], *published()["ablation"]):
        if profile in row.get("profiles", ()) and row["pamr"] is pamr:
            return row["mIoU"].get(benchmark)
    return None


def differences(benchmark: str, manifest: Mapping[str, Any]) -> list[str]:
    """What a run did otherwise than the published one; empty if the numbers can be compared.

    Args:
        benchmark: Name of the benchmark.
        manifest: The run's manifest (rfclip/runs/manifest.py).
    """
    weights, official = manifest["weights"], published()["images"].get(benchmark, [])
    found = []
    if manifest["data"]["images"] not in official:
        found.append(f"{manifest['data']['images']} images instead of {' or '.join(map(str, official)) or '?'}")
    if (weights.get("architecture"), weights.get("origin")) != ("ViT-B-16", "openai"):
        found.append(f"weights {weights['model']}")
    if manifest["vocabulary"]["name"] != benchmark:
        found.append(f"vocabulary {manifest['vocabulary']['name']}")
    if manifest["precision"] != "fp32":
        found.append(manifest["precision"])
    if weights.get("activation") not in (None, "QuickGELU"):
        found.append(f"activation {weights['activation']}")
    return found + deviations(benchmark, manifest)
