"""Samples of any kind as 8-bit RGB, by one rule for grey and for colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

FULL = 65535  # white of 16 bits
WHITES = tuple(2**bits - 1 for bits in range(8, 17))
ORIENTATION = 0x0112  # of EXIF and TIFF


@dataclass(frozen=True)
class Samples:
    """What a file holds: `values` (H, W, 1 or 3), and `alpha` (H, W) of any kind of numbers, or None.

    `associated`: the colours are multiplied by alpha already; `light_is_zero`: small values are light.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    associated: bool = False
    light_is_zero: bool = False
    notes: tuple[str, ...] = ()


def to_rgb(samples: Samples, orientation: int) -> tuple[np.ndarray, list[str]]:
    """To 8-bit RGB, turned, and laid on white."""
    values, alpha = samples.values, samples.alpha
    if samples.associated and alpha is not None:  # they have one scale
        both, notes = _in_eight_bits(np.concatenate([values, alpha[..., None]], axis=-1))
        colours, alpha = both[..., :-1], both[..., -1]
    else:
        colours, notes = _in_eight_bits(values)
        alpha = None if alpha is None else _opacity(alpha, values)
    if samples.light_is_zero:
        colours = 255 - colours
    colours = np.broadcast_to(colours, (*colours.shape[:2], 3))
    notes = [*samples.notes, *notes]
    if alpha is None or alpha.min() == 255:
        picture = Image.fromarray(np.ascontiguousarray(colours))
    else:
        share = max(0.1, round(100 * float((alpha < 255).mean()), 1))
        notes.append(f"has transparency: {share:g} % of the pixels are partly transparent; laid on white")
        mode = "RGBa" if samples.associated else "RGBA"
        layer = Image.frombytes(mode, alpha.shape[::-1], np.dstack([colours, alpha]).tobytes()).convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    picture.getexif()[ORIENTATION] = orientation
    return np.array(ImageOps.exif_transpose(picture)), notes  # a copy: Pillow's own memory cannot be written


def _opacity(alpha: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Scale alpha to 0..255; of whole numbers it has as many bits as the colours use, or all."""
    if alpha.dtype == np.uint8 or alpha.dtype.kind == "f":
        return _in_eight_bits(alpha)[0]
    colours, most = values.max(initial=0), alpha.max(initial=0)
    white = next((top for top in WHITES if colours <= top), FULL)
    return _scaled(alpha, white if most <= white else FULL)


def _in_eight_bits(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Scale numbers to 0..255. Files do not tell how many of their bits are in use: the values must."""
    if values.dtype == np.uint8:
        return values, []
    floating, notes = values.dtype.kind == "f", []
    if floating and not np.isfinite(values).all():
        values = np.where(np.isfinite(values), values, 0)
        notes.append("holds values that are no finite numbers; they were taken for black")
    highest = values.max(initial=0)
    top = 1 if floating and highest <= 2 else next((top for top in WHITES if highest <= top), FULL)
    if highest > 0 and (floating or top != FULL):
        notes.append(f"has values up to {highest:g}; white was taken to be {top}")
    if highest > top or values.min(initial=0) < 0:
        notes.append(f"holds values outside 0..{top}; they were cut off")
    if values.dtype == np.uint16:
        return _scaled(np.arange(FULL + 1), top)[values], notes
    return _scaled(values, top), notes


def _scaled(values: np.ndarray, top: int) -> np.ndarray:
    return (values.astype(np.float64).clip(0, top) / top * 255 + 0.5).astype(np.uint8)
