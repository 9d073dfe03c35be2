"""The figures of an explanation, by name: what each shows, in words, and how it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from rfclip.explain import plots, style
from rfclip.explain.explanation import Explanation

_MOST_CLASSES = 17  # maps of classes in one figure


@dataclass(frozen=True)
class Plot:
    """A figure that an explanation can have.

    Attributes:
        title: a few words.
        caption: a sentence or two for someone who does not know the method.
        draw: makes the figure.
    """

    title: str
    caption: str
    draw: Callable[[Explanation], Figure]


def choose(names: Sequence[str] | None) -> tuple[str, ...]:
    """Check names of plots; None: all.

    Raises:
        ValueError: there is no such plot.
    """
    unknown = [name for name in names or () if name not in PLOTS]
    if unknown:
        raise ValueError(f"no plot {unknown[0]!r}; there are {', '.join(PLOTS)}")
    return tuple(PLOTS) if names is None else tuple(dict.fromkeys(names))


def draw(explanation: Explanation, names: Sequence[str] | None = None) -> dict[str, Figure]:
    """Draw the plots of these names (None: all) but those that are :func:`absent`.

    Raises:
        ValueError: there is no such plot.
    """
    left_out = absent(explanation)
    return {name: PLOTS[name].draw(explanation) for name in choose(names) if name not in left_out}


def absent(explanation: Explanation) -> tuple[str, ...]:
    """The plots that the method has not: partition is of cuts, vision of vision models."""
    lacks = {"partition": explanation.defocus is None, "vision": explanation.vision is None}
    return tuple(name for name, lacking in lacks.items() if lacking)


def busiest_layer(explanation: Explanation) -> int:
    """Index, among the shown layers, of the one with the most attention on distractors; of equals, the last."""
    share = explanation.on_distractors()[0]
    return len(share) - 1 - int(np.argmax(share[::-1]))


def likeliest_classes(explanation: Explanation, most: int = _MOST_CLASSES) -> list[int]:
    """Classes to show: those with the highest cosines anywhere, in the order of the vocabulary."""
    best = explanation.similarity.reshape(len(explanation.names), -1).max(1)
    return sorted(np.argsort(-best, kind="stable")[:most].tolist())


def _attention(e: Explanation) -> Figure:
    index = e.point[0] * e.grid[1] + e.point[1]
    after = None if e.after is None else e.after[:, index]
    return plots.point_attention(e.before[:, index], after, e.grid, e.point, e.layers, e.seen)


def _stripes(e: Explanation) -> Figure:
    return plots.stripes(*e.received(), e.distractors, e.layers)


def _matrix(e: Explanation) -> Figure:
    index = busiest_layer(e)
    after = None if e.after is None else e.after[index]
    return plots.attention_matrix(e.before[index], after, e.distractors[index], e.layers[index])


def _distraction(e: Explanation) -> Figure:
    names = [f"into {name}" for name in style.layer_names(e.layers)]
    return plots.distraction_maps(e.ratio, e.grid, [*names, "at the end"])


def _partition(e: Explanation) -> Figure:
    if e.defocus is None:
        raise ValueError(f"{e.methods[1]} makes no partition into defocused and other patches")
    return plots.defocus_partition(e.defocus, e.distractors, e.grid, e.layers)


def _budget(e: Explanation) -> Figure:
    return plots.budget(*e.on_distractors(), e.layers)


def _similarity(e: Explanation) -> Figure:
    shown = likeliest_classes(e)
    return plots.similarity_maps(e.similarity[shown], [e.names[index] for index in shown], e.seen)


def _vision(e: Explanation) -> Figure:
    if e.vision is None:
        raise ValueError(f"{e.methods[1]} shows no similarities of a vision model")
    alike = e.vision[e.point[0] * e.grid[1] + e.point[1]].reshape(1, *e.grid)
    return plots.similarity_maps(
        alike, ["with the patch"], e.seen, "Similarity with one patch, for the vision model", e.point
    )


def _labels(e: Explanation) -> Figure:
    return plots.labels(e.image, e.without, e.labels, e.names, e.colours, e.methods)


PLOTS: dict[str, Plot] = {
    "labels": Plot(
        "Labels without and with the method",
        "Each pixel has the colour of its class. On the right, what changed is painted in its new class. The picture "
        "is looked at as a whole, without windows.",
        _labels,
    ),
    "attention": Plot(
        "Where one patch looks, layer by layer",
        "Attention of the marked patch to all patches, mean over heads. In the last block it is the attention behind "
        "the dense output. Before and after redistribution have the same scale.",
        _attention,
    ),
    "stripes": Plot(
        "Attention received, layer by layer",
        "Each column is a patch, each line a layer; the colour is the attention that the patch receives, mean over all "
        "patches that look. A patch that everybody looks at shows as a vertical stripe: a distraction token.",
        _stripes,
    ),
    "matrix": Plot(
        "The attention matrix of one layer",
        "Rows are the patches that look, columns those that are looked at, in the layer with the most attention on "
        "distraction tokens.",
        _matrix,
    ),
    "distraction": Plot(
        "Which patches are distraction tokens",
        "phi, the share of a patch's embedding that lies in its strongest distraction dimension, over the threshold "
        "tau / d, at the beginning of each layer and at the end of the last one.",
        _distraction,
    ),
    "partition": Plot(
        "Who gives and who receives",
        "The normalised cut of each layer's key-key attention tells the defocused patches from the others; they "
        "receive what is taken from the distraction tokens.",
        _partition,
    ),
    "budget": Plot(
        "How much attention is moved",
        "Share of a patch's attention that lies on distraction tokens, mean over all patches and heads.",
        _budget,
    ),
    "similarity": Plot(
        "Similarity with each class",
        "Cosine between each patch's dense embedding and the text embedding of the best name of the class, before the "
        "prior and the softmax. All maps have the same scale.",
        _similarity,
    ),
    "vision": Plot(
        "What the vision model takes for the same thing",
        "Cosine between the marked patch and every patch, by the features of the vision model that stand in the place "
        "of CLIP's attention, or are mixed into it.",
        _vision,
    ),
}


def save_all(figures: dict[str, Figure]) -> dict[str, bytes]:
    """The figures as PNGs, in the same order."""
    return {name: style.png_bytes(figure) for name, figure in figures.items()}
