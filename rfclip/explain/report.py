"""Explain a picture: figures as PNGs and one HTML page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rfclip.explain.explanation import Explanation, examine
from rfclip.explain.figures import choose, draw, save_all
from rfclip.explain.page import build_page
from rfclip.io.atomic import write_whole
from rfclip.io.fonts import printable
from rfclip.io.images import ImageSource, sentence
from rfclip.methods.base import describe
from rfclip.segment.api import Names, OpenVocabSegmenter
from rfclip.segment.files import prepare_folder
from rfclip.segment.names import ENDINGS, free_name, known_as, mark_of
from rfclip.version import __version__


def explain(
    image: ImageSource,
    classes: Names,
    out: str | Path | None = None,
    *,
    segmenter: OpenVocabSegmenter | None = None,
    model: str = "ViT-B-16",
    pretrained: str | Path | None = "openai",
    method: Mapping[str, Any] | None = None,
    baseline: Mapping[str, Any] | None = None,
    point: tuple[float, float] | None = None,
    layers: Sequence[int] | None = None,
    plots: Sequence[str] | None = None,
    name: str | None = None,
    note: str | None = None,
    source: Path | None = None,
) -> Explanation:
    """Show what a method does with a picture.

    Args:
        image: a path, a PIL image or an (H, W, 3) uint8 RGB array.
        classes: class names, a list of aliases per class, a shipped vocabulary, its file, or a Vocabulary.
        out: folder for NAME.html and a NAME_PLOT.png per plot (NAME_labels_compared.png of the labels); None:
            nothing is drawn or written.
        segmenter: the model to explain, with its settings; None: one of `model`, `pretrained` and `method`.
        model, pretrained, method: as OpenVocabSegmenter takes them; not used with a `segmenter`.
        baseline: method block of the labels to compare with; None: MeanKK.
        point: (x, y) in pixels of the picture, whose patch the attention plot shows; None: the middle.
        layers: 0-based layers to show; None: all, twelve at most.
        plots: names of plots, see rfclip.explain.figures.PLOTS; None: all that the method has.
        name: beginning of the file names; files of such names are replaced. None: as the picture's file is called, or
            'image', with a number if a page or results of another picture have that name.
        note: what the page is to say of the picture, such as how it was read; None: what this reading says.
        source: the picture's file, where `image` is an array of it; None: the path that `image` is, if it is one.

    Returns:
        The arrays that the figures show.

    Raises:
        ValueError: no such plot or layer, or the point is not in the picture.
        FileNotFoundError: no such picture.
        OSError: nothing can be written to `out`.
    """
    choose(plots)
    segmenter = segmenter or OpenVocabSegmenter(model, pretrained, method=method)
    explanation = examine(segmenter, image, classes, point, layers, baseline)
    if out is not None:
        if source is not None:
            explanation = dataclasses.replace(explanation, source=source)
        folder = Path(out)
        stem = name or free_name(folder, explanation.source, known_as(explanation.source, explanation.image, folder))
        write(explanation, folder, stem, facts_of(segmenter, explanation, note), plots)
    return explanation


def write(
    explanation: Explanation,
    folder: Path,
    stem: str,
    facts: Mapping[str, str],
    plots: Sequence[str] | None = None,
) -> list[Path]:
    """Write STEM.html and STEM_PLOT.png for each plot into a folder; returns the paths, the page first.

    A plot whose file would be called as one of segment.py's results has `_compared` added.
    """
    pictures = save_all(draw(explanation, plots))
    prepare_folder(folder)
    page = folder / f"{stem}.html"
    title = f"What {explanation.methods[1]} does with {printable(stem)}"
    source = known_as(explanation.source, explanation.image, folder)
    write_whole(page, build_page(explanation, pictures, title, facts, mark_of(source)))
    paths = [page]
    for plot, png in pictures.items():
        ending = f"_{plot}.png"
        paths.append(folder / f"{stem}{f'_{plot}_compared.png' if ending in ENDINGS else ending}")
        write_whole(paths[-1], png)
    return paths


def facts_of(segmenter: OpenVocabSegmenter, explanation: Explanation, note: str | None = None) -> dict[str, str]:
    """What the page says about how it was made; a note on the picture stands with that on the model."""
    described = describe(segmenter.method)
    settings = ", ".join(f"{key} = {value}" for key, value in described.items() if key != "type")
    loaded, (height, width) = segmenter.loaded, explanation.image.shape[:2]
    seen = f"{width} x {height} pixels, seen as {explanation.grid[1]} x {explanation.grid[0]} patches"
    facts = {
        "Model": f"{loaded.architecture}, weights of origin {loaded.origin or 'unknown'} ({loaded.weights_hash[:12]})",
        "Method": f"{explanation.methods[1]} ({settings})" if settings else explanation.methods[1],
        "Compared with": explanation.methods[0],
        "Picture": ", ".join(filter(None, [seen, explanation.padding])),
        "Made by": f"rfclip {__version__}",
    }
    if note is None:
        note = sentence("the picture" if explanation.source is None else explanation.source.name, explanation.notes)
    notes = " ".join(filter(None, [note, loaded.note]))
    return {"Note": notes, **facts} if notes else facts
