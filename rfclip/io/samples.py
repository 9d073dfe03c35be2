"""What a picture file holds, band by band and with all its bits, before it becomes 8-bit RGB."""

from __future__ import annotations

from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from rfclip.io import tiff
from rfclip.io.eight_bits import FULL, Samples
from rfclip.io.formats import NotReadError


def of_tiff(file: BinaryIO, layout: tiff.Layout, chosen: tuple[int, ...] | None) -> Samples:
    """The samples of a TIFF that Pillow does not read in full."""
    colours = tuple(range(layout.colours))
    wanted = _checked_bands(chosen, layout.bands) if chosen is not None else colours
    alpha = None if chosen is not None else layout.alpha
    bands = tiff.read_bands(file, layout, wanted if alpha is None else (*wanted, alpha))
    notes = []
    without = np.isin(bands[..., : len(wanted)], [layout.empty]).all(-1) if layout.empty else np.zeros(0, bool)
    if without.any():  # they would decide what is white
        bands[without, : len(wanted)] = 0
        notes.append(f"has pixels without data (of the value {layout.empty:g}); they were taken for black")
    if chosen is None and layout.bands > len(colours) + (alpha is not None):
        taken = "the first three were taken for red, green and blue" if len(colours) == 3 else "the first was taken"
        notes.append(f"has {layout.bands} bands; {taken}, others can be chosen by --bands")
    return Samples(
        bands[..., : len(wanted)],
        None if alpha is None else bands[..., -1],
        alpha is not None and layout.extra[alpha - layout.colours] == tiff.ASSOCIATED,
        layout.white_is_zero,
        tuple(notes),
    )


def of_pillow(image: Image.Image, file: BinaryIO | None, chosen: tuple[int, ...] | None) -> Samples:
    """The samples of an opened picture; `file`: where it comes from, if its 16 bits can be read there."""
    if image.mode == "LAB":
        raise NotReadError("a picture in CIELAB colours")
    see_through, inks = image.info.get("transparency"), image.mode == "CMYK"
    values = None if file is None else _deep_colours(image, file)
    if values is None:
        image.load()  # NumPy would hide some of its errors
    if values is None and image.mode[0] in "IF":
        values = np.asarray(image)[..., None]
        if isinstance(see_through, int):
            values = np.concatenate([values, (values != see_through) * np.array(FULL, values.dtype)], axis=-1)
    if values is None:
        if image.mode == "La":
            image = image.convert("LA")
        if image.mode not in ("L", "LA", "RGB", "RGBA") or see_through is not None:
            opaque = see_through is None and not {"A", "a"} & set(image.getbands())
            image = image.convert("RGB" if opaque else "RGBA")
        values = np.asarray(image)
        values = values if values.ndim == 3 else values[..., None]
    notes = ("has CMYK colours; they were converted without a colour profile",) if inks else ()
    if chosen is not None:
        return Samples(picked(values, chosen), notes=notes)
    colours = values.shape[2] - (values.shape[2] in (2, 4))
    return Samples(values[..., :colours], values[..., -1] if colours < values.shape[2] else None, notes=notes)


def _deep_colours(image: Image.Image, file: BinaryIO) -> np.ndarray | None:
    """(H, W, 3 or 4) of 16 bits, where Pillow keeps 8 of them; else None."""
    if image.format == "PNG":
        tiles = getattr(image, "tile", [])  # of each: decoder, place, offset, kind of samples
        deep = image.mode[0] != "I" and bool(tiles) and str(tiles[0][3]).endswith(";16B")
    else:
        deep = image.format == "JPEG2000" and _jpeg2000_bits(file) > 8
    if not deep:
        return None
    file.seek(0)
    values = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ValueError("its 16 bits cannot be decoded")
    return values[..., None] if values.ndim == 2 else values[..., [2, 1, 0, 3][: values.shape[2]]]


def _jpeg2000_bits(file: BinaryIO) -> int:
    """Bits of a sample, as the first marker of the code stream says."""
    file.seek(0)
    content = file.read()
    place = content.find(b"\xff\x4f\xff\x51") + 42
    return (content[place] & 127) + 1


def _checked_bands(chosen: tuple[int, ...], bands: int) -> tuple[int, ...]:
    if max(chosen) >= bands:
        asked = ", ".join(str(number + 1) for number in chosen)
        raise ValueError(f"it has {bands} {'band' if bands == 1 else 'bands'}, and asked for were {asked}")
    return chosen


def picked(values: np.ndarray, chosen: tuple[int, ...]) -> np.ndarray:
    """Bands (H, W, 3 or 1) of (H, W, bands)."""
    return values[..., list(_checked_bands(chosen, values.shape[2]))]
