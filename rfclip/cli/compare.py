"""rfclip compare --methods mean_kk,paper --benchmarks voc21: the fair table, methods under one protocol."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfclip.benchmarks.configs import BENCHMARKS, benchmark_config
from rfclip.cli.arguments import at_least_one, benchmarks, share, share_clip, with_sample, words
from rfclip.cli.pool import LOG, Answer, Progress, Worker, ask_all, environments
from rfclip.cli.processes import is_first, launch, options_of, sample_once

if TYPE_CHECKING:
    from rfclip.benchmarks.options import Options
    from rfclip.runs.compare.rows import Row
    from rfclip.runs.compare.table import Cell, Table
    from rfclip.runs.compare.writing import About

COSTS = "costs.json"


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser.description = (
        "Run methods on benchmarks with the same images, resolution, names, threshold, prior and refinement, and put "
        "them into one table (WORK_DIR/table.json, .csv, .md, .png): mIoU, mean and rank, paired differences to a "
        "reference with intervals, cost, and what is not comparable. A row is a method with a prior, a refiner and "
        "names; its results are in WORK_DIR/<row>/<benchmark>, as `rfclip test` writes them."
    )
    parser.add_argument("--methods", type=words, required=True, help="profiles by commas, e.g. mean_kk,paper; or all")
    parser.add_argument(
        "--benchmarks",
        type=words,
        required=True,
        help=f"by commas, config files or of {','.join(BENCHMARKS)}; or all, which leaves out those without data",
    )
    parser.add_argument(
        "--reference",
        metavar="METHOD",
        help="with which the others are compared (default: the first of --methods; with all, paper)",
    )
    parser.add_argument("--prior", type=words, default=["published"], help="of none,published, by commas")
    parser.add_argument(
        "--names",
        type=words,
        default=["published"],
        help="of published,clean,plain, by commas; plain: the data set's own class names without aliases",
    )
    share(parser, "work_dir", also=("--out",), work_dir=Path("work_dirs/compare"))
    share(parser, "sample", "data_root")
    share_clip(parser, "=the config's; with --sample tiny", "=the config's")
    several = "=none; with --protocol published, published: as the method was; several by commas"
    share(parser, "protocol", "refiner", "pamr", "resume", protocol="shared", refiner=several)
    share(parser, "limit", also=("--images",))
    parser.add_argument("--resamples", type=at_least_one, default=2000, metavar="N", help="draws for the intervals")
    parser.add_argument("--no-cost", action="store_true", help="do not measure what the methods cost")
    parser.add_argument("--jobs", type=at_least_one, default=1, metavar="N", help="runs at once, that share the cores")
    parser.add_argument(
        "--gpus",
        type=at_least_one,
        metavar="N",
        help="a benchmark per GPU, N at once; with --launcher pytorch, N processes for each benchmark",
    )
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="of processes that share each benchmark; pytorch starts them itself where torchrun has not",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    args.arguments = list(arguments)
    args.skips = args.benchmarks == ["all"]
    args.benchmarks = benchmarks("all") if args.skips else args.benchmarks
    args.refiner = words(args.refiner or ("published" if args.protocol == "published" else "none"))
    return with_sample(args)


def plan(args: argparse.Namespace) -> tuple[Table, dict[str, Options], tuple[str, ...]]:
    """The empty table, what the rows of each of its benchmarks have in common, and what was left out.

    Raises:
        ValueError: An unknown word, benchmark or method, or one that stands twice.
        UserError: A config is wrong, or no benchmark has data.
    """
    from rfclip.benchmarks.datasets import missing_data
    from rfclip.benchmarks.options import benchmark_name, build_config
    from rfclip.checks import UserError
    from rfclip.runs.compare.rows import ALL, chosen_methods, chosen_reference, make_rows
    from rfclip.runs.compare.table import Table
    from rfclip.runs.run import setting_up

    methods = chosen_methods(args.methods)
    rows = make_rows(methods, args.prior, args.refiner, args.names)
    table = Table(rows, [], chosen_reference(args.reference, methods, args.methods == [ALL]), args.protocol)
    bases: dict[str, Options] = {}
    skipped, missed = [], []
    for name in args.benchmarks:
        base = options_of(
            args,
            Path(name) if name.endswith(".py") else benchmark_config(name),
            work_dir=args.work_dir,
            resume=args.resume,
            launcher=args.launcher,
            cfg_options={} if args.limit is None else {"test_dataloader.dataset.indices": args.limit},
            protocol=args.protocol,
        )
        with setting_up():
            cfg = build_config(base)
        benchmark, missing = benchmark_name(cfg), missing_data(cfg.test_dataloader.dataset)
        if benchmark in bases or benchmark in table.benchmarks:
            raise ValueError(f"{benchmark} stands twice in --benchmarks {','.join(args.benchmarks)}: take it once")
        if missing is not None and args.skips:
            skipped.append(f"{benchmark}: {missing}")
            continue
        table.benchmarks.append(benchmark)
        if missing is None:
            bases[benchmark] = base
        else:
            missed.append(missing)
            table.cells.update({(row, benchmark): f"no data: {missing}" for row in rows})
    if not bases:
        raise UserError(f"no benchmark can be run: {(missed or skipped)[0]} (--sample needs no data)")
    return table, bases, tuple(skipped)


def answers(
    cells: Sequence[tuple[Row, str]], bases: Mapping[str, Options], args: argparse.Namespace
) -> Iterator[tuple[tuple[Row, str], Answer]]:
    """Run the cells, row by row; yields each with what became of it."""
    from rfclip.cli.worker import packed, run_cell
    from rfclip.cost.memory import environment

    if args.launcher != "none":
        for row, benchmark in cells:  # in step with the other processes, whom an error here would leave waiting
            with redirect_stdout(io.StringIO()):  # its log is a file too
                answer: Answer = run_cell(row, bases[benchmark])
            yield (row, benchmark), answer
        return
    count = args.gpus or args.jobs
    workers = [
        Worker(args.imports, one, args.work_dir / LOG)
        for one in environments(min(count, len(cells)), args.gpus is not None, environment())
    ]
    for number, answer in ask_all([packed(row, bases[benchmark]) for row, benchmark in cells], workers):
        yield cells[number], answer


def read_cell(folder: Path, resamples: int) -> Cell:
    """What a run has left in its folder."""
    from rfclip.runs.areas import AreaLog
    from rfclip.runs.compare.statistics import sample
    from rfclip.runs.compare.table import Measured
    from rfclip.runs.run import RESULTS
    from rfclip.runs.summary import read_result

    results = read_result(folder / RESULTS)
    areas = AreaLog(folder, results["manifest"]["identity"]).read(len(results["per_class"]))
    return Measured(results, sample(areas, resamples))


def measure(table: Table, bases: Mapping[str, Options], args: argparse.Namespace, about: About) -> list[str]:
    """Fill the table, and write it after each row; returns the sentence of each cell that failed."""
    from tqdm import tqdm

    cells = [(row, benchmark) for row in table.rows for benchmark in bases]
    at_once = 1 if args.launcher != "none" else args.gpus or args.jobs
    progress = Progress({row: list(bases) for row in table.rows}, at_once)
    bar = tqdm(total=len(cells), unit="cell", disable=None if is_first() else True)
    failed = [f"{row.name} on {benchmark}: {cell}" for (row, benchmark), cell in table.cells.items()]
    for number, ((row, benchmark), answer) in enumerate(answers(cells, bases, args), 1):
        progress.done(row, benchmark, answer)
        if not is_first():
            continue
        cell = answer.get("error") or read_cell(args.work_dir / row.name / benchmark, args.resamples)
        table.cells[row, benchmark] = cell
        if isinstance(cell, str):
            failed.append(f"{row.name} on {benchmark}: {cell}")
            tqdm.write(f"error: {failed[-1]}", file=sys.stderr)
            told = "failed"
        else:
            told = "unknown" if cell.miou is None else f"mIoU {cell.miou:.2f}"
            told += ", kept" if answer["kept"] else f", {answer['seconds']} s"
        bar.set_postfix_str(progress.text())
        bar.update()
        if bar.disable:
            print(f"[{number}/{len(cells)}] {row.name}, {benchmark}: {told}; {progress.text()}", flush=True)
        if not progress.left[row]:
            save(table, args.work_dir, about)
    bar.close()
    return failed


def save(table: Table, folder: Path, about: About, costs: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Write the table as it is so far; one process does."""
    from rfclip.runs.compare.writing import write

    if is_first():
        write(folder, table.content(costs), about)


