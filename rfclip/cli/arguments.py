"""The options that several verbs have: one spelling, one meaning and one text of help each, defaults in the help."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rfclip.benchmarks.configs import BENCHMARKS

SAMPLE = Path("data/sample")


class Help(argparse.HelpFormatter):
    """Says the default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        silent = action.default in (None, False, [], argparse.SUPPRESS) or not action.option_strings
        if silent or "default" in text:
            return text
        default = ",".join(action.default) if isinstance(action.default, list) else "%(default)s"
        return f"{text} (default: {default})"


def folder(text: str) -> Path:
    """A folder's path; an empty one, of a variable that is not set, say, would be the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("give a folder; '.' is this one")
    return Path(text)


def at_least_one(text: str) -> int:
    """'3' -> 3."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"give a whole number of at least 1, got {text!r}")
    return number


def yes_or_no(text: str) -> bool:
    """'yes' -> True."""
    if text not in ("yes", "no"):
        raise argparse.ArgumentTypeError(f"give yes or no, got {text!r}")
    return text == "yes"


def words(text: str) -> list[str]:
    """'stripes, labels' -> ['stripes', 'labels']."""
    return [part.strip() for part in text.split(",")]


def benchmarks(text: str) -> list[str]:
    """'voc21,ade20k' -> ['voc21', 'ade20k']; 'all' -> all benchmarks."""
    return list(BENCHMARKS) if text == "all" else words(text)


def bands(text: str) -> tuple[int, ...]:
    """'3,2,1' -> (3, 2, 1)."""
    try:
        numbers = tuple(map(int, text.split(",")))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3) or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} are no bands: give three from 1 on, as in 3,2,1, or one")
    return numbers


_SHARED: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "model": (("--model",), {"help": "CLIP: open_clip name, model-config JSON, 'auto' or 'tiny'"}),
    "pretrained": (
        ("--pretrained", "--checkpoint"),
        {"metavar": "TAG|FILE", "help": "weights of the CLIP: an open_clip tag or a local file"},
    ),
    "quick_gelu": (
        ("--quick-gelu",),
        {"type": yes_or_no, "metavar": "yes|no", "help": "the activation, where a file of weights is silent"},
    ),
    "origin": (("--origin",), {"help": "who trained the weights of a file, e.g. openai"}),
    "method": (
        ("--method", "--profile"),
        {"help": "paper, release, a baseline (mean_kk, sclip, ...), another method (sc_clip, sfp, ...) or its class"},
    ),
    "protocol": (
        ("--protocol",),
        {
            "choices": ("published", "shared"),
            "help": "published: the thresholds, sizes, windows, names, weights and refiner with which the method was "
            "published, where it has some of its own; shared: the benchmark's config, in which the method alone is "
            "exchanged; other options win over both",
        },
    ),
    "refiner": (
        ("--refiner",),
        {"metavar": "NAME", "help": "of the logits: none, pamr or text_laplacian (slower), or a registered class"},
    ),
    "pamr": (
        ("--pamr",),
        {"action": "store_const", "dest": "refiner", "const": "pamr", "help": "the same as --refiner pamr"},
    ),
    "device": (("--device",), {"help": "e.g. cpu, cuda:1"}),
    "classes": (
        ("--classes",),
        {
            "required": True,
            "help": 'class names: commas part classes, | the names of one class, "\\," and "\\|" stand for the signs '
            "themselves; or a vocabulary file (.json, .txt), or the name of a shipped vocabulary, e.g. voc21",
        },
    ),
    "short_side": (
        ("--short-side",),
        {
            "type": at_least_one,
            "metavar": "PIXELS",
            "help": "to which the short side is resized for the network; less where the long side would become longer "
            "than 2048, which is said",
        },
    ),
    "bands": (
        ("--bands",),
        {
            "type": bands,
            "metavar": "R,G,B",
            "help": "which bands of the file, counted from 1, are red, green and blue, as in 3,2,1; or one, to be "
            "shown as grey; transparency is then left out (default: the first three)",
        },
    ),
    "sample": (("--sample",), {"action": "store_true", "help": "the generated miniature benchmarks, the tiny CLIP"}),
    "data_root": (
        ("--data-root",),
        {"metavar": "FOLDER", "help": f"stands for the configs' data/ (default: data; with --sample {SAMPLE})"},
    ),
    "work_dir": (
        ("--work-dir",),
        {"type": folder, "metavar": "FOLDER", "help": "of the results, a folder in it for each benchmark"},
    ),
    "out": (("--out",), {"type": folder, "metavar": "FOLDER", "help": "of what is written"}),
    "resume": (("--resume",), {"action": "store_true", "help": "keep what is finished and unchanged"}),
    "limit": (("--limit",), {"type": at_least_one, "metavar": "N", "help": "take only the first N images"}),
}
PROTOCOL = "=published with a method that has some for the benchmark, else shared"
CLIP = ("model", "pretrained", "quick_gelu", "origin")


def share(parser: argparse.ArgumentParser, *names: str, also: Sequence[str] = (), **defaults: Any) -> None:
    """Add shared options to a verb's parser.

    Args:
        parser: Is changed.
        names: Of :data:`_SHARED`.
        also: More spellings, of all of `names`.
        defaults: By name, where there is one. A default that starts with '=' is none: it says in words what happens
            without the option.
    """
    for name in names:
        flags, settings = _SHARED[name]
        default = defaults.get(name)
        if isinstance(default, str) and default.startswith("="):
            settings = {**settings, "help": f"{settings['help']} (default: {default[1:]})"}
            default = None
        extra = {} if settings.get("action") else {"default": default}
        parser.add_argument(*flags, *also, **{**settings, **extra})


def share_clip(parser: argparse.ArgumentParser, model: str, pretrained: str) -> None:
    """Add the four options that say which CLIP."""
    share(parser, *CLIP, model=model, pretrained=pretrained)


def add_common(parser: argparse.ArgumentParser, **default: Any) -> None:
    """Add what every verb has."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        metavar="MODULE",
        help="import a module of yours, or its .py file, that registers methods, say; repeatable",
        **{"default": [], **default},
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from", **default)


def with_sample(args: argparse.Namespace) -> argparse.Namespace:
    """Let `--sample` mean the tiny CLIP and the sample's folder, where no other is given."""
    if args.sample:
        args.model = args.model or ("tiny" if args.pretrained is None else None)
        args.data_root = args.data_root or str(SAMPLE)
    return args
