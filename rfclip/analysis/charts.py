"""Charts of the analyses. They take arrays and know no model; every function returns a matplotlib Figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from rfclip.explain import style
from rfclip.explain.style import Array

PUBLISHED = "published (real data, ViT-B/16; not measured here)"


def channel_profile(
    profile: Array, crossings: Array, dims: Sequence[int], limits: tuple[float, float], title: str
) -> Figure:
    """The profile by which distraction dimensions are found.

    Args:
        profile: (d,) mean share of each channel in a patch's embedding, in units of 1/d.
        crossings: (d,) share (0..1) of the patches in which the channel is above the distraction threshold.
        dims: the chosen channels.
        limits: the profile above which a channel peaks, and the share of patches above which it is taken.
        title: of the figure.
    """
    made = style.figure(10, 5.2, title)
    axes = made.subplots(2, 1, sharex=True)
    labels = ("mean share of the embedding,\nin units of 1/d", "patches with more than 5/d\nin the channel, %")
    for axis, values, limit, label in zip(axes, (profile, 100 * crossings), limits, labels, strict=True):
        limit = limit * (100 if values is not profile else 1)
        axis.vlines(np.arange(len(values)), 0, values, color=style.GREY, lw=0.8)
        chosen = list(dims)
        axis.vlines(chosen, 0, values[chosen], color=style.ORANGE, lw=1.6)
        axis.axhline(limit, color=style.BLUE, lw=0.9, ls="--", label=f"limit {limit:.3g}")
        for dim in chosen:
            axis.annotate(str(dim), (dim, values[dim]), ha="center", va="bottom", fontsize=8)
        axis.set_ylabel(label, fontsize=style.SMALL)
        axis.set_ylim(0, 1.15 * max(float(values.max(initial=0)), 1.2 * limit))
        axis.set_xlim(-1, len(values))
        axis.legend(fontsize=8, loc="upper right")
        style.open_frame(axis)
    axes[-1].set_xlabel("channel (orange: chosen as distraction dimension)", fontsize=style.SMALL)
    return made


def bars(
    names: Sequence[str],
    measured: Array,
    published: Array | None,
    axis_label: str,
    title: str,
    note: str = "",
) -> Figure:
    """One bar per row of a table, and, in a panel of its own, what was published for it.

    The two are not on one axis because they are not measured on the same images.

    Args:
        names: of the rows.
        measured: a value per row; NaN where there is none.
        published: the same; None: no second panel.
        axis_label: quantity and unit.
        title: of the figure.
        note: a sentence below.
    """
    width = 10 if published is not None else 7.5
    note = style.wrapped(note, width - 0.3, 8)
    height = 1.5 + 0.36 * len(names) + (0.3 + 0.15 * note.count("\n") if note else 0)
    made = style.figure(width, height, title)
    names = [style.shorten(name, 3, letters=60) for name in names]
    axes = made.subplots(1, 1 if published is None else 2, squeeze=False)[0]
    sets = [(measured, "measured here", style.BLUE)]
    if published is not None:
        sets.append((published, PUBLISHED, style.GREY))
    for axis, (values, caption, colour) in zip(axes, sets, strict=True):
        places = np.arange(len(names))
        axis.barh(places, np.nan_to_num(values), color=colour, height=0.65)
        for place, value in zip(places, values, strict=True):
            text = "none" if np.isnan(value) else f"{value:.1f}"
            axis.text(
                0.0 if np.isnan(value) else max(float(value), 0.0),
                float(place),
                f" {text}",
                va="center",
                fontsize=style.SMALL,
            )
        axis.set_title(caption, fontsize=9)
        axis.set_xlabel(axis_label, fontsize=style.SMALL)
        axis.set_yticks(places, names if axis is axes[0] else [""] * len(names), fontsize=style.SMALL)
        axis.invert_yaxis()
        axis.set_xlim(0, 1.15 * max(float(np.nan_to_num(values).max(initial=0)), 1e-6))
        style.open_frame(axis)
    if note:
        made.supxlabel(note, fontsize=8, x=0.01, ha="left")
    return made


def curve(
    x: Sequence[float], values: Array, x_label: str, axis_label: str, title: str, marked: float | None = None
) -> Figure:
    """A quantity over a setting; `marked` is the setting's default."""
    made = style.figure(6.5, 3.8, title)
    axis = made.subplots()
    axis.plot(x, values, "o-", color=style.BLUE)
    if marked is not None:
        axis.axvline(marked, color=style.ORANGE, ls="--", lw=1, label=f"default {marked:g}")
        axis.legend(fontsize=style.SMALL)
    axis.set_xlabel(x_label, fontsize=9)
    axis.set_ylabel(axis_label, fontsize=9)
    axis.grid(alpha=0.3)
    style.open_frame(axis)
    return made