def measure_costs(table: Table, args: argparse.Namespace, device: str) -> dict[str, Mapping[str, Any]]:
    """What each method that ran somewhere costs; each is measured once, and kept in the work dir."""
    from rfclip.cost.kept import measure_kept, scale_of

    costs: dict[str, Mapping[str, Any]] = {}
    ran = {row for (row, _), cell in table.cells.items() if not isinstance(cell, str)}
    methods = list(dict.fromkeys(row.method for row in table.rows if row in ran))
    for name, cost in measure_kept(methods, scale_of(args.model), device, args.work_dir / COSTS):
        costs[name] = cost
        told = f"{cost['ratio']:.2f} x plain" if "ratio" in cost else f"not measured: {cost['why']}"
        print(f"[{len(costs)}/{len(methods)}] cost of {name}: {told}", flush=True)
    return costs


def run(args: argparse.Namespace) -> int:
    """Run everything; a run that fails does not stop the others, but the exit status is 1."""
    from rfclip.runs.compare.writing import as_text
    from rfclip.segment.files import prepare_folder

    if args.launcher == "pytorch" and "RANK" not in os.environ:
        sample_once(args)
        return launch(["compare", *args.arguments], args.gpus or 1)
    if args.local_rank is not None:
        os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    sample_once(args)
    table, bases, skipped = plan(args)
    prepare_folder(args.work_dir)
    device, about = describe(args, table.reference, skipped)
    failed = measure(table, bases, args, about)
    if not is_first():
        return 0
    costs = None if args.no_cost else measure_costs(table, args, device)
    save(table, args.work_dir, about, costs)
    content = table.content(costs)
    plotted = plot(content, about, args.work_dir / "table.png")
    print(f"\n{as_text(content, about)}\n")
    for path in [*(args.work_dir / f"table.{ending}" for ending in ("json", "csv", "md")), *plotted]:
        print(path)
    if failed:
        cells = len(table.rows) * len(table.benchmarks)
        print(f"error: {len(failed)} of {cells} cells have no score; the first: {failed[0]}", file=sys.stderr)
    return 1 if failed else 0


