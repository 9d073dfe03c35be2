"""What all figures share: colour maps that colour-blind people can read, panels, units, and saving.

Figures are made without pyplot, so drawing keeps no global state and needs no display.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize, PowerNorm, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rfclip.io import fonts
from rfclip.io.atomic import write_whole

Array = NDArray[np.floating]
SEQUENTIAL = "cividis"
DIVERGING = "PuOr_r"
MISSING = "#d9d9d9"
# after Okabe and Ito, Color Universal Design
BLUE, ORANGE, GREEN, SKY, PINK, YELLOW = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#CC79A7", "#F0E442"
GREY = "#8a8a8a"
SERIES = (BLUE, ORANGE, GREEN, PINK, SKY, GREY)
EVEN_SHARE = "attention\n(1 = an even share, 1/N)"
SMALL = 8.5  # points, of what is written beside and above small maps
_DPI = 110
_LINE = 0.19  # inches, of a title's further lines
_MOST_LETTERS = 200  # of a line
_AROUND = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))  # right, left, above, ... of a point
_FAR = (5.0, 12.0, 22.0, 34.0, 50.0)  # points, of a name from its point
_PANEL, _GAP, _CAPTION, _TITLE, _BAR_SPACE = 1.75, 0.12, 0.27, 0.36, 1.15  # inches: of small maps


def figure(width: float, height: float, title: str) -> Figure:
    """A figure of width x height inches, and more for each further line of a title that says what it shows."""
    title = wrapped(title, width - 2 * _GAP)
    height += _LINE * title.count("\n")
    made = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    made.suptitle(title, fontsize=11)
    return made


def panels(
    rows: int, columns: int, grid: tuple[int, int], title: str, foot: float = 0.15
) -> tuple[Figure, NDArray[np.object_]]:
    """A figure with rows x columns small maps of a grid (h, w), hidden until something is drawn.

    Laid out by hand, which is many times faster than a layout engine. `foot` inches are left free below.

    Returns:
        The figure, and its axes (rows, columns).
    """
    tall = _PANEL * min(max(grid[0] / grid[1], 0.4), 2.5)
    width = max(columns * (_PANEL + _GAP) + _BAR_SPACE, 7.0)
    title = wrapped(title, width - 2 * _GAP)
    head = _TITLE + _LINE * title.count("\n")
    height = max(rows * (tall + _CAPTION) + head, 1.9) + foot
    made = Figure(figsize=(width, height), dpi=_DPI)
    made.text(_GAP / width, 1 - 0.1 / height, title, fontsize=11, va="top")
    axes = np.empty((rows, columns), object)
    for row, column in np.ndindex(rows, columns):
        left, top = _GAP + column * (_PANEL + _GAP), head + _CAPTION + row * (tall + _CAPTION)
        box = (left / width, 1 - (top + tall) / height, _PANEL / width, tall / height)
        axes[row, column] = made.add_axes(box, visible=False)
        bare(axes[row, column])
    return made, axes


def bare(axis: Axes) -> None:
    """Take the ticks away."""
    axis.set_xticks([])
    axis.set_yticks([])


def open_frame(axis: Axes) -> None:
    """Take the upper and the right line of a chart's frame away."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)


def draw_map(
    axis: Axes, values: Array, grid: tuple[int, int], norm: Normalize, cmap: str | ListedColormap, title: str
) -> AxesImage:
    """Draw N values on their grid, one square per patch."""
    axis.set_visible(True)
    axis.set_title(title, fontsize=SMALL, pad=3)
    return axis.imshow(values.reshape(grid), cmap=cmap, norm=norm, interpolation="nearest")


def shared_scale(*arrays: Array | None, percentile: float = 99.7) -> PowerNorm:
    """One scale for all arrays, 0 to (nearly) their maximum; square-root steps, so that small values show."""
    values = np.concatenate([np.ravel(array) for array in arrays if array is not None])
    top = float(np.percentile(values, percentile)) if values.size else 1.0
    return PowerNorm(0.5, 0, max(top, 1e-12), clip=True)


def centred_scale(values: Array, centre: float) -> TwoSlopeNorm:
    """A scale from 0 over `centre`, where the map changes its colour, to the maximum."""
    return TwoSlopeNorm(centre, 0, max(float(values.max(initial=0)), 1.2 * centre))


def colour_bar(made: Figure, shown: AxesImage, axes: NDArray[np.object_], label: str, clipped: bool = True) -> None:
    """One colour bar beside all axes, with its unit; `clipped`: larger values have the last colour."""
    extend = "max" if clipped else "neither"
    if made.get_layout_engine() is None:  # made by panels()
        boxes = [axis.get_position() for axis in axes.flat]
        bottom, top = min(box.y0 for box in boxes), max(box.y1 for box in boxes)
        width, height = made.get_size_inches()
        tall = max(min(top - bottom, 4 / height), 1.3 / height)
        foot = max(top - tall, 0.2 / height)  # with room for the lowest number
        place = made.add_axes((max(box.x1 for box in boxes) + 0.2 / width, foot, 0.15 / width, top - foot))
        bar = made.colorbar(shown, cax=place, extend=extend)
    else:
        bar = made.colorbar(shown, ax=list(axes.flat), extend=extend, fraction=0.04, aspect=28)
    bar.set_label(label, fontsize=SMALL)
    bar.ax.tick_params(labelsize=8)
    ticks = _ticks(shown.norm)
    if ticks is None:
        bar.locator = MaxNLocator(6)
        bar.update_ticks()
    else:
        bar.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks])


