"""Figures of attention, distraction and refocusing in one image. They take arrays and know no model.

L layers, N = h*w patches in raster order of the grid (h, w). `before` and `after` stand for one block's
attention before and after redistribution; both are drawn on the same scale. Every function returns a
matplotlib Figure and leaves its arguments alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from rfclip.explain import style
from rfclip.explain.style import Array

Bools = NDArray[np.bool_]
Grid = tuple[int, int]
_PER_ROW = 6  # maps beside each other
_OTHER, _DISTRACTOR, _DEFOCUSED = 0, 1, 2
_PARTITION = (
    (_OTHER, "other", "#cccccc"),
    (_DEFOCUSED, "defocused: receives", style.BLUE),
    (_DISTRACTOR, "distractor: gives", style.ORANGE),
)


def point_attention(
    before: Array,
    after: Array | None,
    grid: Grid,
    point: tuple[int, int],
    layers: Sequence[int],
    image: NDArray[np.uint8],
) -> Figure:
    """Where one patch looks, layer by layer.

    Args:
        before: (L, N) attention of the patch, mean over heads, rows sum to at most 1.
        after: the same after redistribution, or None.
        grid: (h, w).
        point: (row, column) of the patch.
        layers: the L 0-based layers.
        image: (H, W, 3) uint8, the picture.
    """
    title = f"Attention of the patch in row {point[0] + 1}, column {point[1] + 1}, layer by layer"
    made, axes, cells = _layer_cells(len(layers), 1 if after is None else 2, grid, title, lead=True)
    _mark_patch(_show_image(axes[0, 0], image, grid, "the patch"), point)
    count = before.shape[1]
    norm = style.shared_scale(before * count, None if after is None else after * count)
    for index, name in enumerate(style.layer_names(layers)):
        for row, values in enumerate((before, after)):
            if values is not None:
                moment = "" if after is None else (", before", ", after")[row]
                shown = style.draw_map(
                    cells[row][index], values[index] * count, grid, norm, style.SEQUENTIAL, name + moment
                )
                _mark_patch(cells[row][index], point)
    style.colour_bar(made, shown, axes, style.EVEN_SHARE)
    return made


def stripes(before: Array, after: Array | None, distractors: Bools, layers: Sequence[int]) -> Figure:
    """Attention that each patch receives, as one line per layer: distraction tokens show as vertical stripes.

    Args:
        before: (L, N) mean attention received, over heads and patch queries; 1/N is an even share.
        after: the same after redistribution, or None.
        distractors: (L, N) which patches are distractors in the layer.
        layers: the L 0-based layers.
    """
    count = before.shape[1]
    moments = [("before", before)] + ([] if after is None else [("after", after)])
    height = 1.1 + len(moments) * (0.75 + 0.2 * len(layers))
    made = style.figure(9, height, "Attention received by each patch (stripes: everyone looks there)")
    axes = made.subplots(len(moments), 1, squeeze=False)[:, 0]
    norm = style.shared_scale(*(values * count for _, values in moments), percentile=99.9)
    for axis, (moment, values) in zip(axes, moments, strict=True):
        shown = axis.imshow(values * count, cmap=style.SEQUENTIAL, norm=norm, aspect="auto", interpolation="nearest")
        axis.set_yticks(range(len(layers)), style.layer_names(layers), fontsize=8)
        axis.set_title(f"{moment} redistribution" if after is not None else "", fontsize=9, loc="left", pad=12)
        ever = np.flatnonzero(distractors.any(0))
        _mark(axis, ever, -0.75)
        axis.set_ylim(len(layers) - 0.5, -0.5)
        axis.tick_params(axis="x", labelsize=8)
    axes[-1].set_xlabel("patch, in raster order (orange: a distraction token in some layer)", fontsize=style.SMALL)
    style.colour_bar(made, shown, axes, "attention received\n(1 = an even share)")
    return made


def _mark(axis: Axes, columns: np.ndarray, height: float) -> None:
    """Put a mark over columns; over none nothing, whose bounding box would have no end and squeeze the figure."""
    if len(columns):
        axis.plot(columns, np.full(len(columns), height), "v", color=style.ORANGE, ms=5, clip_on=False)


def attention_matrix(before: Array, after: Array | None, distractors: Bools, layer: int) -> Figure:
    """The attention matrix (N, N) of one layer: queries down, keys across.

    Args:
        before: (N, N), mean over heads.
        after: the same after redistribution, or None.
        distractors: (N,) which keys are distractors.
        layer: 0-based.
    """
    moments = [("before", before)] + ([] if after is None else [("after", after)])
    made = style.figure(1.2 + 4.2 * len(moments), 4.9, f"Attention between all patches, block {layer}")
    axes = made.subplots(1, len(moments), squeeze=False)
    count = len(before)
    norm = style.shared_scale(*(values * count for _, values in moments), percentile=99.5)
    marks = np.flatnonzero(distractors)
    for axis, (moment, values) in zip(axes[0], moments, strict=True):
        shown = axis.imshow(values * count, cmap=style.SEQUENTIAL, norm=norm, interpolation="antialiased")
        _mark(axis, marks, -0.02 * count)
        axis.set_xlim(-0.5, count - 0.5)
        axis.set_ylim(count - 0.5, -0.5)
        axis.set_title(f"{moment} redistribution" if after is not None else "", fontsize=9, pad=12)
        axis.set_xlabel("key patch (orange marks: distractors)", fontsize=style.SMALL)
        axis.tick_params(labelsize=8)
    axes[0, 0].set_ylabel("query patch", fontsize=style.SMALL)
    style.colour_bar(made, shown, axes, style.EVEN_SHARE)
    return made


def distraction_maps(ratio: Array, grid: Grid, names: Sequence[str]) -> Figure:
    """phi over its threshold tau at each layer boundary: above 1 a patch is a distractor.

    Args:
        ratio: (L, N) phi / (tau / d), at least 0.
        grid: (h, w).
        names: L names of the boundaries.
    """
    title = "Distraction phi over its threshold (above 1: a distraction token; their number follows the name)"
    made, axes, cells = _layer_cells(len(names), 1, grid, title)
    norm = style.centred_scale(ratio, 1)
    for cell, values, name in zip(cells[0], ratio, names, strict=True):
        count = int((values > 1).sum())
        shown = style.draw_map(cell, values, grid, norm, style.DIVERGING, f"{name}: {count}")
    style.colour_bar(made, shown, axes, "phi / threshold", clipped=False)
    return made


def defocus_partition(defocus: Bools, distractors: Bools, grid: Grid, layers: Sequence[int]) -> Figure:
    """Who gives and who receives in each layer.

    Args:
        defocus: (L, N) the defocused patches.
        distractors: (L, N) the distractors.
        grid: (h, w).
        layers: the L 0-based layers.
    """
    made, _, cells = _layer_cells(len(layers), 1, grid, "Partition of the patches, layer by layer", foot=0.5)
    kinds = np.where(distractors, _DISTRACTOR, np.where(defocus, _DEFOCUSED, _OTHER))
    ordered = ListedColormap([colour for _, _, colour in sorted(_PARTITION)])
    for cell, values, name in zip(cells[0], kinds, style.layer_names(layers), strict=True):
        style.draw_map(cell, values, grid, Normalize(0, 2), ordered, name)
    patches = [Patch(facecolor=colour, edgecolor="black", label=label) for _, label, colour in _PARTITION]
    made.legend(handles=patches, loc="lower left", ncols=3, fontsize=style.SMALL)
    return made


def budget(share_before: Array, share_after: Array, layers: Sequence[int]) -> Figure:
    """Attention on distractors in each layer, before and after; the difference is what was moved.

    Args:
        share_before: (L,) share (0..1) of a patch's attention that lies on distractors, mean over queries and heads.
        share_after: the same after redistribution.
        layers: the L 0-based layers.
    """
    made = style.figure(max(6.0, 1.5 + 0.6 * len(layers)), 3.6, "Attention on distraction tokens, and the budget moved")
    axis = made.subplots()
    places = np.arange(len(layers))
    before, after = 100 * share_before, 100 * share_after
    axis.bar(places - 0.2, before, 0.4, color=style.ORANGE, label="before")
    axis.bar(places + 0.2, after, 0.4, color=style.BLUE, label="after")
    top = max(float(before.max(initial=0)), 1e-3)
    for place, moved, height in zip(places, before - after, np.maximum(before, after), strict=True):
        axis.text(float(place), height + 0.02 * top, f"{moved:.1f}", ha="center", fontsize=8)
    axis.set_ylim(0, 1.18 * top)
    axis.set_xticks(places, style.layer_names(layers), fontsize=8, rotation=30 if len(layers) > 8 else 0)
    axis.set_ylabel("% of a patch's attention", fontsize=9)
    axis.set_xlabel("numbers: moved to other patches, % of a patch's attention", fontsize=style.SMALL)
    axis.legend(fontsize=style.SMALL)
    style.open_frame(axis)
    return made


def similarity_maps(
    similarity: Array,
    names: Sequence[str],
    image: NDArray[np.uint8],
    title: str = "Similarity of each patch with each class (with its best name)",
    point: tuple[int, int] | None = None,
) -> Figure:
    """Cosine of every patch with each class, or with anything else that has a name.

    Args:
        similarity: (C, h, w) cosines, -1..1, of the best name of each class.
        names: C class names.
        image: (H, W, 3) uint8, the picture.
        title: of the figure.
        point: (row, column) of a patch to be marked in the picture, or None.
    """
    grid = (similarity.shape[1], similarity.shape[2])
    made, axes, cells = _layer_cells(len(names), 1, grid, title, lead=True)
    picture = _show_image(axes[0, 0], image, grid, "the picture" if point is None else "the patch")
    if point is not None:
        _mark_patch(picture, point)
    norm = Normalize(float(similarity.min()), float(similarity.max()))
    for cell, values, name in zip(cells[0], similarity, names, strict=True):
        shown = style.draw_map(cell, values, grid, norm, style.SEQUENTIAL, style.shorten(name))
    style.colour_bar(made, shown, axes, "cosine", clipped=False)
    return made


def labels(
    image: NDArray[np.uint8],
    without: NDArray[np.int64],
    with_: NDArray[np.int64],
    names: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
    titles: tuple[str, str],
) -> Figure:
    """Labels without and with the method, and where they differ.

    Args:
        image: (H, W, 3) uint8, the picture.
        without, with_: (H, W) class indices.
        names: C class names.
        colours: C colours (r, g, b), 0..255.
        titles: names of the two methods.
    """
    height, width = without.shape
    tall = 2.6 * min(max(height / width, 0.2), 1.8)
    made = style.figure(11, tall + 1.1, "Labels without and with the method")
    axes = made.subplots(1, 4)
    changed = without != with_
    table = np.asarray(colours, np.uint8)
    difference = np.where(changed[..., None], table[with_], style.on_grey(image))
    shown = (image, _mixed(image, table[without]), _mixed(image, table[with_]), difference)
    captions = (
        "the picture",
        style.shorten(f"without: {titles[0]}", 2.5, 9, 40),
        style.shorten(f"with: {titles[1]}", 2.5, 9, 40),
        f"changed: {100 * changed.mean():.1f} % of the pixels",
    )
    for axis, picture, caption in zip(axes, shown, captions, strict=True):
        axis.imshow(picture)
        axis.set_title(caption, fontsize=9)
        style.bare(axis)
    _class_legend(made, np.union1d(without, with_), names, table)
    return made


def _class_legend(made: Figure, present: NDArray[np.int64], names: Sequence[str], table: NDArray[np.uint8]) -> None:
    """Name the classes below the figure, in as many columns as fit, and make room for them."""
    most, room, beside = 24, 2.1, 0.65  # classes, inches for a name, inches for its colour
    patches = [
        Patch(facecolor=table[i] / 255, edgecolor="black", label=style.shorten(names[i], room)) for i in present[:most]
    ]
    if len(present) > most:
        patches.append(Patch(facecolor="none", label=f"and {len(present) - most} more"))
    widest = max(style.text_width(str(patch.get_label()), style.SMALL) for patch in patches)
    columns = min(6, len(patches), int(made.get_figwidth() / (widest + beside)))
    made.set_figheight(made.get_figheight() + 0.19 * -(-len(patches) // columns))
    made.legend(handles=patches, loc="outside lower center", ncols=columns, fontsize=style.SMALL)


def _mixed(image: NDArray[np.uint8], colour: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return (0.4 * image + 0.6 * colour).astype(np.uint8)


def _layer_cells(
    count: int, rows: int, grid: Grid, title: str, lead: bool = False, foot: float = 0.15
) -> tuple[Figure, NDArray[np.object_], list[list[Axes]]]:
    """Axes for `count` maps, `rows` below each other, in strips of _PER_ROW; `lead` keeps the first column free.

    Returns:
        The figure, all axes, and cells[row][index].
    """
    columns = min(count, _PER_ROW)
    strips = -(-count // columns)
    made, axes = style.panels(strips * rows, columns + lead, grid, title, foot)
    cells = [
        [axes[index // columns * rows + row, index % columns + lead] for index in range(count)] for row in range(rows)
    ]
    return made, axes, cells


def _show_image(axis: Axes, image: NDArray[np.uint8], grid: Grid, title: str) -> Axes:
    """Draw the picture in the coordinates of the grid."""
    axis.set_visible(True)
    axis.imshow(image, extent=(-0.5, grid[1] - 0.5, grid[0] - 0.5, -0.5), aspect="auto")
    axis.set_box_aspect(grid[0] / grid[1])
    axis.set_title(title, fontsize=style.SMALL, pad=3)
    return axis


def _mark_patch(axis: Axes, point: tuple[int, int]) -> None:
    axis.add_patch(Rectangle((point[1] - 0.5, point[0] - 0.5), 1, 1, fill=False, edgecolor="white", lw=2.4))
    axis.add_patch(Rectangle((point[1] - 0.5, point[0] - 0.5), 1, 1, fill=False, edgecolor=style.ORANGE, lw=1.2))
