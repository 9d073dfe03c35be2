"""Rebuild the table of a work dir from its results: python tools/summarize.py WORK_DIR [--mixed]."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import _checkout  # noqa: F401  (finds this checkout, before mmseg)

from rfclip.runs.reference import entry
from rfclip.runs.summary import as_text, read_results, table, write


def main() -> None:
    """Print the table and write summary.json, summary.csv and summary.md beside the results."""
    parser = argparse.ArgumentParser(description="One table of all <benchmark>/results.json in a work dir.")
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--mixed", action="store_true", help="allow several protocols, marked row by row")
    parser.add_argument(
        "--as-expected",
        type=float,
        metavar="TOLERANCE",
        help="print these results as an entry of rfclip/data/expected.json instead",
    )
    arguments = parser.parse_args()
    try:
        results = read_results(arguments.work_dir)
        rows = table(results, arguments.mixed)
        if arguments.as_expected is not None:
            print(json.dumps(entry(results, arguments.as_expected)))
            return
        write(arguments.work_dir, rows)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(as_text(rows))


if __name__ == "__main__":
    main()
