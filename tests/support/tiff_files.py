"""Writes TIFFs of kinds that Pillow and OpenCV write none of: many bands, tiles, planes, predictors."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

FORMATS = {"u": 1, "i": 2, "f": 3}
ASCII, SHORT, LONG = 2, 3, 4
LETTERS = {ASCII: "B", SHORT: "H", LONG: "I"}


def tiff_bytes(
    values: np.ndarray,
    photometric: int | None = None,
    extra: Sequence[int] | None = None,
    *,
    separate: bool = False,
    tile: tuple[int, int] | None = None,
    rows: int | None = None,
    compression: int = 1,
    predictor: int = 1,
    order: str = "<",
    more: dict[int, tuple[int, list[int]]] | None = None,
) -> bytes:
    """(H, W, bands) as a TIFF; `more`: further tags, each with its type and values."""
    height, width, bands = values.shape
    size = tile or (rows or height, width)
    parts = [
        packed(differences(part, predictor, order), compression)
        for plane in (np.split(values, bands, axis=2) if separate else [values])
        for part in pieces(plane, size, whole=tile is not None)
    ]
    offsets = [8 + sum(map(len, parts[:index])) for index in range(len(parts))]
    counts = [len(part) for part in parts]
    tags = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [8 * values.dtype.itemsize] * bands),
        259: (SHORT, [compression]),
        262: (SHORT, [(2 if bands >= 3 else 1) if photometric is None else photometric]),
        277: (SHORT, [bands]),
        284: (SHORT, [2 if separate else 1]),
        317: (SHORT, [predictor]),
        339: (SHORT, [FORMATS[values.dtype.kind]] * bands),
        **({322: (LONG, [size[1]]), 323: (LONG, [size[0]])} if tile else {278: (LONG, [size[0]])}),
        (324 if tile else 273): (LONG, offsets),
        (325 if tile else 279): (LONG, counts),
        **({} if extra is None else {338: (SHORT, list(extra))}),
        **(more or {}),
    }
    body = b"".join(parts)
    body += b"\0" * (len(body) % 2)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(body))
    return head + body + directory(tags, 8 + len(body), order)


def pieces(plane: np.ndarray, size: tuple[int, int], whole: bool) -> Iterator[np.ndarray]:
    """Strips or tiles; `whole`: those at the edges are filled up."""
    for y in range(0, plane.shape[0], size[0]):
        for x in range(0, plane.shape[1], size[1]):
            part = plane[y : y + size[0], x : x + size[1]]
            missing = [(0, size[0] - part.shape[0]), (0, size[1] - part.shape[1]), (0, 0)]
            yield np.pad(part, missing) if whole else part


def differences(part: np.ndarray, predictor: int, order: str) -> bytes:
    """The bytes of a piece, of neighbours only what changes."""
    kind, bands = part.dtype, part.shape[2]
    if predictor == 2:
        part = part.view(f"u{kind.itemsize}")
    if predictor == 3:
        part = part.astype(kind.newbyteorder(">")).view(np.uint8).reshape(len(part), -1, kind.itemsize)
        part = part.transpose(0, 2, 1).reshape(len(part), -1, bands)
    if predictor > 1:
        part = np.concatenate([part[:, :1], np.diff(part, axis=1)], axis=1)
    return part.astype(part.dtype.newbyteorder(order)).tobytes()


def packed(data: bytes, compression: int) -> bytes:
    if compression == 8:
        return zlib.compress(data)
    if compression == 5:
        file = io.BytesIO()
        Image.fromarray(np.frombuffer(data, np.uint8)[None]).save(file, "TIFF", compression="tiff_lzw")
        with Image.open(file) as image:
            (place,), (count,) = image.tag_v2[273], image.tag_v2[279]
        return file.getvalue()[place : place + count]
    return data


def directory(tags: dict[int, tuple[int, list[int]]], place: int, order: str) -> bytes:
    table, far = b"", b""
    after = place + 2 + 12 * len(tags) + 4
    for tag, (kind, values) in sorted(tags.items()):
        raw = struct.pack(f"{order}{len(values)}{LETTERS[kind]}", *values)
        if len(raw) > 4:
            raw, far = struct.pack(f"{order}I", after + len(far)), far + raw + b"\0" * (len(raw) % 2)
        table += struct.pack(f"{order}HHI", tag, kind, len(values)) + raw.ljust(4, b"\0")
    return struct.pack(f"{order}H", len(tags)) + table + bytes(4) + far
