"""The fair table: a row per method and setting, a cell per benchmark; means, ranks, differences, what is not fair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rfclip.benchmarks.protocols import PUBLISHED as PUBLISHED_PROTOCOL
from rfclip.benchmarks.protocols import SHARED, published_benchmarks, published_settings
from rfclip.runs.compare.rows import NONE, PUBLISHED, Row
from rfclip.runs.compare.statistics import Difference, Sampled, comparable, difference, ranks
from rfclip.runs.manifest import Manifest, Results
from rfclip.runs.reference import published, unlike

PENDING = "not run yet"
_ALWAYS = ("data", "code")  # what must be the same under any protocol
_EMPTY: Mapping[str, Any] = {
    **dict.fromkeys(("mIoU", "images", "rank", "difference", "why")),
    **{key: [] for key in ("differs_in", "not_comparable", "alarms")},
}


@dataclass(frozen=True, eq=False)
class Measured:
    """A row on a benchmark.

    Attributes:
        results: The run's results.json: metrics in percent, and its manifest.
        sampled: Its images, drawn again and again.
    """

    results: Results
    sampled: Sampled

    @property
    def miou(self) -> float | None:
        """In percent; None if nothing is labelled."""
        return self.results["metrics"]["mIoU"]

    @property
    def manifest(self) -> Manifest:
        """What stands beside the numbers."""
        return self.results["manifest"]


Cell = Measured | str  # or why there is none


@dataclass(eq=False)
class Table:
    """What has been measured so far, and what it amounts to.

    Attributes:
        rows: The rows, setting by setting.
        benchmarks: Names of the columns.
        reference: The method with which the others of a setting are compared.
        protocol: 'shared' or 'published'.
        cells: By row and benchmark; what is missing has not been run yet.
    """

    rows: Sequence[Row]
    benchmarks: list[str]
    reference: str
    protocol: str = SHARED
    cells: dict[tuple[Row, str], Cell] = field(default_factory=dict)

    def content(self, costs: Mapping[str, Mapping[str, Any]] | None = None) -> list[dict[str, Any]]:
        """A JSON object per row.

        Args:
            costs: What each method costs, as :mod:`rfclip.cost.kept` has it; None: not measured.
        """
        found = []
        for setting in dict.fromkeys(row.setting for row in self.rows):
            rows = [row for row in self.rows if row.setting == setting]
            found += self._ranked(rows, [self._row(row, (costs or {}).get(row.method)) for row in rows])
        return found

    def _ranked(self, rows: Sequence[Row], found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Fill the ranks of a setting's rows in; what differs in more than its method has none."""
        for benchmark in self.benchmarks:
            cells = [one["cells"][benchmark] for one in found]
            values = [None if cell["not_comparable"] else cell["mIoU"] for cell in cells]
            for cell, rank in zip(cells, ranks(values), strict=True):
                cell["rank"] = rank
        fair = [None if _unfair(one) else one["mean"] for one in found]
        for one, rank in zip(found, ranks(fair), strict=True):
            known = [cell["rank"] for cell in one["cells"].values()]
            one["rank"] = rank
            one["mean_rank"] = None if rank is None or None in known else sum(known) / len(known)
        return found

    def _row(self, row: Row, cost: Mapping[str, Any] | None) -> dict[str, Any]:
        reference = Row(self.reference, *row.setting)
        first = Row(row.method, *self.rows[0].setting)
        cells = {benchmark: self._cell(row, reference, benchmark) for benchmark in self.benchmarks}
        values = [cell["mIoU"] for cell in cells.values()]
        whole = [value for value in values if value is not None]
        return {
            "row": row.name,
            **asdict(row),
            "cells": cells,
            "mean": sum(whole) / len(whole) if len(whole) == len(values) else None,
            "rank": None,
            "mean_rank": None,
            "reference": self.reference,
            "difference": None if row == reference else self._over_all(row, reference),
            "first_setting": None if row == first else " ".join(first.setting),
            "worth": None if row == first else self._over_all(row, first),
            "cost": cost,
            "notes": self._notes(row),
        }

    def _cell(self, row: Row, reference: Row, benchmark: str) -> dict[str, Any]:
        cell = self._at(row, benchmark)
        if isinstance(cell, str):
            return {**_EMPTY, "why": cell}
        other = cell if row == reference else self._at(reference, benchmark)
        found = {**_EMPTY, "mIoU": cell.miou, "images": len(cell.sampled.images), "alarms": cell.results["alarms"]}
        if isinstance(other, str) or other is cell:
            return found
        found["differs_in"] = _unlike(other, cell)
        found["not_comparable"] = self._apart(cell, other)
        found["difference"] = None if found["not_comparable"] else _as_dict([(cell, other)])
        return found

    def _at(self, row: Row, benchmark: str) -> Cell:
        return self.cells.get((row, benchmark), PENDING)

    def _apart(self, one: Measured, reference: Measured) -> list[str]:
        """What keeps two rows of a setting from standing beside each other."""
        differing = _unlike(reference, one)
        if self.protocol == PUBLISHED_PROTOCOL:
            differing = [name for name in differing if name in _ALWAYS]
        return differing + ([] if comparable(one.sampled, reference.sampled) else ["images"])

    def _over_all(self, row: Row, other: Row) -> dict[str, Any] | None:
        """The mean difference over all benchmarks; None where one has no difference."""
        pairs = []
        for benchmark in self.benchmarks:
            one, two = self._at(row, benchmark), self._at(other, benchmark)
            if isinstance(one, str) or isinstance(two, str) or not comparable(one.sampled, two.sampled):
                return None
            if row.setting == other.setting and self._apart(one, two):
                return None
            pairs.append((one, two))
        return _as_dict(pairs)

    def _notes(self, row: Row) -> list[str]:
        """What a reader must know who takes this row for the method as it was published."""
        reference, found = Row(self.reference, *row.setting), dict[str, list[str]]()
        for benchmark in self.benchmarks:
            one, other = self._at(row, benchmark), self._at(reference, benchmark)
            note = None
            if isinstance(one, str):
                note = one
            elif one.miou is None:
                note = "no scores, because nothing is labelled"
            elif isinstance(other, str):
                note = f"no difference, because {self.reference} has no score there"
            elif apart := self._apart(one, other):
                note = f"no rank: differs from {self.reference} in {', '.join(apart)}"
            elif differing := _unlike(other, one):
                note = f"differs from {self.reference} in {', '.join(differing)}"
            if note is not None:
                found.setdefault(note, []).append(benchmark)
        of_benchmarks = [f"{', '.join(benchmarks)}: {note}" for note, benchmarks in found.items()]
        return [*(_unlike_published(row) if self.protocol == SHARED else []), *of_benchmarks]


