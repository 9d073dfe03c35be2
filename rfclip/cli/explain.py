"""rfclip explain IMAGE... --classes "sky, temple|pagoda, tree": show what the method does with pictures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfclip.cli.arguments import share, share_clip, words

if TYPE_CHECKING:
    from rfclip.segment.files import Outcome
    from rfclip.segment.find import Picture
    from rfclip.words.vocabulary import Vocabulary

PLOTS = {
    "labels": "Labels without and with the method",
    "attention": "Where one patch looks, layer by layer",
    "stripes": "Attention received, layer by layer",
    "matrix": "The attention matrix of one layer",
    "distraction": "Which patches are distraction tokens",
    "partition": "Who gives and who receives",
    "budget": "How much attention is moved",
    "similarity": "Similarity with each class",
    "vision": "What the vision model takes for the same thing",
}  # the titles of rfclip.explain.figures.PLOTS, which are not at hand without matplotlib


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser.description = (
        "Show what a method does with pictures: per picture NAME a page NAME.html, in which patches can be clicked, "
        "and a NAME_PLOT.png for each plot (of the plot labels: NAME_labels_compared.png)."
    )
    parser.epilog = "Plots: " + "; ".join(f"{name}: {title.lower()}" for name, title in PLOTS.items()) + "."
    parser.add_argument("sources", nargs="+", metavar="IMAGE|FOLDER", help="what to explain")
    share(parser, "classes", "out", out=Path("explained"))
    parser.add_argument("--point", type=point, metavar="X,Y", help="pixel of the original picture; default its middle")
    parser.add_argument("--layers", type=numbers, metavar="L,L", help="0-based layers; default all, twelve at most")
    parser.add_argument("--plots", type=words, metavar="P,P", help="names of plots; default all")
    share(parser, "method", method="paper")
    parser.add_argument("--without", default="mean_kk", help="method of the labels to compare with")
    share_clip(parser, "ViT-B-16", "=openai")
    share(parser, "short_side", "bands", "device", short_side=336, device="=a GPU if there is one")
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


def explain_all(args: argparse.Namespace) -> Outcome:
    """Explain each picture; one that cannot be explained does not stop the others."""
    from rfclip.explain.figures import choose
    from rfclip.io.fonts import printable
    from rfclip.segment.files import Outcome
    from rfclip.segment.find import find_pictures
    from rfclip.words.typed import read_classes

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
    from rfclip.benchmarks.configs import method_block
    from rfclip.clip.towers import num_layers
    from rfclip.explain.explanation import shown_layers
    from rfclip.segment.api import OpenVocabSegmenter

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
    from rfclip.explain.figures import absent
    from rfclip.explain.report import explain
    from rfclip.io.images import cut_clause, resized_size, sentence
    from rfclip.segment.find import read_frames

    if picture.is_video:
        raise ValueError(f"{picture.path} is a video, and pictures are explained: save one of its frames")
    frame = next(read_frames(picture, bands=bands))
    short_side = settings["segmenter"].short_side
    cut = cut_clause(resized_size(frame.image.shape[:2], short_side), short_side)
    note = sentence(str(picture.path), [*frame.notes, *filter(None, [cut])])
    seen = explain(frame.image, vocabulary, target.parent, name=target.name, note=note, source=picture.path, **settings)
    asked = [name for name in absent(seen) if name in (settings["plots"] or ())]
    if asked:
        note = f"{note + '; ' if note else ''}{seen.methods[1]} has nothing to show in the plot {', '.join(asked)}"
    return [f"{target}.html", *filter(None, [note])]


def warn(sentence: str) -> None:
    """Report a problem."""
    from rfclip.io.fonts import printable

    print(f"warning: {printable(' '.join(sentence.split()))}", file=sys.stderr)


def run(args: argparse.Namespace) -> int:
    """Exit status 0: all well; 1: a picture was not explained, or nothing ran."""
    from rfclip.io.fonts import printable

    outcome = explain_all(args)
    print(f"{outcome.done} done, {len(outcome.problems)} without a result; results in {printable(str(args.out))}")
    return 1 if outcome.problems else 0
