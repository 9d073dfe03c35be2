"""Tables: rows of cells under their heads, as Markdown, as aligned text and as comma-separated values."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The table in Markdown; a '|' in a cell becomes '/'."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def aligned(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The table for a terminal, each column as wide as its widest cell; without a line break at the end."""
    lines = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def comma_separated(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The table as CSV, lines ending with a line feed; None is an empty cell."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([heads, *rows])
    return file.getvalue()


def number(value: float | None, places: int = 2, unknown: str = "") -> str:
    """A number for a cell; `unknown` for None and NaN."""
    return unknown if value is None or math.isnan(value) else f"{value:.{places}f}"
