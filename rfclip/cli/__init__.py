"""The command: `rfclip VERB`, or `python -m rfclip VERB`; a module per verb.

A verb's module has `parse(parser, arguments)`, which adds its options and reads them, and `run(args)`, which works and
returns the exit status. Options that several verbs have stand in rfclip.cli.arguments. No module in here imports
anything heavy at its top, and what a verb works with is imported inside the functions that use it.

Exit status: 0 done; 1 the work failed or found something wrong; 2 the command line was wrong; 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import io
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from types import ModuleType

import rfclip
from rfclip.cli.arguments import Help, add_common
from rfclip.cli.errors import blame, import_users, users_error
from rfclip.plugin.compat import UnusableMmcvError

VERBS = {
    "segment": "segment pictures, folders and videos with any words",
    "explain": "show what a method does with pictures",
    "demo": "segment in the browser, on this machine",
    "test": "run a benchmark from its config",
    "eval-all": "run the eight benchmarks, end with one table",
    "compare": "put methods beside each other under one protocol",
    "summarize": "rebuild the table of a work dir",
    "check-data": "check a benchmark's files",
    "prepare": "put a data set on disk: the sample, COCO-Object, ...",
    "calibrate": "find the distraction dimensions of a CLIP",
    "analyze": "measure the paper's tables and observations",
    "audit": "what class names do to a benchmark's score",
    "cost": "time, memory and arithmetic of the method",
    "info": "versions, devices, and what ships with the package",
}
UNREGISTERED = ("prepare", "info")  # they need nothing of mmseg, but for the sample
WITHOUT_MMSEG = ("segment", "explain", "demo", "calibrate")  # they work where no mmcv is, or one that mmseg refuses


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `rfclip VERB ...`; returns the exit status."""
    verb, args = parse(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names may hold what a terminal's encoding lacks
    try:
        if args.verb not in UNREGISTERED:
            _register(args.verb)
        for module in args.imports:
            import_users(module)
        return verb.run(args)
    except KeyboardInterrupt:
        folder = getattr(args, "out", None) or getattr(args, "work_dir", None)
        print("interrupted" + (f"; what is finished is in {folder}" if folder else ""), file=sys.stderr)
        return 130
    except Exception as error:  # the one place where all errors arrive: what is not the user's is shown whole
        if args.traceback:
            raise
        sentence = users_error(error)
        if sentence is None:
            traceback.print_exception(error)
            sentence = blame(error, args.imports)
        print(f"error: {sentence}", file=sys.stderr)
        return 1


def _register(verb: str) -> None:
    try:
        rfclip.register()
    except UnusableMmcvError as error:
        if verb not in WITHOUT_MMSEG:
            raise
        print(f"warning: {error}", file=sys.stderr)


def parse(arguments: Sequence[str]) -> tuple[ModuleType, argparse.Namespace]:
    """The verb's module and its options.

    Raises:
        SystemExit: With status 2, the command line is wrong; with status 0, it asked for help or the version.
    """
    verb, *rest = arguments or ["--help"]
    if verb not in VERBS:
        _outer(verb)
    module = importlib.import_module(f"rfclip.cli.{verb.replace('-', '_')}")
    parser = argparse.ArgumentParser(prog=f"rfclip {verb}", formatter_class=Help)
    add_common(parser)
    parser.set_defaults(verb=verb)
    return module, module.parse(parser, rest)


def _outer(argument: str) -> None:
    """Answer what comes before any verb: help, version, or a verb that there is not."""
    parser = argparse.ArgumentParser(
        prog="rfclip",
        usage="rfclip VERB ...",
        description="Training-free open-vocabulary segmentation. Verbs (rfclip VERB --help says more):\n\n"
        + "\n".join(f"  {verb:12}{what}" for verb, what in VERBS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=rfclip.__version__)
    parser.parse_known_args([argument])
    near = get_close_matches(argument, VERBS, n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    parser.error(f"no verb {argument!r}{meant}; there are {', '.join(VERBS)}")
