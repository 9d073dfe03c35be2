"""rfclip eval-all, or bash eval_all.sh: the eight benchmarks one after the other, and one table."""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rfclip.benchmarks.configs import BENCHMARKS, benchmark_config
from rfclip.cli.arguments import PROTOCOL, at_least_one, benchmarks, share, share_clip, with_sample
from rfclip.cli.processes import command_of, make_sample, options_of

if TYPE_CHECKING:
    from rfclip.benchmarks.options import Options


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser.description = "Run the eight benchmarks, end with one table: WORK_DIR/summary.json, .csv and .md."
    parser.add_argument("--benchmarks", default="all", help=f"of {','.join(BENCHMARKS)}, by commas")
    share(parser, "sample", "data_root")
    share_clip(parser, "=the config's; with --sample tiny", "=the config's")
    share(parser, "method", "protocol", method="=the config's", protocol=PROTOCOL)
    share(parser, "refiner", "pamr", "resume", refiner="=the config's")
    share(parser, "work_dir", work_dir=Path("work_dirs"))
    parser.add_argument("--gpus", type=at_least_one, default=1, metavar="N", help="processes per benchmark")
    args = parser.parse_args(arguments)
    args.names = benchmarks(args.benchmarks or "all")
    unknown = [name for name in args.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark '{unknown[0]}'; there are {', '.join(BENCHMARKS)}")
    return with_sample(args)


def options_for(args: argparse.Namespace, benchmark: str) -> Options:
    """What `rfclip test` will be told for a benchmark."""
    names = ("refiner", "work_dir", "resume", "protocol")
    more = {name: getattr(args, name) for name in names}
    return options_of(args, benchmark_config(benchmark), profile=args.method, **more)


def run_one(args: argparse.Namespace, benchmark: str) -> str:
    """Run, or skip, one benchmark; return what became of it, 'skipped', 'failed' or 'ran' first."""
    from rfclip.benchmarks.datasets import missing_data
    from rfclip.benchmarks.options import build_config
    from rfclip.checks import UserError
    from rfclip.cost.memory import environment
    from rfclip.runs.run import RESULTS, is_finished, setting_up

    options = options_for(args, benchmark)
    try:
        with setting_up():
            missing = missing_data(build_config(options).test_dataloader.dataset)
        if missing is not None:
            return f"skipped: {missing}"
        if args.resume and is_finished(options):
            return "ran: finished and unchanged, not run again"
    except UserError as error:
        return f"failed: {error}"
    line = command_of(options, args.imports, args.gpus)
    done = subprocess.run(line, env=environment(), stdout=subprocess.DEVNULL, check=False)  # its log is a file too
    if done.returncode != 0:
        return f"failed with exit status {done.returncode}, log in {options.work_dir / benchmark}"
    return f"ran: {outcome(options.work_dir / benchmark / RESULTS)}"


def outcome(path: Path) -> str:
    """A line about a finished benchmark, with its alarms."""
    results = json.loads(path.read_text(encoding="utf-8"))
    miou, spent = results["metrics"]["mIoU"], results["manifest"]["time"]
    verdict = results["expected"]["sentence"] if results["expected"] else None
    shown = "unknown" if miou is None else f"{miou:.2f}"
    line = f"mIoU {shown}, {spent['images']} images in {spent['seconds']} s"
    return "; ".join(filter(None, [line, verdict, *results["alarms"]]))


def verdict(args: argparse.Namespace, runs: dict[str, str]) -> str | None:
    """Why the exit status is not zero, or None."""
    failed = [name for name, what in runs.items() if what.startswith("failed")]
    skipped = [name for name, what in runs.items() if what.startswith("skipped")]
    if failed:
        return f"failed: {', '.join(failed)}"
    if len(skipped) == len(runs):
        return "no benchmark ran: no data; --sample needs none"
    asked = args.benchmarks not in ("", "all")
    return f"skipped although asked for: {', '.join(skipped)}" if asked and skipped else None


def run(args: argparse.Namespace) -> int:
    """Run all, print what became of each, write and print the table."""
    from rfclip.checks import UserError
    from rfclip.runs.run import RESULTS
    from rfclip.runs.summary import as_text, read_result, table, write

    make_sample(args)
    runs: dict[str, str] = {}
    for number, benchmark in enumerate(args.names, 1):
        print(f"[{number}/{len(args.names)}] {benchmark}", flush=True)
        runs[benchmark] = run_one(args, benchmark)
        print(f"[{number}/{len(args.names)}] {benchmark}: {runs[benchmark]}", flush=True)
    print("\n" + "\n".join(f"{name}: {what}" for name, what in runs.items()) + "\n")
    ran = [name for name, what in runs.items() if what.startswith("ran")]
    if ran:
        rows = table({name: read_result(args.work_dir / name / RESULTS) for name in ran}, mixed=True)
        print(as_text(rows), flush=True)
        write(args.work_dir, rows, runs)
    problem = verdict(args, runs)
    if problem is not None:
        raise UserError(problem)
    return 0
