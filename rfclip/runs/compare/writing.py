"""The fair table as text, Markdown, CSV and JSON, with what must stand below it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfclip.benchmarks.configs import BENCHMARKS
from rfclip.io import tables
from rfclip.io.atomic import write_whole
from rfclip.runs.compare.statistics import FEWEST
from rfclip.runs.reference import HEADING, published

Content = Sequence[Mapping[str, Any]]
MEAN = "mean"
SETTING = ("method", "prior", "refiner", "names")
_COST = {"": "ratio", "_least": "least", "_greatest": "greatest"}
PARTS = ("miou", "low", "high", "better", "worse", "images")  # of a difference
CSV_HEADS = (
    "row", *SETTING, "benchmark", "images", "mIoU", "rank", "mean_rank",
    *(f"difference_{part}" for part in PARTS), *(f"worth_{part}" for part in PARTS),
    *(f"times_plain{end}" for end in _COST), "why", "notes",
)  # fmt: skip


@dataclass(frozen=True)
class About:
    """What holds for the whole table.

    Attributes:
        reference: The method with which the others of a setting are compared.
        protocol: 'shared' or 'published'.
        resamples: Draws for the intervals.
        clip: Which CLIP, in words.
        data: Which pictures, in words.
        cost: On what the cost was measured, in words; '' without costs.
        skipped: A sentence per benchmark that was left out.
        sample: Whether it is the generated sample.
    """

    reference: str
    protocol: str
    resamples: int
    clip: str
    data: str
    cost: str = ""
    skipped: tuple[str, ...] = ()
    sample: bool = False


def footnotes(about: About) -> list[str]:
    """What must stand below the table."""
    shared = "the benchmark's config is that of all rows, and only the method is exchanged"
    own = "each method has the thresholds, sizes, windows and scales that its authors published, where they did"
    notes = [
        "This is the generated sample and the tiny CLIP: it shows that everything runs and that a change moves "
        "numbers, and says nothing about real data."
        if about.sample
        else "",
        f"Measured with {about.clip} on {about.data}; protocol {about.protocol}: "
        f"{own if about.protocol == 'published' else shared}. Prior, refiner and names as the row says; 'published' is "
        "what config and protocol have.",
        "mean: of the mIoU over the benchmarks; '-' where one is missing. rank: by the mean, among the rows of the "
        "same prior, refiner and names (1 is the best; equal ones share it); in brackets the mean of the ranks on the "
        "benchmarks.",
        f"difference: mIoU minus that of {about.reference} in the same setting, in points, and its interval of 95 %: "
        f"{about.resamples} paired draws of the images of each benchmark with replacement, over all benchmarks the "
        f"mean of the differences (no interval below {FEWEST} images). better / worse: images with a higher / lower "
        "mean IoU over the classes labelled in them. An interval says nothing of other data.",
        f"x plain: time of dense encoding, as a multiple of the CLIP without a method, {about.cost}."
        if about.cost
        else "",
        *(f"Left out: {sentence}" for sentence in about.skipped),
    ]
    return [note for note in notes if note]


def as_text(content: Content, about: About) -> str:
    """The table for a terminal, with footnotes."""
    parts = [tables.aligned(_heads(content), map(_cells, content)), ""]
    return "\n".join([*parts, *_notes(content), *footnotes(about)])


def as_markdown(content: Content, about: About) -> str:
    """The table in Markdown: means, differences by benchmark, what the settings are worth, notes, published numbers."""
    names = _benchmarks(content)
    parts = [tables.markdown(_heads(content), map(_cells, content))]
    apart = [row for row in content if any(cell["difference"] for cell in row["cells"].values())]
    if apart:
        parts += [
            f"Difference to {about.reference}, by benchmark:\n",
            tables.markdown(["row", *names], map(_apart, apart)),
        ]
    worth = [row for row in content if row["worth"]]
    if worth:
        first = content[0]["prior"], content[0]["refiner"], content[0]["names"]
        setting = ", ".join(f"{what} {value}" for what, value in zip(("prior", "refiner", "names"), first, strict=True))
        lines = ([row["row"], _difference(row["worth"]), _images(row["worth"])] for row in worth)
        heads = ["row", "mean difference", "images better / worse"]
        parts += [
            f"What the settings are worth: a row minus the same method with {setting}.\n",
            tables.markdown(heads, lines),
        ]
    if notes := _notes(content):
        parts.append("".join(f"- {note}\n" for note in notes))
    parts += [f"{note}\n" for note in footnotes(about)]
    known = [name for name in names if any(name in row["mIoU"] for row in published()["main"])]
    if known:
        columns = [*known, MEAN]
        beside = (
            [row["method"], *(str(row["mIoU"].get(name, "-")) for name in columns)] for row in published()["main"]
        )
        protocol = "Published numbers have protocols of their own (resolution, names, prior, data)"
        if len(known) < len(BENCHMARKS):
            protocol += "; the mean is that of all eight benchmarks"
        parts += [f"{HEADING}. {protocol}:\n", tables.markdown(["method", *columns], beside)]
    return "\n".join(parts)


def as_csv(content: Content) -> str:
    """A line per row and benchmark, and one for its mean; each number of a difference has a column of its own."""
    lines = []
    for row in content:
        setting = {key: row[key] for key in ("row", *SETTING)}
        for name, cell in row["cells"].items():
            notes = "; ".join(cell["not_comparable"] or cell["differs_in"])
            known = {key: cell[key] for key in ("images", "mIoU", "rank", "why")}
            lines.append({**setting, "benchmark": name, **known, **_parts("difference", cell), "notes": notes})
        cost = row["cost"] or {}
        mean = {"benchmark": MEAN, "mIoU": row["mean"], "rank": row["rank"], "mean_rank": row["mean_rank"]}
        costs = {f"times_plain{end}": cost.get(key) for end, key in _COST.items()} | {"why": cost.get("why")}
        differences = {**_parts("difference", row), **_parts("worth", row)}
        lines.append({**setting, **mean, **differences, **costs, "notes": "; ".join(row["notes"])})
    return tables.comma_separated(CSV_HEADS, ([line.get(head) for head in CSV_HEADS] for line in lines))


def as_json(content: Content, about: About) -> str:
    """All numbers, unrounded, and what holds for the whole table."""
    whole = {"about": {**about.__dict__, "footnotes": footnotes(about)}, "rows": list(content)}
    beside = {"heading": HEADING, "rows": published()["main"]}
    return json.dumps({**whole, "published": beside}, indent=1) + "\n"


def write(folder: Path, content: Content, about: About) -> None:
    """Write table.json, table.csv and table.md, whole or not at all."""
    write_whole(folder / "table.json", as_json(content, about))
    write_whole(folder / "table.csv", as_csv(content))
    write_whole(folder / "table.md", as_markdown(content, about))


def _benchmarks(content: Content) -> list[str]:
    return list(content[0]["cells"])


def _heads(content: Content) -> list[str]:
    return [
        "method",
        "prior",
        "refiner",
        "names",
        *_benchmarks(content),
        MEAN,
        "rank",
        "difference",
        "better / worse",
        "x plain",
    ]


def _cells(row: Mapping[str, Any]) -> list[str]:
    rank = "-" if row["rank"] is None else f"{row['rank']:g} ({row['mean_rank']:.1f})"
    return [
        *(row[key] for key in SETTING),
        *(_score(cell) for cell in row["cells"].values()),
        tables.number(row["mean"], 2, "-"),
        rank,
        _difference(row["difference"]),
        _images(row["difference"]),
        tables.number((row["cost"] or {}).get("ratio"), 2, "-"),
    ]


def _score(cell: Mapping[str, Any]) -> str:
    return tables.number(cell["mIoU"], 2, "-") + ("!" if cell["not_comparable"] else "")


def _apart(row: Mapping[str, Any]) -> list[str]:
    return [row["row"], *(_difference(cell["difference"]) for cell in row["cells"].values())]


def _difference(found: Mapping[str, Any] | None) -> str:
    if not found:
        return "-"
    interval = "" if found["low"] is None else f" [{found['low']:+.2f}, {found['high']:+.2f}]"
    return f"{found['miou']:+.2f}{interval}"


def _images(found: Mapping[str, Any] | None) -> str:
    return f"{found['better']} / {found['worse']}" if found else "-"


def _parts(kind: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """'difference' or 'worth' of a row or cell, in columns."""
    return {f"{kind}_{part}": (row[kind] or {}).get(part) for part in PARTS}


def _notes(content: Content) -> list[str]:
    """Each note once, behind the rows that have it."""
    rows: dict[str, list[str]] = {}
    for row in content:
        for note in row["notes"]:
            rows.setdefault(note, []).append(row["row"])
    return [f"{', '.join(names)}: {note}" for note, names in rows.items()]
