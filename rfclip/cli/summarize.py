"""rfclip summarize WORK_DIR: rebuild the table of a work dir from its results."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser.description = (
        "One table of all <benchmark>/results.json in a work dir; writes summary.json, .csv and .md there."
    )
    parser.add_argument("work_dir", type=Path, metavar="WORK_DIR", help="with <benchmark>/results.json in it")
    parser.add_argument("--mixed", action="store_true", help="allow several protocols, marked row by row")
    parser.add_argument(
        "--as-expected",
        type=float,
        metavar="TOLERANCE",
        help="print these results as an entry of rfclip/data/expected.json instead",
    )
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> int:
    """Print the table and write it beside the results."""
    from rfclip.runs.reference import entry
    from rfclip.runs.summary import as_text, read_results, table, write

    results = read_results(args.work_dir)
    rows = table(results, args.mixed)
    if args.as_expected is not None:
        print(json.dumps(entry(results, args.as_expected)))
        return 0
    write(args.work_dir, rows)
    print(as_text(rows))
    return 0
