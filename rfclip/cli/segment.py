"""rfclip segment IMAGE --classes "sky, temple|pagoda, tree": segment pictures with any words."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rfclip.cli.arguments import share, share_clip

if TYPE_CHECKING:
    from rfclip.segment.files import Outcome

BACKGROUND = (
    "what becomes of pixels that are none of the classes. none: every pixel gets a class. words: there is one more "
    "class, background, asked for by usual background words (wall, floor, sky, ...). auto (default): words if there is "
    "only one class, otherwise as the classes say. Or the background's own words, parted by commas"
)
BACKGROUND_CLASS = (
    "which of the classes is the background: one of its names, or its number, counted from 0; default: the class "
    "'background', if there is one"
)


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser.description = (
        "Segment pictures with any words. Per picture NAME it writes NAME_labels.png (classes as palette "
        "indices), NAME_overlay.png (with a legend) and NAME.json (names, shares of the area, seconds, settings); of "
        "more than one picture, summary.csv with the shares of all."
    )
    parser.add_argument("sources", nargs="+", metavar="IMAGE|FOLDER|VIDEO", help="what to segment")
    share(parser, "classes", "out", out=Path("segmented"))
    parser.add_argument("--background", default="auto", metavar="auto|words|none|WORDS", help=BACKGROUND)
    parser.add_argument("--background-class", metavar="NAME|INDEX", help=BACKGROUND_CLASS)
    parser.add_argument("--threshold", type=float, help="probability below which a pixel is background (default 0.1)")
    share(parser, "method", "refiner", "pamr", method="paper", refiner="none")
    share_clip(parser, "ViT-B-16", "=openai")
    share(parser, "short_side", "bands", "device", short_side=336, device="=a GPU if there is one")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32", help="of the image tower")
    parser.add_argument("--opacity", type=float, default=0.55, help="of the overlay's colours, 0..1")
    parser.add_argument("--probs", action="store_true", help="also write NAME_probs.npz, (classes, H, W) float16")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of a video, take each N-th frame")
    parsed = parser.parse_args(arguments)
    if parsed.every < 1:
        parser.error(f"--every is a whole number of at least 1, got {parsed.every}")
    if not 0 <= parsed.opacity <= 1:
        parser.error(f"--opacity is a share, 0..1, got {parsed.opacity}")
    return parsed


def segment(args: argparse.Namespace) -> Outcome:
    """Look for the pictures, build the model, segment."""
    from rfclip.benchmarks.configs import method_block, refiner_block
    from rfclip.segment.api import OpenVocabSegmenter
    from rfclip.segment.files import Outcome, prepare_folder, segment_files
    from rfclip.segment.find import find_pictures
    from rfclip.words.typed import choose_background, hint, read_classes, with_background

    named = read_classes(args.classes)
    if args.background_class is not None:
        if args.background == "none":
            raise ValueError("--background none and --background-class contradict each other: leave one of them out")
        named = choose_background(named, args.background_class)
    vocabulary = with_background(named, args.background)
    has_background = vocabulary.has_background and args.background != "none"
    if args.threshold and not has_background:
        raise ValueError(
            "--threshold needs a background: add --background words, or say by --background-class which class it is"
        )
    pictures, problems, notes = find_pictures(args.sources, args.out)
    for sentence in filter(None, [hint(args.classes, named), *notes, *problems]):
        warn(sentence)
    if not pictures:
        return Outcome(0, tuple(problems))
    prepare_folder(args.out)
    threshold = 0.1 if args.threshold is None else args.threshold
    segmenter = OpenVocabSegmenter(
        args.model,
        args.pretrained or "openai",
        args.device,
        method=method_block(args.method),
        short_side=args.short_side,
        refiner=refiner_block(args.refiner),
        prob_thd=threshold if has_background else 0.0,
        background_index=vocabulary.background if has_background else None,
        precision=args.precision,
        keep_probs=args.probs,
        quick_gelu=args.quick_gelu,
        origin=args.origin,
    )
    outcome = segment_files(
        segmenter,
        vocabulary,
        pictures,
        args.out,
        probs=args.probs,
        every=args.every,
        bands=args.bands,
        opacity=args.opacity,
        settings={"classes": args.classes, "background": args.background, "bands": args.bands},
        warn=warn,
    )
    return Outcome(outcome.done, (*problems, *outcome.problems))


def warn(sentence: str) -> None:
    """Report a problem without tearing the progress bar."""
    from tqdm import tqdm

    from rfclip.io.fonts import printable

    tqdm.write(f"warning: {printable(sentence)}", file=sys.stderr)


def run(args: argparse.Namespace) -> int:
    """Exit status 0: all well; 1: something gave no result, or nothing ran."""
    from rfclip.io.fonts import printable

    outcome = segment(args)
    print(f"{outcome.done} done, {len(outcome.problems)} without a result; results in {printable(str(args.out))}")
    return 1 if outcome.problems else 0
