"""Reading TIFFs with all their bands and bits, where Pillow drops some or refuses the file."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from rfclip.io.formats import NotReadError, open_picture

_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_RAW, _PACKED, _DEFLATE = 1, 32773, (8, 32946)  # values of the tag Compression
_OF_BYTES = (_RAW, _PACKED, *_DEFLATE, 5, 34925, 50000)  # those that know nothing of samples: also LZW, LZMA, Zstandard
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}  # of samples: whole numbers, with sign, floating point, undefined
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2  # values of the tag PhotometricInterpretation
ASSOCIATED, UNASSOCIATED = 1, 2  # values of the tag ExtraSamples; 0: no transparency


@dataclass(frozen=True)
class Layout:
    """How the samples lie in a file.

    Attributes:
        size: (height, width) in pixels.
        bands: Their number.
        kind: Of a sample, in the file's byte order.
        white_is_zero: Whether small values are light.
        colours: Number of bands that are colours, 1 or 3.
        extra: What each band behind the colours is, a value of ExtraSamples.
        compression, predictor: The values of those tags.
        separate: Whether each band lies for itself.
        tile: (height, width) of a strip or tile.
        tiled: Whether those at the edges are whole.
        places: (offset, bytes) of each strip or tile.
        orientation: As in EXIF.
        empty: The value of pixels without data (GDAL's tag), or None.
    """

    size: tuple[int, int]
    bands: int
    kind: np.dtype[Any]
    white_is_zero: bool
    colours: int
    extra: tuple[int, ...]
    compression: int
    predictor: int
    separate: bool
    tile: tuple[int, int]
    tiled: bool
    places: tuple[tuple[int, int], ...]
    orientation: int
    empty: float | None

    @property
    def alpha(self) -> int | None:
        """The band (from 0) that is said to be transparency."""
        return next((self.colours + i for i, what in enumerate(self.extra) if what in (ASSOCIATED, UNASSOCIATED)), None)


def read_layout(file: BinaryIO, head: bytes) -> Layout | None:
    """Where the samples of a TIFF lie; None if it is none, or one that Pillow reads without a loss.

    Raises:
        NotReadError: It is a camera's raw file, of which Pillow would read the thumbnail.
        ValueError: Its samples are of a kind that is not read.
    """
    if not head.startswith(_SIGNATURES):
        return None
    tags = _tags(file, head)
    if head[8:10] == b"CR" or 50706 in tags or (tags.get(254, 0) & 1 and 330 in tags):
        raise NotReadError("a camera's raw file")
    photometric, compression = tags.get(262, _BLACK_IS_ZERO), tags.get(259, _RAW)
    bands, bits = tags.get(277, 1), set(_all(tags, 258, (1,)))
    if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB) or compression not in _OF_BYTES or min(bits) < 8:
        return None
    kinds = set(_all(tags, 339, (1,)))
    named = 3 if photometric == _RGB else 1  # colours as the file counts them
    extra = (*_all(tags, 338, ()), *[0] * bands)[: max(0, bands - named)]
    colours = 3 if bands >= 3 and not any(extra[: 3 - named]) else 1  # three bands of no meaning are shown as colours
    whole = bands == named or (named == 3 and bands == 4 and extra[0] in (ASSOCIATED, UNASSOCIATED))
    if (bits == {8} and kinds == {1} and whole) or (bits == {12} and bands == 1):
        return None
    return _layout(tags, head, bands, bits, kinds, photometric == _WHITE_IS_ZERO, colours, extra[colours - named :])


def _layout(
    tags: ImageFileDirectory_v2,
    head: bytes,
    bands: int,
    bits: set[int],
    kinds: set[int],
    white_is_zero: bool,
    colours: int,
    extra: tuple[int, ...],
) -> Layout:
    width, height = tags[256], tags[257]
    most = 2 * (Image.MAX_IMAGE_PIXELS or width * height)
    if width * height > most:
        raise Image.DecompressionBombError(f"{width} x {height} pixels")
    kind = _KINDS.get(min(kinds), "")
    if len(bits) > 1 or len(kinds) > 1 or not kind or min(bits) not in (8, 16, 32, 64) or (kind, min(bits)) == ("f", 8):
        raise ValueError(f"samples of {sorted(bits)} bits (sample format {sorted(kinds)}) are not read")
    if tags.get(266, 1) != 1:
        raise ValueError("its bits stand in reversed order (FillOrder 2)")
    tiled = 324 in tags
    offsets, counts = (_all(tags, tag, ()) for tag in ((324, 325) if tiled else (273, 279)))
    tile = (tags[323], tags[322]) if tiled else (min(tags.get(278, height), height), width)
    separate, compression = tags.get(284, 1) == 2, tags.get(259, _RAW)
    needed = ceil(height / tile[0]) * ceil(width / tile[1]) * (bands if separate else 1)
    if not len(offsets) == len(counts) == needed:
        raise ValueError(f"it says where {min(len(offsets), len(counts))} of {needed} parts lie")
    return Layout(
        size=(height, width),
        bands=bands,
        kind=np.dtype(("<" if head.startswith(b"II") else ">") + f"{kind}{min(bits) // 8}"),
        white_is_zero=white_is_zero,
        colours=colours,
        extra=extra,
        compression=compression,
        predictor=1 if compression in (_RAW, _PACKED) else tags.get(317, 1),  # it belongs to the others alone
        separate=separate,
        tile=tile,
        tiled=tiled,
        places=tuple(zip(offsets, counts, strict=True)),
        orientation=tags.get(274, 1),
        empty=_number(tags.get(42113)),
    )


def count_pages(file: BinaryIO, head: bytes) -> int:
    """How many pictures a TIFF holds."""
    tags, places = _tags(file, head), {0}
    while tags.next not in places:
        places.add(tags.next)
        _load(tags, file)
    return len(places)


def read_bands(file: BinaryIO, layout: Layout, chosen: Sequence[int]) -> np.ndarray:
    """Read bands, counted from 0, as (H, W, len(chosen)) of the file's kind of numbers.

    Raises:
        ValueError, OSError: The file is damaged.
    """
    (height, width), (rows, columns) = layout.size, layout.tile
    down, across = ceil(height / rows), ceil(width / columns)
    out = np.zeros((height, width, len(chosen)), layout.kind.newbyteorder("="))  # where a sparse file has nothing: 0
    for target, band in enumerate(chosen if layout.separate else chosen[:1]):
        for index in range(down * across):
            y, x = index // across * rows, index % across * columns
            tall = rows if layout.tiled else min(rows, height - y)
            part = _part(file, layout, index + (band * down * across if layout.separate else 0), tall)
            if part is not None:
                places = slice(target, target + 1) if layout.separate else slice(None)
                picked = part if layout.separate else part[..., list(chosen)]
                out[y : y + tall, x : x + columns, places] = picked[: height - y, : width - x]
    return out


def _part(file: BinaryIO, layout: Layout, index: int, rows: int) -> np.ndarray | None:
    """A strip or tile (rows, columns, its bands); None if the file leaves it out."""
    offset, count = layout.places[index]
    if count == 0:
        return None
    file.seek(offset)
    data, bands = file.read(count), 1 if layout.separate else layout.bands
    width = layout.tile[1] * bands * layout.kind.itemsize  # bytes of a row
    if layout.compression in _DEFLATE:
        data = zlib.decompressobj().decompress(data, rows * width)
    elif layout.compression != _RAW:
        data = _unpacked(data, layout.compression, rows, width)
    if len(data) < rows * width:
        raise ValueError("it ends too early")
    lines = np.frombuffer(data, np.uint8, rows * width).reshape(rows, width)
    return _undone(lines, layout, bands).reshape(rows, layout.tile[1], bands)


def _undone(lines: np.ndarray, layout: Layout, bands: int) -> np.ndarray:
    """Samples of rows of bytes, of which a predictor has made differences of neighbours."""
    rows, kind, native = len(lines), layout.kind, layout.kind.newbyteorder("=")
    if layout.predictor == 1:
        return lines.view(kind).astype(native)
    if layout.predictor == 2:
        whole = lines.view(kind.str.replace(kind.kind, "u")).astype(f"u{kind.itemsize}").reshape(rows, -1, bands)
        return np.cumsum(whole, axis=1, dtype=whole.dtype).view(native)
    if layout.predictor == 3 and kind.kind == "f":  # bytes of equal weight lie together, the highest first
        whole = np.cumsum(lines.reshape(rows, -1, bands), axis=1, dtype=np.uint8)
        planes = whole.reshape(rows, kind.itemsize, -1).transpose(0, 2, 1)
        return np.ascontiguousarray(planes).view(kind.newbyteorder(">")).astype(native)
    raise ValueError(f"predictor {layout.predictor} is not read")


def _unpacked(data: bytes, compression: int, rows: int, width: int) -> bytes:
    """Let Pillow decompress bytes, as a grey picture of one strip."""
    pad = b"\0" * (len(data) % 2)
    short, long = "<HHIHxx", "<HHII"
    entries = (
        (long, 256, 4, width),
        (long, 257, 4, rows),
        (short, 258, 3, 8),
        (short, 259, 3, compression),
        (short, 262, 3, _BLACK_IS_ZERO),
        (long, 273, 4, 8),
        (short, 277, 3, 1),
        (long, 278, 4, rows),
        (long, 279, 4, len(data)),
    )
    table = b"".join(struct.pack(form, tag, kind, 1, value) for form, tag, kind, value in entries)
    head = b"II*\0" + struct.pack("<I", 8 + len(data) + len(pad))
    content = head + data + pad + struct.pack("<H", len(entries)) + table + bytes(4)
    with open_picture(io.BytesIO(content)) as image:
        return image.tobytes()


def _tags(file: BinaryIO, head: bytes) -> ImageFileDirectory_v2:
    """The tags of the first picture in a TIFF."""
    tags = ImageFileDirectory_v2(head[: 16 if 43 in head[2:4] else 8])
    _load(tags, file)
    if not {256, 257, *((322, 323) if 324 in tags else ())} <= set(tags):
        raise ValueError("its list of tags is damaged")
    return tags


def _load(tags: ImageFileDirectory_v2, file: BinaryIO) -> None:
    file.seek(tags.next)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of damage: what is missing is found below
        tags.load(file)


def _number(text: Any) -> float | None:
    try:
        return float(str(text).strip(" \0"))
    except ValueError:
        return None


def _all(tags: ImageFileDirectory_v2, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
    """A tag's values, however many there are."""
    values = tags.get(tag, default)
    return values if isinstance(values, tuple) else (values,)
