"""Compare methods under one protocol: python tools/compare.py --methods mean_kk,paper --benchmarks voc21."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _checkout  # noqa: F401  (finds this checkout, before mmseg)

from rfclip.benchmarks.configs import BENCHMARKS, benchmark_config
from rfclip.benchmarks.datasets import missing_data
from rfclip.benchmarks.options import (
    Options,
    add_clip_options,
    benchmark_name,
    build_config,
    clip_command,
    profile_file,
)
from rfclip.runs.areas import AreaLog
from rfclip.runs.compare import Measured, as_markdown, as_text, compare
from rfclip.runs.run import RESULTS, UserError, is_finished

ROOT = Path(__file__).resolve().parents[1]
PEAK = "peak.json"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Run methods on benchmarks with the same images, resolution, names, threshold and refinement, and "
        "put them into one table (OUT/compare.md, .json): mIoU, paired differences to the first method with intervals, "
        "speed and memory. Each run is a process of its own; its results are in OUT/<method>/<benchmark>."
    )
    parser.add_argument("--methods", required=True, help="by commas, the reference first, e.g. mean_kk,paper,release")
    parser.add_argument("--benchmarks", required=True, help=f"by commas, config files or of {','.join(BENCHMARKS)}")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/compare"))
    parser.add_argument("--sample", action="store_true", help="the generated benchmarks and the tiny CLIP")
    parser.add_argument("--data-root", help="folder that stands for the configs' data/")
    parser.add_argument("--model", help="open_clip name, model-config JSON, 'auto' or 'tiny'")
    parser.add_argument("--checkpoint", help="CLIP weights: an open_clip tag or a local file")
    add_clip_options(parser)
    parser.add_argument("--pamr", action="store_true", help="refine all methods with PAMR")
    parser.add_argument("--images", type=int, metavar="N", help="only the first N images of each benchmark")
    parser.add_argument("--resamples", type=int, default=2000, help="draws for the intervals (default 2000)")
    parser.add_argument("--resume", action="store_true", help="keep what is finished and unchanged")
    parsed = parser.parse_args(arguments)
    if parsed.sample:
        parsed.model = parsed.model or (None if parsed.checkpoint else "tiny")
        parsed.data_root = parsed.data_root or "data/sample"
    return parsed


def runs(args: argparse.Namespace) -> dict[str, list[Options]]:
    """Per benchmark the runs, one per method.

    Raises:
        ValueError: An unknown method or benchmark, or one method twice.
        FileNotFoundError: A benchmark's data is not there.
    """
    methods = [profile_file(name.strip()).stem for name in args.methods.split(",")]
    if len(set(methods)) < len(methods):
        raise ValueError(f"a method stands twice in --methods {args.methods}")
    extra = {} if args.images is None else {"test_dataloader.dataset.indices": args.images}
    found = {}
    for name in args.benchmarks.split(","):
        config = Path(name) if name.endswith(".py") else benchmark_config(name.strip())
        options = [
            Options(
                config,
                checkpoint=args.checkpoint,
                model=args.model,
                profile=method,
                pamr=args.pamr,
                data_root=args.data_root,
                work_dir=args.out / method,
                resume=args.resume,
                cfg_options=extra,
                quick_gelu=args.quick_gelu,
                origin=args.origin,
            )
            for method in methods
        ]
        cfg = build_config(options[0])
        missing = missing_data(cfg.test_dataloader.dataset)
        if missing is not None:
            raise FileNotFoundError(missing)
        found[benchmark_name(cfg)] = options
    return found


def command(options: Options) -> list[str]:
    """The command line of one run."""
    line = [sys.executable, str(ROOT / "tools/test.py"), str(options.config)]
    line += [options.checkpoint] if options.checkpoint is not None else []
    line += [f"--work-dir={options.work_dir}", f"--profile={options.profile}"]
    line += [f"--model={options.model}"] if options.model is not None else []
    line += [f"--data-root={options.data_root}"] if options.data_root is not None else []
    line += [f"--{name}" for name in ("pamr", "resume") if getattr(options, name)]
    line += clip_command(options)
    if options.cfg_options:
        line += ["--cfg-options", *(f"{key}={value}" for key, value in options.cfg_options.items())]
    return line


def run_one(options: Options, benchmark: str) -> Measured:
    """Run a method on a benchmark, unless it is finished and may be kept, and read what it wrote.

    Raises:
        UserError: The run failed.
    """
    folder = options.work_dir / benchmark
    if not (options.resume and is_finished(options)):
        code, peak = _run(command(options))
        if code != 0:
            raise UserError(f"{options.profile} on {benchmark} failed with exit status {code}; log in {folder}")
        (folder / PEAK).write_text(json.dumps(peak), encoding="utf-8")
    results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    classes = len(results["per_class"])
    peak = json.loads((folder / PEAK).read_text(encoding="utf-8")) if (folder / PEAK).exists() else None
    return Measured(str(options.profile), results, AreaLog(folder, results["manifest"]["identity"]).read(classes), peak)


def _run(line: list[str]) -> tuple[int, float | None]:
    """Exit status of a command, and the peak memory of its process in MiB where the system tells."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with subprocess.Popen(line, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.DEVNULL) as process:
        if not hasattr(os, "wait4"):
            return process.wait(), None
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return process.returncode, round(usage.ru_maxrss / unit, 1)


def write(out: Path, rows: list[dict[str, Any]]) -> None:
    """Write the table."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "compare.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (out / "compare.md").write_text(as_markdown(rows), encoding="utf-8")


def main() -> int:
    """Run everything; a run that fails does not stop the others, but the exit status is 1."""
    args = parse()
    rows: list[dict[str, Any]] = []
    failed = []
    for benchmark, todo in runs(args).items():
        measured = []
        for options in todo:
            print(f"{benchmark}: {options.profile}", flush=True)
            try:
                measured.append(run_one(options, benchmark))
            except UserError as error:
                failed.append(str(error))
                print(f"error: {error}", file=sys.stderr)
                if options is todo[0]:
                    print(f"error: without {options.profile} there is nothing to compare with", file=sys.stderr)
                    break
        if measured and measured[0].method == todo[0].profile:
            rows += compare(benchmark, measured, args.resamples)
            write(args.out, rows)
    if rows:
        print("\n" + as_text(rows))
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
