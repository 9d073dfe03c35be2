"""Show what the method does with pictures: python tools/explain.py IMAGE... --classes "sky, temple|pagoda, tree"."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _checkout  # noqa: F401  (finds this checkout, before mmseg)

from rfclip.benchmarks.options import add_clip_options, method_block
from rfclip.clip.towers import num_layers
from rfclip.explain.explanation import shown_layers
from rfclip.explain.figures import PLOTS, choose
from rfclip.explain.report import explain
from rfclip.io.fonts import printable
from rfclip.io.images import BANDS_HELP, SHORT_SIDE_HELP, cut_clause, parse_bands, resized_size, sentence
from rfclip.segment.api import OpenVocabSegmenter
from rfclip.segment.files import Outcome
from rfclip.segment.find import Picture, find_pictures, read_frames
from rfclip.words.typed import read_classes
from rfclip.words.vocabulary import Vocabulary


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Show what a method does with pictures: per picture NAME a page NAME.html, in which patches can be "
        "clicked, and a NAME_PLOT.png for each plot (of the plot labels: NAME_labels_compared.png).",
        epilog="Plots: " + "; ".join(f"{name}: {plot.title.lower()}" for name, plot in PLOTS.items()) + ".",
    )
    parser.add_argument("sources", nargs="+", metavar="IMAGE|FOLDER", help="what to explain")
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
    add_clip_options(parser)
    parser.add_argument("--short-side", type=int, default=336, help=SHORT_SIDE_HELP)
    parser.add_argument("--bands", type=parse_bands, metavar="R,G,B", help=BANDS_HELP)
    parser.add_argument("--device", help="e.g. cpu, cuda:1; default: a GPU if there is one")
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    return parser.parse_args(arguments)


def point(text: str) -> tuple[float, float]:
    """'120,80' -> (120.0, 80.0)."""
    try:
        x, y = map(float, text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no point: give X,Y in pixels, such as 120,80") from error
    return x, y


def numbers(text: str) -> list[int]:
    """'0,3' -> [0, 3]."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} are no layers: give whole numbers from 0 on, as in 0,3") from error


def words(text: str) -> list[str]:
    """'stripes, labels' -> ['stripes', 'labels']."""
    return [part.strip() for part in text.split(",")]


def run(args: argparse.Namespace) -> Outcome:
    """Explain each picture; one that cannot be explained does not stop the others."""
    choose(args.plots)
    vocabulary = read_classes(args.classes)
    pictures, problems, notes = find_pictures(args.sources, args.out)
    for line in (*notes, *problems):
        warn(line)
    if not pictures:
        return Outcome(0, tuple(problems))
    settings = settings_of(args, vocabulary)
    if settings["segmenter"].loaded.note is not None:
        print(settings["segmenter"].loaded.note)
    done = 0
    for picture in pictures:
        try:
            for line in explain_one(picture, vocabulary, args.out / picture.name, settings, args.bands):
                print(printable(line))
            done += 1
        except (FileNotFoundError, ValueError, MemoryError) as error:
            path, why = str(picture.path), str(error) or "not enough memory for it; make a smaller copy"
            problems.append(why if path in why else f"{path}: {why}")
            warn(problems[-1])
    return Outcome(done, tuple(problems))


def settings_of(args: argparse.Namespace, vocabulary: Vocabulary) -> dict[str, Any]:
    """What `explain` is told of all pictures; what cannot be used is found here, before the first of them."""
    segmenter = OpenVocabSegmenter(
        args.model,
        args.pretrained or "openai",
        args.device,
        method=method_block(args.method),
        short_side=args.short_side,
        quick_gelu=args.quick_gelu,
        origin=args.origin,
    )
    segmenter.prepare(vocabulary)
    return {
        "segmenter": segmenter,
        "baseline": method_block(args.without),
        "point": args.point,
        "layers": shown_layers(args.layers, num_layers(segmenter.loaded.model.visual)),
        "plots": args.plots,
    }


def explain_one(
    picture: Picture, vocabulary: Vocabulary, target: Path, settings: dict[str, Any], bands: Sequence[int] | None = None
) -> list[str]:
    """Explain a picture; `target` is its page without the ending. Returns the lines that report it."""
    if picture.is_video:
        raise ValueError(f"{picture.path} is a video, and pictures are explained: save one of its frames")
    frame = next(read_frames(picture, bands=bands))
    short_side = settings["segmenter"].short_side
    cut = cut_clause(resized_size(frame.image.shape[:2], short_side), short_side)
    note = sentence(str(picture.path), [*frame.notes, *filter(None, [cut])])
    explain(frame.image, vocabulary, target.parent, name=target.name, note=note, **settings)
    return [f"{target}.html", *filter(None, [note])]


def warn(sentence: str) -> None:
    """Report a problem."""
    print(f"warning: {printable(' '.join(sentence.split()))}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0: all well; 1: a picture was not explained, or nothing ran."""
    args = parse(arguments)
    try:
        outcome = run(args)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        if args.traceback:
            raise
        print(f"error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 1
    print(f"{outcome.done} done, {len(outcome.problems)} without a result; results in {printable(str(args.out))}")
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
