"""What verbs that run benchmarks share: the sample, and the command line of a run in a process of its own."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfclip.cli.arguments import SAMPLE

if TYPE_CHECKING:
    from rfclip.benchmarks.options import Options


def make_sample(args: argparse.Namespace) -> None:
    """With `--sample`, generate the miniature benchmarks if they are not there; another's folder is left alone."""
    if args.sample and (Path(args.data_root) == SAMPLE or not Path(args.data_root).exists()):
        sample_in(Path(args.data_root))


def sample_in(folder: Path, say: Callable[[str], object] = print) -> Path:
    """Generate the miniature benchmarks in a folder, unless they are there; returns the folder.

    Raises:
        FileExistsError: The folder holds something else.
    """
    from rfclip.benchmarks.prepare.sample import make_sample

    make_sample(folder, say=say)
    return folder


def options_of(args: argparse.Namespace, config: Path, **more: Any) -> Options:
    """What a run of a config is told by the options that verbs share (CLIP and data), and by `more`."""
    from rfclip.benchmarks.options import Options

    return Options(
        config,
        checkpoint=args.pretrained,
        model=args.model,
        data_root=args.data_root,
        quick_gelu=args.quick_gelu,
        origin=args.origin,
        **more,
    )


def command_of(options: Options, imports: Sequence[str], processes: int = 1) -> list[str]:
    """The command line of `rfclip test` for a process of its own, or for several that share the work."""
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    line = [*start, "rfclip", "test", str(options.config)]
    quick_gelu = {True: "yes", False: "no", None: None}[options.quick_gelu]
    settings = {
        "work-dir": options.work_dir,
        "model": options.model,
        "pretrained": options.checkpoint,
        "method": options.profile,
        "refiner": options.refiner,
        "protocol": options.protocol,
        "data-root": options.data_root,
        "quick-gelu": quick_gelu,
        "origin": options.origin,
    }
    line += [f"--{name}={value}" for name, value in settings.items() if value is not None]
    line += ["--resume"] if options.resume else []
    line += [f"--import={module}" for module in imports]
    line += ["--launcher=pytorch"] if processes > 1 else []
    if options.cfg_options:
        line += ["--cfg-options", *(f"{key}={value}" for key, value in options.cfg_options.items())]
    return line


def launch(line: Sequence[str], processes: int) -> int:
    """Run a verb under torch.distributed, in several processes; returns the exit status."""
    from rfclip.cost.memory import environment

    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    return subprocess.run([*start, "rfclip", *line], env=environment(), check=False).returncode


def sample_once(args: argparse.Namespace) -> None:
    """As :func:`make_sample`; of several processes one does, and the others wait for it."""
    from filelock import FileLock

    if args.sample:
        root = Path(args.data_root).absolute()
        root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(root.with_name(f".{root.name}.lock")):
            make_sample(args)


def is_first() -> bool:
    """Whether this is the process, of those that a launcher started, that speaks and writes."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"
