"""Show what the method does with pictures: python tools/explain.py IMAGE... --classes "sky, temple|pagoda, tree"."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import _checkout  # noqa: F401

import rfclip  # noqa: F401  (before anything of mmseg)
from rfclip.api import OpenVocabSegmenter
from rfclip.explain.figures import PLOTS, choose
from rfclip.explain.report import explain
from rfclip.run_options import method_block
from rfclip.words import read_classes


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Show what a method does with pictures: per picture NAME a page NAME.html, in which patches can be "
        "clicked, and a NAME_PLOT.png for each plot.",
        epilog="Plots: " + "; ".join(f"{name}: {plot.title.lower()}" for name, plot in PLOTS.items()) + ".",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="picture files")
    parser.add_argument(
        "--classes", required=True, help='as in tools/segment.py: "sky, temple|pagoda", a vocabulary, or its file'
    )
    parser.add_argument("--out", type=Path, default=Path("explained"), help="folder of the results")
    parser.add_argument("--point", type=point, metavar="X,Y", help="pixel of the original picture; default its middle")
    parser.add_argument("--layers", type=numbers, metavar="L,L", help="0-based layers; default all, twelve at most")
    parser.add_argument("--plots", type=words, metavar="P,P", help="names of plots; default all")
    parser.add_argument("--method", default="paper", help="paper, release, or a baseline, e.g. mean_kk, sclip")
    parser.add_argument("--without", default="mean_kk", help="method of the labels to compare with")
    parser.add_argument("--model", default="ViT-B-16", help="open_clip name, model-config JSON, 'auto' or 'tiny'")
    parser.add_argument("--pretrained", help="open_clip tag or weights file (default: openai)")
    parser.add_argument("--short-side", type=int, default=336, help="pixels that the network sees of the short side")
    parser.add_argument("--device", help="e.g. cpu, cuda:1; default: a GPU if there is one")
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    return parser.parse_args(arguments)


def point(text: str) -> tuple[float, float]:
    """'120,80' -> (120.0, 80.0)."""
    x, y = text.split(",")
    return float(x), float(y)


def numbers(text: str) -> list[int]:
    """'0,3' -> [0, 3]."""
    return [int(part) for part in text.split(",")]


def words(text: str) -> list[str]:
    """'stripes, labels' -> ['stripes', 'labels']."""
    return [part.strip() for part in text.split(",")]


def run(args: argparse.Namespace) -> None:
    """Explain each picture."""
    choose(args.plots)
    vocabulary = read_classes(args.classes)
    segmenter = OpenVocabSegmenter(
        args.model,
        args.pretrained or "openai",
        args.device,
        method=method_block(args.method),
        short_side=args.short_side,
    )
    stems = Counter(Path(image).stem for image in args.images)
    for image in args.images:
        path = Path(image)
        name = path.stem if stems[path.stem] == 1 else path.name.replace(".", "_")
        explain(
            path,
            vocabulary,
            args.out,
            segmenter=segmenter,
            baseline=method_block(args.without),
            point=args.point,
            layers=args.layers,
            plots=args.plots,
            name=name,
        )
        print(args.out / f"{name}.html")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one sentence."""
    args = parse(arguments)
    try:
        run(args)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        if args.traceback:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
