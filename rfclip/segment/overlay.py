"""Labels painted over a picture, with a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from numbers import Real

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rfclip.io import fonts

Colour = tuple[int, int, int]
OPACITY = 0.55
_WIDTH = 240  # pixels that a legend may take below a narrow picture
_LETTERS = 300  # no line has room for more


def paint(image: np.ndarray, labels: np.ndarray, colours: Sequence[Colour], opacity: float = OPACITY) -> np.ndarray:
    """Mix each pixel with the colour of its label.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) integers into `colours`.
        colours: per class (r, g, b), 0..255.
        opacity: share of the label's colour, 0..1.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    if not isinstance(opacity, Real) or not 0 <= float(opacity) <= 1:
        raise ValueError(f"opacity is a share, 0..1, got {opacity!r}")
    colour = np.asarray(colours, np.float32)[labels]
    return (image * (1 - opacity) + colour * opacity + 0.5).astype(np.uint8)


def with_legend(picture: Image.Image, entries: Sequence[tuple[str, Colour, float]]) -> Image.Image:
    """Put a legend below a picture.

    Args:
        picture: RGB.
        entries: (name, colour, share of the area 0..1) in the order in which they are shown.

    Returns:
        A new picture: the given one on top, below it a swatch, the name and the percentage of each entry. Names are
        shortened so that it is not wider than the picture, or than 240 pixels if that is more.
    """
    size, gap = min(32, max(12, min(picture.size) // 28)), 8
    plain = fonts.font("", size)
    _, above, _, below = map(int, plain.getbbox("Ag", anchor="ls"))
    row = below - above + 8
    room = max(picture.width, _WIDTH) - row - 3 * gap
    texts = [_Text.fitted(name, f" {100 * share:.1f} %", plain, room) for name, _, share in entries]
    places, width, lines = _flow([row + gap + text.width + 2 * gap for text in texts], picture.width)
    canvas = Image.new("RGB", (max(picture.width, width), picture.height + lines * row + gap), "white")
    canvas.paste(picture, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for (_, colour, _), text, (x, line) in zip(entries, texts, places, strict=True):
        y = picture.height + gap // 2 + line * row
        draw.rectangle((x + 2, y + 3, x + row - 4, y + row - 5), fill=colour, outline="black")
        text.draw(draw, x + row, y + 3 - above)
    return canvas


def legend_name(index: int, name: str) -> str:
    """What a legend shows of a class's name: one line, and letters that there are; else "class 3 (\\u72ac)"."""
    line = fonts.printable(" ".join(name.split()))
    return line if fonts.font_file(line) else f"class {index} ({fonts.drawable(line)})"


@dataclass(frozen=True)
class _Text:
    """A name and what follows it; each has a font of its own, as that of a foreign script may lack digits."""

    name: str
    tail: str
    fonts: tuple[ImageFont.FreeTypeFont, ImageFont.FreeTypeFont]

    @classmethod
    def fitted(cls, name: str, tail: str, plain: ImageFont.FreeTypeFont, room: int) -> _Text:
        """Cut the name, with an ellipsis, so that all takes at most `room` pixels."""
        name = fonts.printable(name)
        whole = cls(name[:_LETTERS], tail, (fonts.font(name, int(plain.size)), plain))
        if len(name) <= _LETTERS and whole.width <= room:
            return whole
        cut = replace(whole, tail=f"…{tail}")
        while cut.name and cut.width > room:
            cut = replace(cut, name=cut.name[:-1].rstrip())
        return cut

    @property
    def width(self) -> int:
        """Pixels."""
        return ceil(self.fonts[0].getlength(self.name) + self.fonts[1].getlength(self.tail))

    def draw(self, draw: ImageDraw.ImageDraw, x: int, baseline: int) -> None:
        """Write it to the right of a point."""
        draw.text((x, baseline), self.name, fill="black", font=self.fonts[0], anchor="ls")
        x += round(self.fonts[0].getlength(self.name))
        draw.text((x, baseline), self.tail, fill="black", font=self.fonts[1], anchor="ls")


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
