"""Texts of a figure that cannot be read: cut off by its edge, or lying on each other."""

from __future__ import annotations

from itertools import combinations

from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

SLACK = 1.5  # pixels


def illegible(figure: Figure) -> list[str]:
    """A line for each text that the edge cuts off, and for each two that overlap; of bars and marks nothing is said."""
    figure.canvas.draw()
    outside = _outside(figure)
    texts = [text for text in figure.findobj(Text) if _shown(text) and text not in outside]
    found = [(text, text.get_window_extent()) for text in texts if not isinstance(text, Annotation)]
    width, height = figure.bbox.width, figure.bbox.height
    problems = [
        f"cut: {text.get_text()!r}"
        for text, box in found
        if box.x0 < -SLACK or box.y0 < -SLACK or box.x1 > width + SLACK or box.y1 > height + SLACK
    ]
    for (one, a), (other, b) in combinations(found, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        down = min(a.y1, b.y1) - max(a.y0, b.y0)
        if across > SLACK and down > SLACK and one.get_rotation() == other.get_rotation() == 0:
            problems.append(f"overlap: {one.get_text()!r}, {other.get_text()!r}")
    return problems


def _shown(text: Text) -> bool:
    axes = text.axes
    return bool(text.get_text().strip()) and text.get_visible() and (axes is None or axes.get_visible())


def _outside(figure: Figure) -> set[Text]:
    """Labels of ticks that lie outside of what their axis shows, and are not drawn."""
    return {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        for label in (tick.label1, tick.label2)
        if not min(axis.get_view_interval()) - 1e-9 <= tick.get_loc() <= max(axis.get_view_interval()) + 1e-9
    }
