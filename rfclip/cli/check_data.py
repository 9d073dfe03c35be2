"""rfclip check-data BENCHMARK|all: check a benchmark's files."""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfclip.benchmarks.configs import BENCHMARKS
from rfclip.cli.arguments import share

if TYPE_CHECKING:
    from rfclip.benchmarks.checks import Report


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser.description = (
        "Check a benchmark's files: how many there are, that images and label maps belong together, that "
        "all can be read, sizes, label values, and which classes occur. Exit status 0 only if nothing is wrong."
    )
    parser.add_argument("benchmark", metavar="BENCHMARK|all", choices=[*BENCHMARKS, "all"], help=", ".join(BENCHMARKS))
    share(parser, "data_root")
    parser.add_argument("--show", type=int, default=5, metavar="N", help="findings of a kind that are shown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    return parser.parse_args(arguments)


def progress(results: Iterable[Any], total: int) -> Iterable[Any]:
    """A bar on a terminal."""
    from tqdm import tqdm

    return tqdm(results, total=total, unit="image", disable=None)


def lines(report: Report, most: int) -> list[str]:
    """The report for a terminal; of each kind of finding the first `most`."""
    kinds = defaultdict(list)
    for finding in report.findings:
        kinds[finding.kind].append(str(finding))
    number = len(report.findings)
    verdict = f"{number} finding{'s' * (number > 1)}" if number else "all well"
    text = [f"{report.benchmark} ({report.root}): {verdict}", *(f"  {note}" for note in report.notes)]
    for kind, found in kinds.items():
        text += [f"  {kind}: {sentence}" for sentence in found[:most]]
        if len(found) > most:
            text.append(f"  {kind}: and {len(found) - most} more (--show {len(found)})")
    return text


def checked(benchmark: str, data_root: str | None) -> Report:
    """The report; where the system refuses to read, with that one finding, so that the other benchmarks follow."""
    from rfclip.benchmarks.checks import Report, check
    from rfclip.benchmarks.label_checks import Finding

    try:
        return check(benchmark, data_root, progress)
    except OSError as error:
        finding = Finding("unreadable", None, str(error), "let it be readable, or copy it again")
        return Report(benchmark, Path(data_root or "data"), findings=(finding,))


def is_absent(report: Report) -> bool:
    """Whether there is nothing to check."""
    return any(finding.kind == "missing" for finding in report.findings)


def run(args: argparse.Namespace) -> int:
    """Check what was asked for; of 'all', what is there."""
    names = BENCHMARKS if args.benchmark == "all" else (args.benchmark,)
    reports = []
    for name in names:
        reports.append(checked(name, args.data_root))
        print("\n".join(lines(reports[-1], args.show)), flush=True)
    if args.json is not None:
        text = json.dumps([asdict(report) for report in reports], indent=1, default=str)
        args.json.write_text(text + "\n", encoding="utf-8")
    there = [report for report in reports if not is_absent(report)]
    if not there:
        print("nothing to check: rfclip prepare sample data/sample makes a sample", file=sys.stderr)
        return 1
    wrong = there if args.benchmark == "all" else reports
    return 1 if any(report.findings for report in wrong) else 0