def describe(args: argparse.Namespace, reference: str, skipped: tuple[str, ...]) -> tuple[str, About]:
    """The device of the cost, and what holds for the whole table."""
    import torch

    from rfclip.cost.kept import describe, scale_of
    from rfclip.runs.compare.writing import About

    device = "cuda" if torch.cuda.is_available() else "cpu"
    clip = " ".join(filter(None, [args.model or "the configs' CLIP", args.pretrained and Path(args.pretrained).name]))
    data = "the generated sample" if args.sample else "the pictures of the data root"
    first = "" if args.limit is None else f", the first {args.limit} of each benchmark"
    cost = "" if args.no_cost else describe(scale_of(args.model), device)
    return device, About(reference, args.protocol, args.resamples, clip, data + first, cost, skipped, bool(args.sample))


def plot(content: Sequence[Mapping[str, Any]], about: About, path: Path) -> list[Path]:
    """Draw mean against cost, or means alone where no cost is known; nothing where no row has a mean."""
    import numpy as np

    from rfclip.analysis import charts
    from rfclip.explain import style

    rows = [row for row in content if row["mean"] is not None]
    if not rows:
        print("no row has a mean, so there is no plot", file=sys.stderr)
        return []
    title = f"Mean mIoU over {len(rows[0]['cells'])} benchmarks, {about.data}, protocol {about.protocol}"
    note = "The sample says nothing about real data." if about.sample else ""
    known = [row for row in rows if "ratio" in (row["cost"] or {})]
    values = np.array([row["mean"] for row in known or rows])
    if known:
        unknown = ", ".join(dict.fromkeys(row["method"] for row in rows if row not in known))
        note = f"{note} Of unknown cost: {unknown}.".strip() if unknown else note
        settings = [f"prior {row['prior']}, refiner {row['refiner']}, names {row['names']}" for row in known]
        costs = np.array([row["cost"]["ratio"] for row in known])
        figure = charts.mean_against_cost([row["method"] for row in known], costs, values, settings, title, note)
    else:
        figure = charts.bars([row["row"] for row in rows], values, None, "mean mIoU, %", title, note)
    return [style.save(figure, path)]