def _unlike_published(row: Row) -> list[str]:
    """In which of the table's settings a row is not what its authors ran, as far as that is known."""
    there = published_benchmarks(row.method)
    if there:
        settings = [published_settings(row.method, benchmark) for benchmark in there]
        prior, refiner = (any(one[key] is not None for one in settings) for key in ("prior", "refiner"))
    elif any(row.method in one.get("profiles", ()) for one in published()["main"]):
        prior, refiner = True, False
    else:
        return []
    notes = []
    if prior != (row.prior == PUBLISHED):
        notes.append(
            "was published with the prior, tuned per benchmark"
            if prior
            else "was published without the prior, whose numbers were tuned for paper and release"
        )
    if refiner and row.refiner == NONE:
        notes.append("was published with a refiner of its own")
    return notes


def _unlike(first: Measured, second: Measured) -> list[str]:
    """In what two differ beside their method; a block that one of them lacks is named alone."""
    pairs = ((first.manifest, second.manifest), (second.manifest, first.manifest))
    return min((unlike(*pair) for pair in pairs), key=len)


def _unfair(row: Mapping[str, Any]) -> bool:
    return any(cell["not_comparable"] for cell in row["cells"].values())


def _as_dict(pairs: Sequence[tuple[Measured, Measured]]) -> dict[str, Any] | None:
    if any(one.miou is None or other.miou is None for one, other in pairs):
        return None
    found: Difference = difference([(one.sampled, other.sampled) for one, other in pairs])
    return asdict(found)