def mean_against_cost(
    names: Sequence[str], costs: Array, values: Array, settings: Sequence[str], title: str, note: str = ""
) -> Figure:
    """What methods score over what they cost, a labelled point each; a colour and a marker per setting.

    Args:
        names: of the R rows.
        costs: (R,) time as a multiple of the plain tower's, above 0.
        values: (R,) mean mIoU in percent.
        settings: of the rows, in words.
        title: of the figure.
        note: a sentence below.
    """
    kinds = list(dict.fromkeys(settings))
    made = style.figure(10, 5.6 + 0.2 * len(kinds), title)
    axis = made.subplots()
    for number, kind in enumerate(kinds):
        rows = [row for row, setting in enumerate(settings) if setting == kind]
        colour, marker = style.SERIES[number % len(style.SERIES)], "osv^Dx"[number // len(style.SERIES) % 6]
        axis.scatter(costs[rows], values[rows], s=28, color=colour, marker=marker, label=kind, zorder=3)
    axis.axvline(1, color=style.GREY, ls="--", lw=1)
    if costs.max() > 4 * costs.min():
        axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.margins(0.12)
    axis.set_xlabel("time of dense encoding, times plain CLIP (dashed: 1)", fontsize=9)
    axis.set_ylabel("mean mIoU, %", fontsize=9)
    axis.grid(alpha=0.3)
    made.legend(fontsize=style.SMALL, loc="outside lower left", title=note or None, title_fontsize=8, alignment="left")
    style.open_frame(axis)
    style.label_points(made, axis, costs, values, [style.shorten(name, 1.6) for name in names])
    return made


def lines(x: Sequence[str], series: dict[str, Array], axis_label: str, title: str) -> Figure:
    """Several quantities over the same places, such as layers; a series may end early."""
    made = style.figure(max(6.5, 1.5 + 0.55 * len(x)), 3.8, title)
    axis = made.subplots()
    for (name, values), colour, marker in zip(series.items(), style.SERIES, "osv^Dx", strict=False):
        axis.plot(range(len(values)), values, marker=marker, color=colour, label=name, ms=5)
    axis.set_xticks(range(len(x)), x, fontsize=8, rotation=30 if len(x) > 8 else 0)
    axis.set_ylabel(axis_label, fontsize=9)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=style.SMALL)
    style.open_frame(axis)
    return made


def scatter_with_fit(x: Array, y: Array, slope: float, intercept: float, correlation: float, title: str) -> Figure:
    """phi against attention received, with the straight line through them.

    Args:
        x: phi over the threshold.
        y: attention received, 1 = an even share.
        slope, intercept: of the least-squares line.
        correlation: Pearson's r.
        title: of the figure.
    """
    made = style.figure(6.5, 4.2, title)
    axis = made.subplots()
    axis.scatter(x, y, s=6, color=style.SKY, alpha=0.5, lw=0, rasterized=True, label="a patch in a layer")
    ends = np.array([x.min(), x.max()])
    axis.plot(
        ends,
        slope * ends + intercept,
        color=style.ORANGE,
        label=f"fit: {slope:.2f} x {intercept:+.2f}, r = {correlation:.2f}",
    )
    axis.axvline(1, color=style.GREY, ls="--", lw=1, label="threshold")
    axis.set_xlabel("phi / threshold", fontsize=9)
    axis.set_ylabel("attention received (1 = an even share)", fontsize=9)
    axis.legend(fontsize=style.SMALL)
    style.open_frame(axis)
    return made


def agreement_matrix(names: Sequence[str], sizes: Sequence[int], agreement: Array, title: str) -> Figure:
    """How far sets agree.

    Args:
        names: S names.
        sizes: elements in each set.
        agreement: (S, S) common elements over all elements, 0..1.
        title: of the figure.
    """
    names = [style.shorten(name) for name in names]
    side = 2.6 + 0.55 * len(names)
    made = style.figure(side + 1.5, side, title)
    axis = made.subplots()
    shown = axis.imshow(agreement, cmap=style.SEQUENTIAL, vmin=0, vmax=1)
    for row, column in np.ndindex(agreement.shape):
        value = agreement[row, column]
        colour = "black" if value > 0.6 else "white"
        axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
    labels = [f"{name} ({size})" for name, size in zip(names, sizes, strict=True)]
    axis.set_xticks(range(len(names)), names, fontsize=8, rotation=40, ha="right")
    axis.set_yticks(range(len(names)), labels, fontsize=8)
    bar = made.colorbar(shown, ax=axis, fraction=0.045)
    bar.set_label("common channels / all channels", fontsize=style.SMALL)
    return made
