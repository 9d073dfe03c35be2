"""Labels painted over a picture, with a legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]


def paint(image: np.ndarray, labels: np.ndarray, colours: Sequence[Colour], opacity: float = 0.55) -> np.ndarray:
    """Mix each pixel with the colour of its label.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) integers into `colours`.
        colours: per class (r, g, b), 0..255.
        opacity: share of the label's colour, 0..1.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity is a share, 0..1, got {opacity}")
    colour = np.asarray(colours, np.float32)[labels]
    return (image * (1 - opacity) + colour * opacity + 0.5).astype(np.uint8)


def with_legend(picture: Image.Image, entries: Sequence[tuple[str, Colour, float]]) -> Image.Image:
    """Put a legend below a picture.

    Args:
        picture: RGB.
        entries: (name, colour, share of the area 0..1) in the order in which they are shown.

    Returns:
        A new picture: the given one on top, below it a swatch, the name and the percentage of each entry.
    """
    font = ImageFont.load_default(size=max(11, min(picture.size) // 28))
    _, top, _, bottom = font.getbbox("Ag")
    row, gap = int(bottom - top) + 8, 8
    texts = [f"{name} {100 * share:.1f} %" for name, _, share in entries]
    places, width, lines = _flow([row + gap + int(font.getlength(text)) + 2 * gap for text in texts], picture.width)
    canvas = Image.new("RGB", (max(picture.width, width), picture.height + lines * row + gap), "white")
    canvas.paste(picture, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for (_, colour, _), text, (x, line) in zip(entries, texts, places, strict=True):
        y = picture.height + gap // 2 + line * row
        draw.rectangle((x + 2, y + 3, x + row - 4, y + row - 5), fill=colour, outline="black")
        draw.text((x + row, y + 2), text, fill="black", font=font)
    return canvas


def _flow(widths: Sequence[int], limit: int) -> tuple[list[tuple[int, int]], int, int]:
    """Set boxes of given widths into lines of at most `limit`: (x, line) of each, the widest line, the lines."""
    places, x, line, widest = [], 0, 0, 0
    for width in widths:
        if x and x + width > limit:
            x, line = 0, line + 1
        places.append((x, line))
        x += width
        widest = max(widest, x)
    return places, widest, line + 1
