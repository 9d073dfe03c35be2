"""rfclip test CONFIG [CHECKPOINT]: run a benchmark."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rfclip.cli.arguments import PROTOCOL, share, share_clip
from rfclip.cli.processes import options_of


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser.description = "Run a benchmark and write WORK_DIR/<benchmark>/results.json."
    parser.add_argument(
        "config", type=Path, metavar="CONFIG", help="config file, e.g. configs/rfclip/rfclip_vit-b16_voc21.py"
    )
    parser.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help="as --pretrained")
    share(parser, "work_dir", work_dir=Path("work_dirs"))
    parser.add_argument("--out", metavar="FOLDER", help="of the predicted label maps (PNG)")
    parser.add_argument("--show-dir", metavar="FOLDER", help="of painted images")
    parser.add_argument(
        "--cfg-options", nargs="+", action="extend", type=entry, default=[], metavar="KEY=VALUE", help="config entries"
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none", help="of processes")
    share(
        parser,
        "method",
        "protocol",
        "refiner",
        "pamr",
        method="=the config's",
        protocol=PROTOCOL,
        refiner="=the config's",
    )
    share_clip(parser, "=the config's", "=the config's")
    share(parser, "data_root", "resume")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.checkpoint is not None and args.pretrained not in (None, args.checkpoint):
        parser.error(f"CHECKPOINT is {args.checkpoint} and --pretrained {args.pretrained}: give one of them")
    args.pretrained = args.pretrained if args.checkpoint is None else args.checkpoint
    return args


def entry(text: str) -> str:
    """'key=value', or an error."""
    if not text.partition("=")[0] or "=" not in text:
        raise argparse.ArgumentTypeError(f"give KEY=VALUE, got {text!r}")
    return text


def run(args: argparse.Namespace) -> int:
    """Run, and say the means."""
    from mmengine.config import DictAction

    from rfclip.runs.run import run as run_benchmark

    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    read = argparse.Namespace()
    DictAction([], "cfg_options")(argparse.ArgumentParser(), read, args.cfg_options)  # mmengine knows kinds of values
    names = ("refiner", "work_dir", "out", "show_dir", "launcher", "resume", "protocol")
    more = {name: getattr(args, name) for name in names}
    results = run_benchmark(options_of(args, args.config, profile=args.method, cfg_options=read.cfg_options, **more))
    if results:
        print(f"done: {outcome(results)}; see results.json in {args.work_dir}", file=sys.stderr)
    return 0


def outcome(results: Mapping[str, Any]) -> str:
    """The means, in percent."""
    known = {name: value for name, value in results["metrics"].items() if value is not None}
    return ", ".join(f"{name} {value:.2f}" for name, value in known.items()) or "no scores, because nothing is labelled"
