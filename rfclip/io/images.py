"""Reading pictures of any kind as RGB, and the resize rule of the configs."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from rfclip.checks import shown
from rfclip.io import tiff
from rfclip.io.eight_bits import ORIENTATION, to_rgb
from rfclip.io.formats import NotReadError, is_raw, open_picture, read_head
from rfclip.io.samples import of_pillow, of_tiff, picked

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
    cv2.error,
)


ImageSource = str | Path | Image.Image | np.ndarray


def read_image(source: ImageSource, bands: Sequence[int] | None = None) -> np.ndarray:
    """Return a picture as (H, W, 3) uint8 RGB.

    Turned as its EXIF tag says; grey becomes RGB, CMYK is converted, what is transparent is laid on white, and of an
    animation the first frame is taken. Of more than three bands the first three are taken, and one more is
    transparency only if the file says so.

    Samples that are no 8-bit numbers, of grey or of colours, are scaled together: white is the smallest of 255, 511,
    1023, ..., 65535 that none exceeds; of floating-point numbers it is 1 if none exceeds 2. Files do not tell how many
    of their bits are in use.

    Args:
        source: a path, a PIL image, or an (H, W, 3) uint8 RGB array, which is returned as it is.
        bands: which bands, counted from 1, are red, green and blue; one: it is shown as grey. Transparency is then
            left out. None: as above.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no readable picture, or an array of another shape or type, or no such band.
        TypeError: something else.
    """
    return read_with_notes(source, bands)[0]


def read_with_notes(source: ImageSource, bands: Sequence[int] | None = None) -> tuple[np.ndarray, list[str]]:
    """Read as :func:`read_image`, and say what was guessed: clauses such as "has values up to 4000; ..."."""
    chosen = None if bands is None else check_bands(bands)
    if isinstance(source, np.ndarray):
        array: np.ndarray = source
        if chosen is not None and array.ndim == 3:
            array = np.broadcast_to(picked(array, chosen), (*array.shape[:2], 3)).copy()
        return _checked_array(array), []
    if isinstance(source, Image.Image):
        if 0 in source.size:
            raise ValueError(f"the image is empty: it has {source.width} x {source.height} pixels")
        with _sentences("the PIL image"):
            samples = of_pillow(source, None, chosen)
            return to_rgb(samples, source.getexif().get(ORIENTATION, 1))
    if not isinstance(source, (str, Path)):
        raise TypeError(f"an image is a path, a PIL image or a uint8 RGB array (H, W, 3), got {type(source).__name__}")
    with _opened(source) as file:
        return _read(file, chosen)


def path_of(source: ImageSource) -> Path | None:
    """The file that a picture comes from, where that is known."""
    if isinstance(source, np.ndarray):
        return None
    path = getattr(source, "filename", None) if isinstance(source, Image.Image) else source
    return Path(path) if isinstance(path, (str, Path)) and path else None


def sentence(name: str, clauses: Sequence[str]) -> str | None:
    """What to say of a picture of this name; None if there is nothing to say.

    Example:
        >>> sentence("a.tif", ["has 4 bands", "is 16 bits deep"])
        'a.tif has 4 bands, and is 16 bits deep'
    """
    return f"{name} {', and '.join(clauses)}" if clauses else None


def decode(content: bytes, name: str) -> tuple[np.ndarray, list[str]]:
    """Read the bytes of a file as :func:`read_with_notes` reads a path; `name` is that of the file."""
    file = io.BytesIO(content)
    file.name = name
    with _sentences(repr(name)):
        return _read(file, None)


def is_plain_jpeg(content: bytes) -> bool:
    """Whether these are the bytes of a JPEG of 8-bit grey or RGB, which no rule is needed for."""
    try:
        with open_picture(io.BytesIO(content)) as image:
            return image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB")
    except DAMAGE:
        return False


def check_bands(bands: Sequence[int]) -> tuple[int, ...]:
    """Return bands, counted from 1, as indices from 0.

    Raises:
        ValueError: they are not three whole numbers from 1 on, or one.

    Example:
        >>> check_bands([4, 3, 2])
        (3, 2, 1)
    """
    chosen = tuple(bands)
    if len(chosen) not in (1, 3) or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in chosen):
        raise ValueError(f"bands are three whole numbers from 1 on, such as 3,2,1, or one, got {bands!r}")
    return tuple(number - 1 for number in chosen)


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an image file in pixels as they are stored, without reading them.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_image`.
    """
    with _opened(path) as file:
        layout = tiff.read_layout(file, read_head(file))
        if layout is not None:
            return layout.size
        with open_picture(file) as image:
            return image.height, image.width


