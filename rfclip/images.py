"""Reading pictures of any kind as RGB, and the resize rule of the configs."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from rfclip.checks import shown

LONG_SIDE = 2048  # pixels; no side becomes longer, whatever the short side is

# What Pillow raises on damaged files. It documents OSError alone, but its decoders are many and parse what they find
# with plain Python, so that a wrong byte surfaces as whatever that line of code raises: RuntimeError (AVIF, DDS),
# LookupError and TypeError (GIF, TIFF), struct.error (EXIF), ...
DAMAGE: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    struct.error,
    zlib.error,
)

ImageSource = str | Path | Image.Image | np.ndarray


def read_image(source: ImageSource) -> np.ndarray:
    """Return a picture as (H, W, 3) uint8 RGB.

    Turned as its EXIF tag says; grey becomes RGB, CMYK is converted, what is transparent is laid on white, and of an
    animation the first frame is taken. Grey of more than 8 bits is scaled: white is 65535, or 4095 or 255 if no value
    is larger; of floating-point values 1, 255 or 65535.

    Args:
        source: a path, a PIL image, or an (H, W, 3) uint8 RGB array, which is returned as it is.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no readable picture, or an array of another shape or type.
        TypeError: something else.
    """
    return read_with_notes(source)[0]


def read_with_notes(source: ImageSource) -> tuple[np.ndarray, list[str]]:
    """Read as :func:`read_image`, and say what was guessed: clauses such as "has grey values up to 4000; ..."."""
    if isinstance(source, np.ndarray):
        return _checked_array(source), []
    if isinstance(source, Image.Image):
        if 0 in source.size:
            raise ValueError(f"the image is empty: it has {source.width} x {source.height} pixels")
        return _as_rgb(source)
    if not isinstance(source, (str, Path)):
        raise TypeError(f"an image is a path, a PIL image or a uint8 RGB array (H, W, 3), got {type(source).__name__}")
    with _sentences(source), Image.open(source) as image:
        return _as_rgb(image)


def frame_count(path: str | Path) -> int:
    """How many frames an image file holds; above 1 it is animated, and :func:`read_image` takes the first.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_image`; a file may have a sound first frame and damaged others.
    """
    with _sentences(path), Image.open(path) as image:
        return getattr(image, "n_frames", 1)


@contextmanager
def _sentences(source: str | Path) -> Iterator[None]:
    """Make one sentence of whatever reading a file raises."""
    try:
        found = Path(source).is_file()
    except OSError as error:  # a name that is too long, say
        raise FileNotFoundError(f"no image file {shown(str(source))}: {error.strerror}") from error
    if not found:
        raise FileNotFoundError(f"no image file {str(source)!r}")
    try:
        yield
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ValueError(
            f"{str(source)!r} claims to have more than {most // 10**6} million pixels, and such files "
            "can be made to fill the memory, so Pillow reads none: make a smaller copy"
        ) from error
    except DAMAGE as error:
        raise ValueError(f"{str(source)!r} cannot be read as an image: {error}") from error


def resize_short_side(image: np.ndarray, short_side: int) -> np.ndarray:
    """Resize (H, W, 3) uint8 to a short side in pixels, keeping the aspect ratio: the rule of the configs.

    That is mmcv's Resize with scale (2048, short side) and keep_ratio: bilinear, long side at most 2048.
    """
    height, width = image.shape[:2]
    scale = min(LONG_SIDE / max(height, width), short_side / min(height, width))
    size = (max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5)))
    return image if size == (width, height) else cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def _checked_array(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(f"an image array must be (H, W, 3) uint8 RGB and not empty, got {array.shape} {array.dtype}")
    return array


def _as_rgb(image: Image.Image) -> tuple[np.ndarray, list[str]]:
    image = ImageOps.exif_transpose(image)
    notes: list[str] = []
    if image.mode.startswith("I") or image.mode == "F":
        image, notes = _in_eight_bits(image)
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.asarray(image.convert("RGB")), notes


def _in_eight_bits(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Scale integers or floats to 0..255. Files do not tell how many of their bits are in use: the values must."""
    values, notes = np.asarray(image, np.float64), []
    finite = np.isfinite(values)
    if not finite.all():
        values = np.where(finite, values, 0)
        notes.append("holds values that are no finite numbers; they were taken for black")
    highest = values.max(initial=0)
    tops = (1, 255, 65535) if image.mode == "F" else (255, 4095, 65535)
    top = next((top for top in tops if highest <= top), tops[-1])
    if highest > 0 and (image.mode == "F" or top != tops[-1]):
        notes.append(f"has grey values up to {highest:g}; white was taken to be {top}")
    if highest > top or values.min(initial=0) < 0:
        notes.append(f"holds values outside 0..{top}; they were cut off")
    return Image.fromarray((values.clip(0, top) / top * 255 + 0.5).astype(np.uint8)), notes
