"""Measure what the method costs beside a plain CLIP: python tools/benchmark.py [--quick]; see docs/COST.md."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import _checkout  # noqa: F401  (finds this checkout, before mmseg)
import torch

from rfclip.cost.bench import FULL, QUICK
from rfclip.cost.memory import environment
from rfclip.cost.report import Report
from rfclip.cost.run import GROUPS, ROWS, measure, row_names
from rfclip.cost.weights import NoDistractorsError

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = Path("data/sample")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time, memory and arithmetic of the method beside a plain CLIP.")
    parser.add_argument("--quick", action="store_true", help="a toy tower, to see that everything runs")
    parser.add_argument(
        "--rows", help=f"comma-separated: {', '.join(GROUPS)}, or of these: {', '.join(ROWS)}; default all"
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds after the warm-up (default 5)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default 2)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--json", type=Path, help="file for all numbers, every repeat")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    parsed = parser.parse_args(arguments)
    if min(parsed.repeats, parsed.threads) < 1:
        parser.error("--repeats and --threads are at least 1")
    try:
        parsed.names = row_names(parsed.rows)
    except ValueError as error:
        parser.error(str(error))
    return parsed


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, and write the files, anew after each row."""
    parsed = parse(arguments)
    torch.set_num_threads(parsed.threads)
    report = Report((QUICK if parsed.quick else FULL).name, parsed.quick, parsed.repeats)
    try:
        for done in measure(report, parsed.names, parsed.device, sample):
            print(f"measured: {done}", file=sys.stderr, flush=True)
            report.note_load()
            save(report, parsed.json, parsed.markdown)
    except NoDistractorsError as error:
        sys.exit(f"error: {error}")
    print(report.as_markdown())


def sample() -> Path:
    """Generate the sample benchmarks if they are not there; return their folder."""
    script = [sys.executable, str(ROOT / "datasets/make_sample.py"), str(SAMPLE)]
    if subprocess.run(script, env=environment(), stdout=subprocess.DEVNULL, check=False).returncode:
        sys.exit(f"error: the sample benchmarks could not be made in {SAMPLE}")
    return SAMPLE


def save(report: Report, json_file: Path | None, markdown_file: Path | None) -> None:
    """Write what there is so far."""
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8")
    if markdown_file is not None:
        markdown_file.write_text(report.as_markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
