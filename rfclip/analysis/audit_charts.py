"""Charts of the vocabulary report. They take arrays and know no model; every function returns a matplotlib Figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from rfclip.explain import style
from rfclip.explain.style import Array


def vocabulary_audit(
    scores: dict[str, Array],
    totals: Sequence[float],
    classes: Sequence[str],
    names: Sequence[str],
    wrong: Array,
    title: str,
    most: int = 22,
) -> Figure:
    """What class names do to a score.

    Args:
        scores: vocabulary -> (C,) IoU in percent, NaN where there is none.
        totals: mIoU of each vocabulary, percent.
        classes: C class names.
        names: names that win pixels of other classes, worst first, each with its class.
        wrong: share of all pixels that each of them wins wrongly, percent.
        title: of the figure.
        most: classes and names that are shown; the classes on which the vocabularies differ most.
    """
    table = np.stack(list(scores.values()), 1)  # (C, vocabularies)
    spread = np.nan_to_num(np.nanmax(np.nan_to_num(table, nan=-1), 1) - np.nanmin(np.nan_to_num(table, nan=-1), 1))
    shown = np.sort(np.argsort(-spread, kind="stable")[:most])
    rows = np.vstack([np.asarray(totals)[None], table[shown]])
    labels = ["mIoU of all", *(style.shorten(classes[index]) for index in shown)]
    made = style.figure(11.5, 2.0 + 0.25 * max(len(labels), min(most, len(names))), title)
    left, right = made.subplots(1, 2, width_ratios=[1, 1.1])
    image = left.imshow(rows, cmap=style.SEQUENTIAL, vmin=0, vmax=100, aspect="auto")
    for row, column in np.ndindex(rows.shape):
        value = rows[row, column]
        text, colour = ("-", "black") if np.isnan(value) else (f"{value:.1f}", "black" if value > 60 else "white")
        left.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    slanted = len(scores) > 3
    heads = [style.shorten(name, 2.2 if slanted else 3.2 / len(scores), letters=40) for name in scores]
    left.set_xticks(range(len(scores)), heads, fontsize=style.SMALL)
    if slanted:
        left.tick_params("x", rotation=30)
        for head in left.get_xticklabels():
            head.set(ha="right", rotation_mode="anchor")
    left.set_yticks(range(len(labels)), labels, fontsize=style.SMALL)
    left.set_title("IoU, % (the classes that differ most)", fontsize=9)
    bar = made.colorbar(image, ax=left, fraction=0.05)
    bar.set_label("IoU, %", fontsize=style.SMALL)
    places = np.arange(min(most, len(names)))
    right.barh(places, wrong[: len(places)], color=style.ORANGE)
    right.set_yticks(
        places, [style.shorten(name, 2.2, letters=60) for name in names[: len(places)]], fontsize=style.SMALL
    )
    right.invert_yaxis()
    right.set_title("names that win pixels of other classes", fontsize=9)
    right.set_xlabel("% of all pixels", fontsize=style.SMALL)
    style.open_frame(right)
    return made


def worth(
    names: Sequence[str], groups: Mapping[str, Array], axis_label: str, title: str, marked: str | None = None
) -> Figure:
    """What each of several lists is worth: a point with its interval for each group.

    Args:
        names: of the L lists.
        groups: name of a group -> (L, 3) difference, low and high; NaN where there is none.
        axis_label: quantity and unit.
        title: of the figure.
        marked: a group that is black.
    """
    made = style.figure(10, 1.6 + max(0.5, 0.17 * len(groups)) * len(names) + 0.22 * (len(groups) // 3 + 1), title)
    axis = made.subplots()
    steps = np.linspace(-0.36, 0.36, len(groups)) if len(groups) > 1 else np.zeros(1)
    for number, (group, values) in enumerate(groups.items()):
        places = np.arange(len(names)) + steps[number]
        colour, marker = style.SERIES[number % len(style.SERIES)], "os"[number // len(style.SERIES) % 2]
        colour, marker = ("black", "D") if group == marked else (colour, marker)
        axis.hlines(places, values[:, 1], values[:, 2], color=colour, lw=1.2)
        axis.plot(values[:, 0], places, marker, color=colour, ms=5, label=group)
    axis.axvline(0, color=style.GREY, ls="--", lw=1)
    axis.set_yticks(range(len(names)), [style.shorten(name, 3, letters=60) for name in names], fontsize=style.SMALL)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel(f"{axis_label} (line: interval of 95 %)", fontsize=9)
    axis.grid(axis="x", alpha=0.3)
    made.legend(fontsize=style.SMALL, loc="outside lower left", ncols=min(len(groups), 5))
    style.open_frame(axis)
    return made
