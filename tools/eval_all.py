"""Run the eight benchmarks one after the other and end with one table; see eval_all.sh --help."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import _checkout  # noqa: F401  (finds this checkout, before mmseg)

from rfclip.benchmarks.configs import BENCHMARKS, benchmark_config
from rfclip.benchmarks.datasets import missing_data
from rfclip.benchmarks.options import Options, add_clip_options, build_config, clip_command
from rfclip.runs.run import RESULTS, UserError, is_finished
from rfclip.runs.summary import as_text, read_result, table, write

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = Path("data/sample")
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="eval_all.sh", description="Run the eight benchmarks, end with one table.")
    parser.add_argument("--sample", action="store_true", help="the generated miniature benchmarks, the tiny CLIP")
    parser.add_argument("--data-root", help="folder that stands for the configs' data/ (default data, or data/sample)")
    parser.add_argument("--benchmarks", help=f"comma-separated, of {','.join(BENCHMARKS)}; default all")
    parser.add_argument("--model", help="open_clip name, model-config JSON, 'auto' or 'tiny'")
    parser.add_argument("--checkpoint", help="CLIP weights: an open_clip tag or a local file")
    add_clip_options(parser)
    parser.add_argument("--profile", help="paper (default), release, or a baseline")
    parser.add_argument("--pamr", action="store_true", help="refine with PAMR")
    parser.add_argument(
        "--resume", action="store_true", help="skip what is finished and unchanged, go on inside the rest"
    )
    parser.add_argument("--gpus", type=int, default=1, help="processes per benchmark")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs"))
    parsed = parser.parse_args(arguments)
    parsed.names = [name.strip() for name in parsed.benchmarks.split(",")] if parsed.benchmarks else list(BENCHMARKS)
    unknown = [name for name in parsed.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark '{unknown[0]}'; there are {', '.join(BENCHMARKS)}")
    if parsed.sample:
        parsed.model = parsed.model or ("tiny" if parsed.checkpoint is None else None)
        parsed.data_root = parsed.data_root or str(SAMPLE)
    return parsed


def options_for(parsed: argparse.Namespace, benchmark: str) -> Options:
    """What tools/test.py will be told for a benchmark."""
    names = ("checkpoint", "model", "profile", "pamr", "data_root", "work_dir", "resume", "quick_gelu", "origin")
    return Options(benchmark_config(benchmark), **{name: getattr(parsed, name) for name in names})


def command(options: Options, gpus: int) -> list[str]:
    """The command that runs a benchmark in a process of its own."""
    extra = [f"--work-dir={options.work_dir}"]
    for name in ("model", "profile", "data_root"):
        value = getattr(options, name)
        extra += [f"--{name.replace('_', '-')}={value}"] if value is not None else []
    extra += [f"--{name}" for name in ("pamr", "resume") if getattr(options, name)]
    extra += clip_command(options)
    if gpus > 1:
        return [
            "bash",
            str(ROOT / "tools/dist_test.sh"),
            str(options.config),
            options.checkpoint or "none",
            str(gpus),
            *extra,
        ]
    checkpoint = [options.checkpoint] if options.checkpoint is not None else []
    return [sys.executable, str(ROOT / "tools/test.py"), str(options.config), *checkpoint, *extra]


def run_one(parsed: argparse.Namespace, benchmark: str) -> str:
    """Run, or skip, one benchmark; return what became of it, 'skipped', 'failed' or 'ran' first."""
    options = options_for(parsed, benchmark)
    try:
        missing = missing_data(build_config(options).test_dataloader.dataset)
        if missing is not None:
            return f"skipped: {missing}"
        if parsed.resume and is_finished(options):
            return "ran: finished and unchanged, not run again"
    except (UserError, OSError, ValueError) as error:
        return f"failed: {error}"
    line = command(options, parsed.gpus)
    done = subprocess.run(line, env=ENVIRONMENT, stdout=subprocess.DEVNULL, check=False)  # its log is a file too
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


def make_sample(folder: Path) -> None:
    """Generate the miniature benchmarks if they are not there; a folder of another's making is left alone."""
    if folder != SAMPLE and folder.exists():
        return
    script = [sys.executable, str(ROOT / "datasets/make_sample.py"), str(folder)]
    if subprocess.run(script, env=ENVIRONMENT, check=False).returncode:
        sys.exit(f"error: the sample benchmarks could not be made in {folder}")


def verdict(parsed: argparse.Namespace, runs: dict[str, str]) -> str | None:
    """Why the exit status is not zero, or None."""
    failed = [name for name, what in runs.items() if what.startswith("failed")]
    skipped = [name for name, what in runs.items() if what.startswith("skipped")]
    if failed:
        return f"failed: {', '.join(failed)}"
    if len(skipped) == len(runs):
        return "no benchmark ran: no data; bash eval_all.sh --sample needs none"
    return f"skipped although asked for: {', '.join(skipped)}" if parsed.benchmarks and skipped else None


def main() -> None:
    """Run all, print what became of each, write and print the table."""
    parsed = parse()
    if parsed.sample:
        make_sample(Path(parsed.data_root))
    runs: dict[str, str] = {}
    for number, benchmark in enumerate(parsed.names, 1):
        print(f"[{number}/{len(parsed.names)}] {benchmark}", flush=True)
        runs[benchmark] = run_one(parsed, benchmark)
        print(f"[{number}/{len(parsed.names)}] {benchmark}: {runs[benchmark]}", flush=True)
    print("\n" + "\n".join(f"{name}: {what}" for name, what in runs.items()) + "\n")
    ran = [name for name, what in runs.items() if what.startswith("ran")]
    if ran:
        try:
            rows = table({name: read_result(parsed.work_dir / name / RESULTS) for name in ran}, mixed=True)
            print(as_text(rows), flush=True)
            write(parsed.work_dir, rows, runs)
        except (OSError, ValueError) as error:
            sys.exit(f"error: the table cannot be written: {error}")
    problem = verdict(parsed, runs)
    if problem is not None:
        sys.exit(f"error: {problem}")


if __name__ == "__main__":
    main()