def frame_count(path: str | Path) -> int:
    """How many frames an image file holds; above 1 it is animated, and :func:`read_image` takes the first.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_image`; a file may have a sound first frame and damaged others.
    """
    with _opened(path) as file:
        head = read_head(file)
        if tiff.read_layout(file, head) is not None:
            return tiff.count_pages(file, head)
        with open_picture(file) as image:
            return getattr(image, "n_frames", 1)


@contextmanager
def _opened(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file, and make one sentence of whatever reading it raises."""
    try:
        found = Path(path).is_file()
    except OSError as error:  # a name that is too long, say
        raise FileNotFoundError(f"no image file {shown(str(path))}: {error.strerror}") from error
    if not found:
        raise FileNotFoundError(f"no image file {str(path)!r}")
    with _sentences(repr(str(path))), Path(path).open("rb") as file:
        yield file


@contextmanager
def _sentences(what: str) -> Iterator[None]:
    """Make one sentence of whatever reading raises; `what` says what was read."""
    try:
        yield
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ValueError(
            f"{what} claims to have more than {most // 10**6} million pixels, and such files "
            "can be made to fill the memory, so Pillow reads none: make a smaller copy"
        ) from error
    except NotReadError as error:
        raise ValueError(f"{what} {error}") from error
    except DAMAGE as error:
        raise ValueError(f"{what} cannot be read as an image: {error}") from error


def cut_clause(seen: tuple[int, int], short_side: int) -> str | None:
    """A clause if a picture, seen as (h, w), is smaller than was wished, because its long side may not be longer.

    Example:
        >>> cut_clause((100, 2048), 336)
        'was seen with a short side of 100 pixels instead of 336: no side becomes longer than 2048'
        >>> cut_clause((336, 448), 336)
    """
    if min(seen) >= short_side:
        return None
    return (
        f"was seen with a short side of {min(seen)} pixels instead of {short_side}: no side becomes longer than "
        f"{LONG_SIDE}"
    )


def resize_short_side(image: np.ndarray, short_side: int) -> np.ndarray:
    """Resize (H, W, 3) uint8 to a short side in pixels, keeping the aspect ratio: the rule of the configs.

    That is mmcv's Resize with scale (2048, short side) and keep_ratio: bilinear, long side at most 2048.
    """
    height, width = resized_size((image.shape[0], image.shape[1]), short_side)
    if (height, width) == image.shape[:2]:
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def resized_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(height, width) after :func:`resize_short_side`.

    Example:
        >>> resized_size((375, 500), 336)
        (336, 448)
    """
    scale = min(LONG_SIDE / max(size), short_side / min(size))
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def _checked_array(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(f"an image array must be (H, W, 3) uint8 RGB and not empty, got {array.shape} {array.dtype}")
    return array


def _read(file: BinaryIO, chosen: tuple[int, ...] | None) -> tuple[np.ndarray, list[str]]:
    """Read a file; `chosen`: bands, counted from 0."""
    if is_raw(getattr(file, "name", "")):
        raise NotReadError("a camera's raw file")
    layout = tiff.read_layout(file, read_head(file))
    if layout is not None:
        return to_rgb(of_tiff(file, layout, chosen), layout.orientation)
    with open_picture(file) as image:
        samples = of_pillow(image, file, chosen)
        return to_rgb(samples, image.getexif().get(ORIENTATION, 1))  # none is left where reading turned the pixels
