"""One table of a work dir's results: measured numbers, their protocol, and the published ones beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rfclip.benchmarks.configs import BENCHMARKS
from rfclip.io import tables
from rfclip.io.atomic import write_whole
from rfclip.runs.manifest import ConfigFacts, Results
from rfclip.runs.reference import HEADING, protocol, published_miou, unlike_published

COLUMNS = {
    "benchmark": "benchmark",
    "images": "images",
    "mIoU": "mIoU",
    "aAcc": "aAcc",
    "mAcc": "mAcc",
    "published": HEADING,
    "vocabulary": "vocabulary",
    "profile": "profile",
    "protocol": "protocol",
    "layers": "layers",
    "pamr": "PAMR",
    "weights": "weights",
    "note": "note",
}


METRICS = ("mIoU", "aAcc", "mAcc")


class MixedProtocolsError(ValueError):
    """Results of several protocols would share a column."""


def read_results(work_dir: Path) -> dict[str, Results]:
    """All ``<benchmark>/results.json`` of a work dir, by benchmark: the eight in their order, then others.

    Raises:
        FileNotFoundError: There is none.
        ValueError: One is damaged.
    """
    paths = {path.parent.name: path for path in work_dir.glob("*/results.json")}
    if not paths:
        raise FileNotFoundError(f"no <benchmark>/results.json in {work_dir}")
    known = [name for name in BENCHMARKS if name in paths]
    return {name: read_result(paths[name]) for name in known + sorted(set(paths) - set(known))}


def read_result(path: Path) -> Results:
    """One ``results.json``.

    Raises:
        ValueError: It is damaged, or of another version; the sentence names it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if _is_whole(content["manifest"], content["metrics"]):
            return content
    except (ValueError, TypeError, KeyError, AttributeError):
        pass  # said below, in words for the user
    raise ValueError(f"{path} is damaged or of another version: run that benchmark again, or remove the file")


def _is_whole(manifest: Mapping[str, Any], metrics: Mapping[str, Any]) -> bool:
    """Whether everything is there that a table reads."""
    numbers = all(value is None or isinstance(value, (int, float)) for value in map(metrics.__getitem__, METRICS))
    parts = all(
        isinstance(manifest[key], dict) for key in ("weights", "data", "vocabulary", "templates", "code", "config")
    )
    single = all(key in manifest for key in ("profile", "protocol", "pamr", "layers", "precision", "identity"))
    return numbers and parts and single and manifest["config"].keys() == ConfigFacts.__annotations__.keys()


def table(results: Mapping[str, Results], mixed: bool = False) -> list[dict[str, Any]]:
    """One row per benchmark, and one with the means if all eight are there under one protocol.

    Args:
        results: As :func:`read_results` returns them.
        mixed: Allow several protocols, each row then saying which is its own.

    Raises:
        MixedProtocolsError: There are several protocols and ``mixed`` is not set.
    """
    groups: dict[str, list[str]] = {}
    for name, result in results.items():
        groups.setdefault(protocol(name, result["manifest"]), []).append(name)
    if len(groups) > 1 and not mixed:
        listed = "; ".join(f"{', '.join(names)}: {key}" for key, names in groups.items())
        raise MixedProtocolsError(
            f"these results were measured with {len(groups)} protocols and do not belong in one column "
            f"({listed}); --mixed tabulates them with a mark on each row"
        )
    rows = [_row(name, result) for name, result in results.items()]
    if len(groups) > 1:
        for mark, names in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", groups.values(), strict=False):
            for row in rows:
                if row["benchmark"] in names:
                    row["note"] = "; ".join(filter(None, [f"protocol {mark}", row["note"]]))
        return rows
    return rows + ([_mean(rows)] if set(BENCHMARKS) <= set(results) else [])


def _row(benchmark: str, result: Results) -> dict[str, Any]:
    manifest, weights = result["manifest"], result["manifest"]["weights"]
    different = unlike_published(benchmark, manifest)
    notes = [f"not comparable: {', '.join(different)}"] if different else []
    notes += ["no labels"] if manifest["config"]["evaluator"].get("format_only") else []
    notes += ["see alarms"] if result.get("alarms") else []
    return {
        "benchmark": benchmark,
        "images": manifest["data"]["images"],
        **{key: _rounded(result["metrics"][key]) for key in METRICS},
        "published": published_miou(benchmark, manifest["profile"], manifest["pamr"], manifest["protocol"]),
        "vocabulary": manifest["vocabulary"]["name"],
        "profile": manifest["profile"],
        "protocol": manifest["protocol"],
        "layers": manifest["layers"],
        "pamr": "on" if manifest["pamr"] else "off",
        "weights": " ".join(filter(None, [weights["model"], weights["pretrained"]])),
        "note": "; ".join(notes),
    }


def _mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first, eight = rows[0], [row for row in rows if row["benchmark"] in BENCHMARKS]
    known = [row["mIoU"] for row in eight if row["mIoU"] is not None]
    shared = {key: first[key] for key in ("profile", "protocol", "layers", "pamr", "weights")}
    return {
        **dict.fromkeys(COLUMNS),
        **shared,
        "benchmark": "mean",
        "mIoU": _rounded(sum(known) / len(known)) if len(known) == len(eight) else None,
        "published": published_miou("mean", first["profile"], first["pamr"] == "on", first["protocol"]),
        "note": "not comparable" if any("not comparable" in row["note"] for row in eight) else "",
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _cells(row: Mapping[str, Any]) -> list[str]:
    cells = {key: "-" if row[key] in (None, "") else row[key] for key in COLUMNS}
    places = {"published": 1}
    return [tables.number(c, places.get(key, 2)) if isinstance(c, float) else str(c) for key, c in cells.items()]


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table in Markdown."""
    return tables.markdown([*COLUMNS.values()], map(_cells, rows))


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table for a terminal; the long heading of the published column becomes a footnote."""
    heads = ["published*" if key == "published" else head for key, head in COLUMNS.items()]
    return f"{tables.aligned(heads, map(_cells, rows))}\n* {HEADING}"


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as comma-separated values."""
    return tables.comma_separated([*COLUMNS.values()], ([row[key] for key in COLUMNS] for row in rows))


def write(work_dir: Path, rows: Sequence[Mapping[str, Any]], runs: Mapping[str, str] | None = None) -> None:
    """Write ``summary.json``, ``summary.csv`` and ``summary.md`` into a work dir.

    Args:
        work_dir: Where to.
        rows: The table.
        runs: Per benchmark, what became of it (kept in the JSON and listed in the Markdown).
    """
    outcome = "".join(f"- {name}: {what}\n" for name, what in (runs or {}).items())
    content = {"heading_of_published": HEADING, "rows": list(rows), "runs": dict(runs or {})}
    work_dir.mkdir(parents=True, exist_ok=True)
    write_whole(work_dir / "summary.json", json.dumps(content, indent=1) + "\n")
    write_whole(work_dir / "summary.csv", as_csv(rows))
    write_whole(work_dir / "summary.md", "\n".join(filter(None, [as_markdown(rows), outcome])))
