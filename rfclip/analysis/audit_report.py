"""The vocabulary report: what each list of names is worth on each benchmark, and over all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rfclip.analysis import audit_charts
from rfclip.analysis.audit import Audit
from rfclip.explain import style
from rfclip.io import tables
from rfclip.io.atomic import write_whole
from rfclip.runs.compare.statistics import FEWEST, Difference, difference
from rfclip.words.vocabulary import Vocabulary

ALL = "all"
WORST = 5  # names that are listed
CSV_HEADS = (
    "benchmark", "list", "names", "mIoU", "difference", "low", "high", "better", "worse", "images", "what",
)  # fmt: skip


@dataclass(frozen=True)
class List:
    """A list of names.

    Attributes:
        words: The names.
        what: What it is, in words.
    """

    words: Vocabulary
    what: str


@dataclass(frozen=True, eq=False)
class Report:
    """Audits of several benchmarks. The first list of each is that with which the others are compared.

    Attributes:
        audits: By benchmark.
        lists: By benchmark and name.
        about: What was measured with what, a sentence.
    """

    audits: Mapping[str, Audit]
    lists: Mapping[str, Mapping[str, List]]
    about: str

    def rows(self) -> list[dict[str, Any]]:
        """A dict per benchmark and list, and per list over all benchmarks that have it, if they are several."""
        found = []
        for benchmark, audit in self.audits.items():
            for name, one in self.lists[benchmark].items():
                facts = {"benchmark": benchmark, "list": name, "names": len(one.words.queries), "what": one.what}
                found.append({**facts, "mIoU": audit.total(name), **self._worth([benchmark], name)})
        common = [name for name in self.names() if all(name in lists for lists in self.lists.values())]
        for name in common if len(self.audits) > 1 else ():
            mean = float(np.mean([audit.total(name) for audit in self.audits.values()]))
            facts = {"benchmark": ALL, "list": name, "names": None, "what": "mean over the benchmarks"}
            found.append({**facts, "mIoU": mean, **self._worth([*self.audits], name)})
        return found

    def names(self) -> list[str]:
        """All lists, in their order."""
        return list(dict.fromkeys(name for lists in self.lists.values() for name in lists))

    def _worth(self, benchmarks: Sequence[str], name: str) -> dict[str, Any]:
        audits = [self.audits[benchmark].sampled for benchmark in benchmarks]
        found: Difference = difference([(sampled[name], next(iter(sampled.values()))) for sampled in audits])
        parts = asdict(found)
        return {"difference": parts.pop("miou"), **parts}


def write(report: Report, folder: Path) -> list[Path]:
    """Write audit.json, audit.csv, audit.md and audit.png; returns their paths."""
    paths = [folder / f"audit.{ending}" for ending in ("json", "csv", "md", "png")]
    write_whole(paths[0], as_json(report))
    write_whole(paths[1], as_csv(report))
    write_whole(paths[2], as_markdown(report))
    style.save(plot(report), paths[3])
    return paths


def as_json(report: Report) -> str:
    """All numbers; of each benchmark also the classes, the names of the first list, and all lists."""
    benchmarks = {
        name: {
            "IoU": {
                key: {one: _known(float(value)) for one, value in zip(audit.classes, iou, strict=True)}
                for key, iou in audit.iou.items()
            },
            "names_of_the_first_list": _names(audit),
            "lists": {key: [list(row) for row in one.words.names] for key, one in report.lists[name].items()},
        }
        for name, audit in report.audits.items()
    }
    rows = [{key: _known(value) for key, value in row.items()} for row in report.rows()]
    return json.dumps({"about": report.about, "rows": rows, "benchmarks": benchmarks}, indent=1) + "\n"


def as_csv(report: Report) -> str:
    """A line per benchmark and list."""
    rows = ([_known(row[head]) for head in CSV_HEADS] for row in report.rows())
    return tables.comma_separated(CSV_HEADS, rows)


def as_markdown(report: Report) -> str:
    """A table per benchmark, the names that win most pixels of other classes, and what it all means."""
    parts = [f"{report.about}\n"]
    rows = report.rows()
    for benchmark in dict.fromkeys(row["benchmark"] for row in rows):
        own = [row for row in rows if row["benchmark"] == benchmark]
        heads = ["list", "names", "mIoU", "difference", "better / worse", "what"]
        parts += [f"## {benchmark}\n", tables.markdown(heads, map(_cells, own))]
        audit = report.audits.get(benchmark)
        worst = [] if audit is None else sorted(_names(audit), key=lambda one: -one["wrong"])[:WORST]
        lines = [f"{one['name']} ({one['class']}, mostly from {one['mostly_from']})" for one in worst if one["wrong"]]
        parts += [f"Names that win most pixels of other classes: {', '.join(lines)}.\n"] if lines else []
    parts.append(
        "difference: mIoU minus that of the first list, in points, and its interval of 95 % over the images (paired "
        f"bootstrap within each benchmark; none below {FEWEST} images). better / worse: images with a higher / lower "
        "mean IoU over the classes labelled in them.\n"
    )
    return "\n".join(parts)


def as_text(report: Report) -> str:
    """The table for a terminal."""
    heads = ["benchmark", "list", "names", "mIoU", "difference", "better / worse"]
    return tables.aligned(heads, ([row["benchmark"], *_cells(row)[:-1]] for row in report.rows()))


def plot(report: Report) -> audit_charts.Figure:
    """What each list is worth, a point with its interval per benchmark."""
    names = report.names()[1:]
    rows = {(row["benchmark"], row["list"]): row for row in report.rows()}
    groups = list(dict.fromkeys(benchmark for benchmark, _ in rows))
    first = report.names()[0]
    table = {
        group: np.array(
            [[_number(rows.get((group, name), {}).get(k)) for k in ("difference", "low", "high")] for name in names]
        )
        for group in groups
    }
    return audit_charts.worth(names, table, f"mIoU minus that of the {first} names, points", report.about, ALL)


def _cells(row: Mapping[str, Any]) -> list[str]:
    interval = "" if row["low"] is None else f" [{row['low']:+.2f}, {row['high']:+.2f}]"
    names = "" if row["names"] is None else str(row["names"])
    counts = f"{row['better']} / {row['worse']}"
    return [row["list"], names, tables.number(row["mIoU"]), f"{row['difference']:+.2f}{interval}", counts, row["what"]]


def _names(audit: Audit) -> list[dict[str, Any]]:
    """Of each name of the first list what it wins, and what the score is without it."""
    first, wrong = next(iter(audit.iou)), audit.wrong_pixels()
    return [
        {
            "name": name,
            "class": audit.classes[index],
            "won": int(audit.won[:, query].sum()),
            "wrong": int(wrong[query]),
            "mostly_from": audit.mostly_from(query),
            "mIoU_change_without_it": _known(float(audit.without[query]) - audit.total(first)),
        }
        for query, (index, name) in enumerate(audit.names)
    ]


def _known(value: Any) -> Any:
    """None for NaN, which JSON has no word for."""
    return None if isinstance(value, float) and np.isnan(value) else value


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
