"""Letters for every script: DejaVu Sans, which matplotlib brings along, else an installed font that has them.

Matplotlib is imported where it is needed: that takes a moment, and its list of the installed fonts may take seconds.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from PIL import ImageFont

_EMPTY = ("Last Resort", ".LastResort", "Adobe Blank")  # these have every character, and show none


def sans_font() -> str:
    """The file of DejaVu Sans."""
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@functools.lru_cache(maxsize=4096)
def font_file(text: str) -> str | None:
    """The file of a font that has all characters of a text: DejaVu Sans if it does; None if no installed font does."""
    needed = np.array([ord(character) for character in text if not character.isspace()], np.uint32)
    if np.isin(needed, _characters(sans_font())).all():
        return sans_font()
    return next((file for file in _installed() if np.isin(needed, _characters(file)).all()), None)


def font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """A font for a text; characters that no installed font has become boxes, see :func:`drawable`."""
    return ImageFont.truetype(font_file(text) or sans_font(), size)


def drawable(text: str) -> str:
    """The text itself if a font has it, else with the characters that none has escaped: "\\u72ac"."""
    if font_file(text) is not None:
        return text
    return "".join(one if font_file(one) == sans_font() else _escape(one) for one in text)


def printable(text: str) -> str:
    """The text with all that has no shape escaped: line ends, other control characters, halves of surrogate pairs."""
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


@functools.cache
def _installed() -> tuple[str, ...]:
    """The files of the installed fonts, upright ones of normal weight first."""
    from matplotlib.font_manager import fontManager

    usable = [entry for entry in fontManager.ttflist if not entry.name.startswith(_EMPTY)]
    plain = {entry.fname: (entry.weight, entry.style) != (400, "normal") for entry in usable}
    return tuple(sorted(plain, key=lambda file: (plain[file], file)))


@functools.cache
def _characters(file: str) -> np.ndarray:
    """The code points that a font has; none if it cannot be read, or has no outlines, so that no size would fit."""
    from matplotlib.ft2font import FT2Font

    try:
        face = FT2Font(file)
    except (OSError, RuntimeError):
        return np.empty(0, np.uint32)
    return np.array(list(face.get_charmap()) if face.scalable else [], np.uint32)
