"""rfclip compare --methods mean_kk,paper --benchmarks voc21: methods under one protocol."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfclip.benchmarks.configs import BENCHMARKS, benchmark_config
from rfclip.cli.arguments import at_least_one, benchmarks, share, share_clip, with_sample, words
from rfclip.cli.processes import command_of, make_sample

if TYPE_CHECKING:
    from rfclip.benchmarks.options import Options
    from rfclip.runs.compare import Measured

PEAK = "peak.json"


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser.description = (
        "Run methods on benchmarks with the same images, resolution, names, threshold and refinement, and put them "
        "into one table (WORK_DIR/table.json, .csv, .md): mIoU, paired differences to the first method with intervals, "
        "speed and memory. Each run is a process of its own; its results are in WORK_DIR/<method>/<benchmark>."
    )
    parser.add_argument(
        "--methods",
        type=words,
        required=True,
        help="by commas, the reference first, e.g. mean_kk,paper,release; or all",
    )
    parser.add_argument(
        "--benchmarks",
        type=benchmarks,
        required=True,
        help=f"by commas, config files or of {','.join(BENCHMARKS)}; or all",
    )
    share(parser, "work_dir", also=("--out",), work_dir=Path("work_dirs/compare"))
    share(parser, "sample", "data_root")
    share_clip(parser, "=the config's; with --sample tiny", "=the config's")
    share(parser, "protocol", "refiner", "pamr", "resume", protocol="shared", refiner="=the config's")
    share(parser, "limit", also=("--images",))
    parser.add_argument("--resamples", type=at_least_one, default=2000, metavar="N", help="draws for the intervals")
    args = parser.parse_args(arguments)
    return with_sample(args)


def runs(args: argparse.Namespace) -> dict[str, list[Options]]:
    """Per benchmark the runs, one per method.

    Raises:
        ValueError: An unknown method or benchmark, or one method twice.
        FileNotFoundError: A benchmark's data is not there.
        UserError: A config is wrong.
    """
    from rfclip.benchmarks.configs import find_profile, profiles
    from rfclip.benchmarks.datasets import missing_data
    from rfclip.benchmarks.options import Options, benchmark_name, build_config
    from rfclip.runs.run import setting_up

    names = profiles() if args.methods == ["all"] else args.methods
    methods = [find_profile(name)[0] for name in names]
    if len(set(methods)) < len(methods):
        raise ValueError(f"a method stands twice in --methods {','.join(args.methods)}")
    extra = {} if args.limit is None else {"test_dataloader.dataset.indices": args.limit}
    found = {}
    for name in args.benchmarks:
        config = Path(name) if name.endswith(".py") else benchmark_config(name)
        options = [
            Options(
                config,
                checkpoint=args.pretrained,
                model=args.model,
                profile=method,
                refiner=args.refiner,
                data_root=args.data_root,
                work_dir=args.work_dir / method,
                resume=args.resume,
                cfg_options=extra,
                quick_gelu=args.quick_gelu,
                origin=args.origin,
                protocol=args.protocol,
            )
            for method in methods
        ]
        with setting_up():
            cfg = build_config(options[0])
        missing = missing_data(cfg.test_dataloader.dataset)
        if missing is not None:
            raise FileNotFoundError(missing)
        found[benchmark_name(cfg)] = options
    return found


def run_one(options: Options, benchmark: str, imports: Sequence[str]) -> Measured:
    """Run a method on a benchmark, unless it is finished and may be kept, and read what it wrote.

    Raises:
        UserError: The run failed.
    """
    from rfclip.checks import UserError
    from rfclip.runs.areas import AreaLog
    from rfclip.runs.compare import Measured
    from rfclip.runs.run import RESULTS, is_finished

    folder = options.work_dir / benchmark
    if not (options.resume and is_finished(options)):
        code, peak = _run(command_of(options, imports))
        if code != 0:
            raise UserError(f"{options.profile} on {benchmark} failed with exit status {code}; log in {folder}")
        (folder / PEAK).write_text(json.dumps(peak), encoding="utf-8")
    results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    classes = len(results["per_class"])
    peak = json.loads((folder / PEAK).read_text(encoding="utf-8")) if (folder / PEAK).exists() else None
    return Measured(str(options.profile), results, AreaLog(folder, results["manifest"]["identity"]).read(classes), peak)


def _run(line: list[str]) -> tuple[int, float | None]:
    """Exit status of a command, and the peak memory of its process in MiB where the system tells."""
    from rfclip.cost.memory import environment

    with subprocess.Popen(line, env=environment(), stdout=subprocess.DEVNULL) as process:
        if not hasattr(os, "wait4"):
            return process.wait(), None
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return process.returncode, round(usage.ru_maxrss / unit, 1)


def write(work_dir: Path, rows: list[dict[str, Any]]) -> None:
    """Write the table."""
    from rfclip.io.atomic import write_whole
    from rfclip.runs.compare import as_csv, as_markdown

    work_dir.mkdir(parents=True, exist_ok=True)
    write_whole(work_dir / "table.json", json.dumps(rows, indent=1) + "\n")
    write_whole(work_dir / "table.csv", as_csv(rows))
    write_whole(work_dir / "table.md", as_markdown(rows))


def run(args: argparse.Namespace) -> int:
    """Run everything; a run that fails does not stop the others, but the exit status is 1."""
    from rfclip.checks import UserError
    from rfclip.runs.compare import as_text, compare

    make_sample(args)
    rows: list[dict[str, Any]] = []
    failed = []
    for benchmark, todo in runs(args).items():
        measured = []
        for options in todo:
            print(f"{benchmark}: {options.profile}", flush=True)
            try:
                measured.append(run_one(options, benchmark, args.imports))
            except UserError as error:
                failed.append(str(error))
                print(f"error: {error}", file=sys.stderr)
                if options is todo[0]:
                    print(f"error: without {options.profile} there is nothing to compare with", file=sys.stderr)
                    break
        if measured and measured[0].method == todo[0].profile:
            rows += compare(benchmark, measured, args.resamples)
            write(args.work_dir, rows)
    if rows:
        print("\n" + as_text(rows))
    return 1 if failed or not rows else 0