def _ticks(norm: object) -> list[float] | None:
    """Values that are evenly spaced on the bar of one of our scales, both ends included; None for other scales."""
    if isinstance(norm, PowerNorm):
        return [float(norm.vmax or 0) * (step / 4) ** 2 for step in range(5)]
    if isinstance(norm, TwoSlopeNorm):
        low, high = np.linspace(norm.vmin or 0, norm.vcenter, 4), np.linspace(norm.vcenter, norm.vmax or 0, 4)
        return [*low[:-1].tolist(), *high.tolist()]
    return None


def on_grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 as a light grey version of the same shape, for something coloured on top."""
    grey = image.astype(np.float32).mean(-1, keepdims=True) * 0.6 + 95
    return np.repeat(grey, 3, -1).clip(0, 255).astype(np.uint8)


def text_width(text: str, size: float) -> float:
    """Inches that a line of text takes at a size in points, in the font that it is drawn with."""
    return fonts.font(text, 100).getlength(text) * size / 100 / 72


def shorten(name: str, room: float = _PANEL, size: float = SMALL, letters: int = 24) -> str:
    """A name in one line of at most so many inches and letters, cut with an ellipsis, to be drawn as it is."""
    line = fonts.printable(" ".join(name.split()))
    cut = line if len(line) <= letters else line[: letters - 1]
    while len(cut) > 1 and text_width(_shown(cut, line), size) > room:
        cut = cut[:-1].rstrip()
    return literal(_shown(cut, line))


def _shown(cut: str, line: str) -> str:
    return fonts.drawable(cut if cut == line else f"{cut}…")


def wrapped(text: str, room: float, size: float = 11) -> str:
    """The text in lines of at most `room` inches; a word that is longer is cut with an ellipsis."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(fonts.drawable(longer), size) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(shorten(line, room, size, _MOST_LETTERS) for line in lines)


def label_points(made: Figure, axis: Axes, x: Array, y: Array, names: Sequence[str], size: float = 8) -> None:
    """Write names beside their points, each where it covers no other name or point, if there is such a place.

    The axis, one of the figure's, has its final limits and scale. A name that stands farther off has a thin line to its
    point.
    """
    made.draw_without_rendering()  # the layout engine sets the axis to its place
    dots = axis.transData.transform(np.column_stack([x, y])) * 72 / made.dpi  # in points, as all below
    frame: Array = np.asarray(axis.get_window_extent().extents) * 72 / made.dpi
    taken = [(left - 3, low - 3, left + 3, low + 3) for left, low in dots]
    for index in sorted(range(len(names)), key=lambda one: (-dots[one][1], dots[one][0])):
        wide, tall = 72 * text_width(names[index], size), 1.2 * size
        places = [_place(dots[index], way, far, wide, tall) for far in _FAR for way in _AROUND]
        inside = [one for one in places if _holds(frame, one)] or places
        free = next((one for one in inside if not any(_cross(one, other) for other in taken)), inside[0])
        taken.append(free)
        far_off = places.index(free) >= 2 * len(_AROUND)
        written = axis.annotate(
            names[index],
            (x[index], y[index]),
            xytext=(free[0] - dots[index][0], free[1] - dots[index][1]),
            textcoords="offset points",
            fontsize=size,
            va="bottom",
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": GREY} if far_off else None,
        )
        written.set_in_layout(False)


Box = tuple[float, float, float, float]  # left, bottom, right, top


def _place(dot: Sequence[float], way: tuple[int, int], far: float, wide: float, tall: float) -> Box:
    """The box of a name so far from a dot, in one of the eight directions."""
    left, low = (
        centre + step * far - (side if step < 0 else side / 2 if step == 0 else 0)
        for centre, step, side in zip(dot, way, (wide, tall), strict=True)
    )
    return left, low, left + wide, low + tall


def _holds(frame: Array, box: Box) -> bool:
    return frame[0] <= box[0] and frame[1] <= box[1] and box[2] <= frame[2] and box[3] <= frame[3]


def _cross(first: Box, second: Box) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def literal(name: str) -> str:
    """A text for matplotlib, which takes what stands between two $ for mathematics."""
    return name.replace("$", r"\$")


def layer_names(layers: Sequence[int]) -> list[str]:
    """'block 0', ... of layers, which are counted from 0 everywhere."""
    return [f"block {layer}" for layer in layers]


def png_bytes(made: Figure) -> bytes:
    """The figure as a PNG; the same figure gives the same bytes."""
    for text in made.findobj(Text):
        _choose_font(text)
    buffer = io.BytesIO()
    made.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _choose_font(text: Text) -> None:
    """Give a text a font that has its letters, and escape letters that no installed font has."""
    text.set_text(fonts.drawable(text.get_text()))
    file = fonts.font_file(text.get_text())
    if file not in (None, fonts.sans_font()):
        chosen = text.get_fontproperties().copy()
        chosen.set_file(file)
        text.set_fontproperties(chosen)


def save(made: Figure, path: Path) -> Path:
    """Write the figure as a PNG, folder included; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, png_bytes(made))
    return path
