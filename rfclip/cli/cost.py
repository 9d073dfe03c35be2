"""rfclip cost [--quick]: what the method costs beside a plain CLIP; see docs/COST.md."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rfclip.cli.arguments import SAMPLE, at_least_one, share, words
from rfclip.cli.processes import sample_in

if TYPE_CHECKING:
    from rfclip.cost.report import Report


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser.description = "Time, memory and arithmetic of the method beside a plain CLIP."
    parser.add_argument("--quick", action="store_true", help="a toy tower, to see that everything runs")
    parser.add_argument(
        "--rows", help="comma-separated: speed, memory, precision, cost, or rows of them; an unknown one names them all"
    )
    parser.add_argument(
        "--methods", help="comma-separated profiles or methods, or all: these beside plain, and no other rows"
    )
    parser.add_argument(
        "--size", type=size, default=(336, 448), metavar="HxW", help="of the image, with --methods (default: 336x448)"
    )
    parser.add_argument("--repeats", type=at_least_one, default=5, help="timed rounds after the warm-up")
    parser.add_argument("--threads", type=at_least_one, default=2, help="of torch")
    share(parser, "device", device="cpu")
    parser.add_argument("--json", type=Path, help="file for all numbers, every repeat")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> int:
    """Measure, print the tables, and write the files, anew after each row."""
    import torch

    from rfclip.cost.bench import FULL, QUICK
    from rfclip.cost.report import Report
    from rfclip.cost.run import measure, row_names

    if args.methods:
        return beside_plain(args)
    names = row_names(args.rows)
    torch.set_num_threads(args.threads)
    report = Report((QUICK if args.quick else FULL).name, args.quick, args.repeats)
    for done in measure(report, names, args.device, lambda: sample_in(SAMPLE, say=note)):
        note(f"measured: {done}")
        report.note_load()
        save(report, args.json, args.markdown)
    print(report.as_markdown())
    return 0


def beside_plain(args: argparse.Namespace) -> int:
    """Measure the methods that are asked for, and print and write their table."""
    import torch

    from rfclip.cost import methods
    from rfclip.cost.bench import FULL, QUICK, Bench
    from rfclip.cost.report import Report
    from rfclip.runs.compare.rows import ALL, chosen_methods

    if args.rows:
        raise ValueError("--methods has rows of its own: leave --rows out")
    torch.set_num_threads(args.threads)
    scale = QUICK if args.quick else FULL
    names = chosen_methods([ALL]) if args.methods == ALL else list(filter(None, words(args.methods)))
    costs = methods.measure(names, Bench.build(scale, args.device), args.size, args.repeats)
    report = Report(scale.name, args.quick, args.repeats)
    report.note_load()
    report.methods = costs
    save(report, args.json, args.markdown)
    print(report.as_markdown())
    return 0


def size(text: str) -> tuple[int, int]:
    """'336x448' -> (336, 448), height and width in pixels."""
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give height and width in pixels, as in 336x448")
    return int(height), int(width)


def note(line: str) -> None:
    """Say on stderr how far it is."""
    print(line, file=sys.stderr, flush=True)


def save(report: Report, json_file: Path | None, markdown_file: Path | None) -> None:
    """Write what there is so far."""
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8")
    if markdown_file is not None:
        markdown_file.write_text(report.as_markdown(), encoding="utf-8")
