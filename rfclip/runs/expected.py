"""The numbers that a finished run is held against, with tolerances: rfclip/data/expected.json.

An entry either names a row of published.json, and counts for runs that can be compared with it, or holds
numbers that this project measured, with the weights and the numbers of images that they belong to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from rfclip.data import DATA
from rfclip.runs.protocol import deviations
from rfclip.runs.published import differences, published_miou

_FILE = DATA / "expected.json"


@lru_cache(maxsize=1)
def _entries() -> list[dict[str, Any]]:
    return json.loads(_FILE.read_text(encoding="utf-8"))


def verdict(benchmark: str, results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Compare a finished run with what is expected of it.

    Args:
        benchmark: Name of the benchmark.
        results: ``metrics`` and ``manifest`` of the run.

    Returns:
        ``mIoU`` and ``tolerance`` (percent), ``passed``, and a ``sentence``; None if nothing is expected.
    """
    for entry in _entries():
        expected = _expected(entry, benchmark, results["manifest"])
        if expected is not None:
            tolerance = entry.get("tolerances", {}).get(benchmark, entry["tolerance"])
            source = "published" if "published" in entry else "measured by this project"
            return _compare(results["metrics"]["mIoU"], expected, tolerance, source)
    return None


def entry(results: Mapping[str, Mapping[str, Any]], tolerance: float) -> dict[str, Any]:
    """What to add to expected.json so that later runs are held against these.

    Args:
        results: Finished runs of one protocol, by benchmark.
        tolerance: In percent of mIoU.
    """
    manifest = next(iter(results.values()))["manifest"]
    return {
        "profile": manifest["profile"],
        "pamr": manifest["pamr"],
        "weights": manifest["weights"]["sha256"],
        "tolerance": tolerance,
        "images": {name: result["manifest"]["data"]["images"] for name, result in results.items()},
        "mIoU": {name: round(result["metrics"]["mIoU"], 2) for name, result in results.items()},
    }


def _expected(entry: Mapping[str, Any], benchmark: str, manifest: Mapping[str, Any]) -> float | None:
    if any(manifest[key] != entry[key] for key in ("profile", "pamr")):
        return None
    if "published" in entry:
        comparable = not differences(benchmark, manifest)
        return published_miou(benchmark, entry["profile"], entry["pamr"]) if comparable else None
    found = (manifest["weights"].get("sha256"), manifest["data"]["images"], manifest["vocabulary"]["name"])
    same = found == (entry["weights"], entry["images"].get(benchmark), benchmark) and manifest["precision"] == "fp32"
    return entry["mIoU"].get(benchmark) if same and not deviations(benchmark, manifest) else None


def _compare(miou: float | None, expected: float, tolerance: float, source: str) -> dict[str, Any]:
    passed = miou is not None and abs(miou - expected) <= tolerance
    shown = "unknown" if miou is None else f"{miou:.2f}"
    sentence = f"{'pass' if passed else 'FAIL'}: mIoU {shown}, expected {expected} within {tolerance} ({source})"
    return {"mIoU": expected, "tolerance": tolerance, "passed": passed, "sentence": sentence}
