"""The paper's tables as runs of a benchmark: one row, one method; mIoU measured here, published values beside it."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from rfclip.analysis import charts
from rfclip.benchmarks.configs import benchmark_config, config_root, listed
from rfclip.benchmarks.options import Options
from rfclip.explain import style
from rfclip.io.atomic import write_whole
from rfclip.io.tables import comma_separated, number
from rfclip.runs.reference import published
from rfclip.runs.run import run as run_benchmark

COLUMNS = (
    "benchmark", "row", "setting", "mIoU_measured_%", "mIoU_published_%_real_data_ViT-B-16", "measured_on", "note",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: as published, where it is.
        method: the method block.
        x: value of the setting that a sweep goes through.
    """

    name: str
    method: Mapping[str, Any]
    x: float | None = None


@dataclass(frozen=True)
class Analysis:
    """A table to measure: configs/analysis/NAME.py.

    Attributes:
        name: of the file.
        title: of the plot.
        rows: the rows.
        published: table of rfclip/data/published.json whose rows have the same names, or None.
        x_label: name and unit of what a sweep goes through; None: no sweep.
        marked: default of that setting.
        note: what a reader must know of the definitions.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    published: str | None = None
    x_label: str | None = None
    marked: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Setting:
    """Where and on what the rows are measured.

    Attributes:
        benchmarks: names of benchmarks.
        model, checkpoint, data_root, quick_gelu, origin: as `rfclip test` takes them.
        limit: measure on the first so many images only; None: all.
    """

    benchmarks: tuple[str, ...] = ("voc21",)
    model: str | None = None
    checkpoint: str | None = None
    data_root: str | None = None
    limit: int | None = None
    quick_gelu: bool | None = None
    origin: str | None = None


def analyses() -> tuple[str, ...]:
    """Names of the tables in configs/analysis."""
    return listed("analysis")


def load_analysis(spec: str) -> Analysis:
    """Read a table's config: a name in configs/analysis, or the path of such a file.

    Raises:
        ValueError: there is none.
    """
    path = Path(spec) if spec.endswith(".py") else config_root() / "analysis" / f"{spec}.py"
    if not path.is_file():
        raise ValueError(f"no analysis {spec!r}; there are {', '.join(analyses())}")
    settings = Config.fromfile(path).analysis.to_dict()
    rows = tuple(Row(**row) for row in settings.pop("rows"))
    return Analysis(path.stem, rows=rows, **settings)


def measure(
    analysis: Analysis, setting: Setting, folder: Path, say: Callable[[str], object] = print
) -> dict[str, list[float]]:
    """Run every row on every benchmark; rows that are finished in the folder are not run again.

    What the runs log, settings and all, goes into files below the folder, and not to the screen.

    Args:
        analysis: the table.
        setting: where.
        folder: keeps the runs' own results and logs, in runs/.
        say: takes a line per row, with its mIoU and its alarms.

    Returns:
        Benchmark -> mIoU in percent per row (NaN if no class was there).

    Raises:
        rfclip.runs.run.UserError: something is missing or does not fit.
    """
    found: dict[str, list[float]] = {}
    for benchmark in setting.benchmarks:
        found[benchmark] = []
        for row in analysis.rows:
            options = _options(
                row, benchmark, setting, folder / "runs" / re.sub(r"[^a-z0-9.]+", "-", row.name.lower()).strip("-")
            )
            with redirect_stdout(io.StringIO()):
                results = run_benchmark(options)
            miou = results["metrics"]["mIoU"]
            told = "mIoU unknown" if miou is None else f"mIoU {miou:.2f}"
            say("; ".join([f"{benchmark}, {row.name}: {told}", *results["alarms"]]))
            found[benchmark].append(float("nan") if miou is None else miou)
    return found


def published_values(analysis: Analysis, benchmark: str) -> list[float] | None:
    """The published mIoU per row, NaN where there is none; None if none of the rows has one."""
    if analysis.published is None:
        return None
    table = {row["method"]: row["mIoU"] for row in published()[analysis.published]}
    values = [table.get(row.name, {}).get(benchmark, float("nan")) for row in analysis.rows]
    return None if np.isnan(values).all() else values


def write_table(analysis: Analysis, measured: Mapping[str, Sequence[float]], folder: Path, source: str) -> list[Path]:
    """Write NAME.csv, and NAME_BENCHMARK.png for each benchmark.

    Args:
        analysis: the table.
        measured: benchmark -> mIoU in percent per row.
        folder: made if it is not there.
        source: a few words on weights and images, for the titles.

    Returns:
        The paths that were written, the table first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{analysis.name}.csv"]
    cells = []
    for benchmark, values in measured.items():
        beside = published_values(analysis, benchmark) or [float("nan")] * len(values)
        for row, value, other in zip(analysis.rows, values, beside, strict=True):
            x = "" if row.x is None else f"{row.x:g}"
            cells.append([benchmark, row.name, x, number(value), number(other), source, analysis.note])
    write_whole(paths[0], comma_separated(COLUMNS, cells))
    for benchmark, values in measured.items():
        paths.append(folder / f"{analysis.name}_{benchmark}.png")
        style.save(_plot(analysis, benchmark, values, source), paths[-1])
    return paths


def _plot(analysis: Analysis, benchmark: str, values: Sequence[float], source: str) -> charts.Figure:
    title = f"{analysis.title}: {benchmark}, {source}"
    array = np.asarray(values, float)
    if analysis.x_label is not None:
        x = [row.x if row.x is not None else float("nan") for row in analysis.rows]
        return charts.curve(x, array, analysis.x_label, "mIoU, %", title, analysis.marked)
    beside = published_values(analysis, benchmark)
    other = None if beside is None else np.asarray(beside)
    return charts.bars([row.name for row in analysis.rows], array, other, "mIoU, %", title, analysis.note)


def _options(row: Row, benchmark: str, setting: Setting, folder: Path) -> Options:
    changes: dict[str, Any] = {"model.method": {**copy.deepcopy(dict(row.method)), "_delete_": True}}
    if setting.limit is not None:
        changes["test_dataloader.dataset.indices"] = setting.limit
    return Options(
        benchmark_config(benchmark),
        checkpoint=setting.checkpoint,
        model=setting.model,
        data_root=setting.data_root,
        work_dir=folder,
        cfg_options=changes,
        resume=True,
        quick_gelu=setting.quick_gelu,
        origin=setting.origin,
    )
