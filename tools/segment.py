"""Segment pictures with any words: python tools/segment.py IMAGE --classes "sky, temple|pagoda, tree"."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import _checkout  # noqa: F401  (finds this checkout, before mmseg)
from tqdm import tqdm

from rfclip.benchmarks.options import add_clip_options, method_block
from rfclip.io.fonts import printable
from rfclip.io.images import BANDS_HELP, SHORT_SIDE_HELP, parse_bands
from rfclip.segment.api import OpenVocabSegmenter
from rfclip.segment.files import Outcome, prepare_folder, segment_files
from rfclip.segment.find import find_pictures
from rfclip.segment.overlay import OPACITY
from rfclip.words.typed import choose_background, hint, read_classes, with_background

CLASSES = (
    'class names: commas part classes, | the names of one class, "\\," and "\\|" stand for the signs themselves; or a '
    "vocabulary file (.json, .txt), or the name of a shipped vocabulary, e.g. voc21"
)
BACKGROUND = (
    "what becomes of pixels that are none of the classes. none: every pixel gets a class. words: there is one more "
    "class, background, asked for by usual background words (wall, floor, sky, ...). auto (default): words if there is "
    "only one class, otherwise as the classes say. Or the background's own words, parted by commas"
)
BACKGROUND_CLASS = (
    "which of the classes is the background: one of its names, or its number, counted from 0; default: the class "
    "'background', if there is one"
)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Segment pictures with any words. Per picture NAME it writes NAME_labels.png (classes as palette "
        "indices), NAME_overlay.png (with a legend) and NAME.json (names, shares of the area, seconds, settings); of "
        "more than one picture, summary.csv with the shares of all."
    )
    parser.add_argument("sources", nargs="+", metavar="IMAGE|FOLDER|VIDEO", help="what to segment")
    parser.add_argument("--classes", required=True, help=CLASSES)
    parser.add_argument("--out", type=folder, default=Path("segmented"), help="folder of the results")
    parser.add_argument("--background", default="auto", metavar="auto|words|none|WORDS", help=BACKGROUND)
    parser.add_argument("--background-class", metavar="NAME|INDEX", help=BACKGROUND_CLASS)
    parser.add_argument("--threshold", type=float, help="probability below which a pixel is background (default 0.1)")
    parser.add_argument("--method", default="paper", help="paper, release, or a baseline, e.g. mean_kk, sclip")
    parser.add_argument("--pamr", action="store_true", help="refine edges with PAMR (slower)")
    parser.add_argument("--model", default="ViT-B-16", help="open_clip name, model-config JSON, 'auto' or 'tiny'")
    parser.add_argument("--pretrained", help="open_clip tag or weights file (default: openai)")
    add_clip_options(parser)
    parser.add_argument("--short-side", type=int, default=336, help=SHORT_SIDE_HELP)
    parser.add_argument("--bands", type=parse_bands, metavar="R,G,B", help=BANDS_HELP)
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    parser.add_argument("--device", help="e.g. cpu, cuda:1; default: a GPU if there is one")
    parser.add_argument("--opacity", type=float, default=OPACITY, help="of the overlay's colours, 0..1 (%(default)s)")
    parser.add_argument("--probs", action="store_true", help="also write NAME_probs.npz, (classes, H, W) float16")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of a video, take each N-th frame")
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    parsed = parser.parse_args(arguments)
    if parsed.every < 1:
        parser.error(f"--every is a whole number of at least 1, got {parsed.every}")
    if not 0 <= parsed.opacity <= 1:
        parser.error(f"--opacity is a share, 0..1, got {parsed.opacity}")
    return parsed


def folder(text: str) -> Path:
    """A folder's path; an empty one, of a variable that is not set, say, would be the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("give a folder; '.' is this one")
    return Path(text)


def segment(args: argparse.Namespace) -> Outcome:
    """Look for the pictures, build the model, segment."""
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
        refiner={"type": "PAMR"} if args.pamr else None,
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
    tqdm.write(f"warning: {printable(sentence)}", file=sys.stderr)


def main() -> int:
    """Exit status 0: all well; 1: something gave no result, or nothing ran."""
    args = parse()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # names may hold what a terminal's encoding lacks
    try:
        outcome = segment(args)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        if args.traceback:
            raise
        print(f"error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; what is finished is in {args.out}", file=sys.stderr)
        return 130
    print(f"{outcome.done} done, {len(outcome.problems)} without a result; results in {printable(str(args.out))}")
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
