"""Run a benchmark: python tools/test.py CONFIG [CHECKPOINT] [options]."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _checkout  # noqa: F401  (finds this checkout, before mmseg)
from mmengine.config import DictAction

from rfclip.benchmarks.options import Options, add_clip_options
from rfclip.runs.run import UserError, run


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run a benchmark and write its results.json.")
    parser.add_argument("config", type=Path, help="config file, e.g. configs/rfclip/rfclip_vit-b16_voc21.py")
    parser.add_argument("checkpoint", nargs="?", help="CLIP weights: an open_clip tag or a local file")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs"), help="results go to WORK_DIR/<benchmark>")
    parser.add_argument("--out", help="folder for the predicted label maps (PNG)")
    parser.add_argument("--show-dir", help="folder for painted images")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={}, help="config entries, key=value")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--profile", help="paper, release, or a baseline (see configs/_base_/profiles)")
    parser.add_argument("--pamr", action="store_true", help="refine with PAMR")
    parser.add_argument("--model", help="open_clip name, model-config JSON, 'auto' or 'tiny'")
    add_clip_options(parser)
    parser.add_argument("--data-root", help="folder that stands for the configs' data/")
    parser.add_argument("--resume", action="store_true", help="keep the images that an interrupted run finished")
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Run; an error that the user can put right is one sentence and exit status 1."""
    arguments = vars(parse())
    show_traceback = arguments.pop("traceback")
    os.environ.setdefault("LOCAL_RANK", str(arguments.pop("local_rank")))
    try:
        results = run(Options(**arguments))
    except UserError as error:
        if show_traceback:
            raise
        sys.exit(f"error: {error}")
    if results:
        print(f"done: {outcome(results)}; see results.json in {arguments['work_dir']}", file=sys.stderr)


def outcome(results: Mapping[str, Any]) -> str:
    """The means, in percent."""
    known = {name: value for name, value in results["metrics"].items() if value is not None}
    return ", ".join(f"{name} {value:.2f}" for name, value in known.items()) or "no scores, because nothing is labelled"


if __name__ == "__main__":
    main()
