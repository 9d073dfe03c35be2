"""Which kinds of pictures are opened, and what is said of those that are not."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

# Pillow goes by a file's content, whatever its name, and for some kinds it starts other programs (EPS: Ghostscript).
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"}
SUFFIXES |= {".tif", ".tiff", ".webp"}  # of files that are taken for pictures where a folder is searched
CURE = "save it as JPEG or PNG"
_HEAD = 1024  # bytes in which a file shows what it is
_SIGNATURES: tuple[tuple[str, int, tuple[bytes, ...]], ...] = (
    ("EPS", 0, (b"%!PS", b"\xc5\xd0\xd3\xc6")),
    ("PDF", 0, (b"%PDF",)),
    ("HEIC", 4, (b"ftyphei", b"ftyphev", b"ftypmif", b"ftypmsf")),
    ("AVIF", 4, (b"ftypavi",)),
    ("a camera's raw file", 4, (b"ftypcrx",)),
    ("a camera's raw file", 0, (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"IIU\0")),
    ("a video", 4, (b"ftyp",)),
    ("JPEG XL", 0, (b"\xff\x0a", b"\0\0\0\x0cJXL ")),
    ("Photoshop's PSD", 0, (b"8BPS",)),
    ("GIMP's XCF", 0, (b"gimp xcf",)),
    ("OpenEXR", 0, (b"\x76\x2f\x31\x01",)),
    ("Radiance HDR", 0, (b"#?RADIANCE", b"#?RGBE")),
    ("DDS", 0, (b"DDS ",)),
    ("an icon", 0, (b"\0\0\1\0",)),
    ("Windows Metafile", 0, (b"\xd7\xcd\xc6\x9a", b"\1\0\0\0")),
    ("FITS", 0, (b"SIMPLE  =",)),
    ("HDF5", 0, (b"\x89HDF",)),
    ("a NumPy array", 0, (b"\x93NUMPY",)),
    ("a ZIP archive", 0, (b"PK\3\4",)),
    ("DICOM", 128, (b"DICM",)),
)
_TEXTS = (("SVG", b"<svg"), ("a web page", b"<html"), ("a web page", b"<!doctype html"))  # anywhere in the head
_RAW = {".3fr", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".sr2", ".srw"}
_ENDINGS = {".heic": "HEIC", ".heif": "HEIC", ".svg": "SVG", ".svgz": "SVG", ".pdf": "PDF", ".eps": "EPS", ".ps": "EPS"}
_ENDINGS |= {".ai": "EPS", ".psd": "Photoshop's PSD", ".jxl": "JPEG XL", ".tga": "Targa", ".ico": "an icon"}


class NotReadError(ValueError):
    """A file is of a kind that is not read; the sentence names the kind and the cure, and not the file."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"is {kind}, which is not read: {CURE}")
        self.kind = kind


def open_picture(file: str | Path | BinaryIO) -> Image.Image:
    """Open a file as Pillow does, if it is of one of the kinds in FORMATS.

    Raises:
        NotReadError: it is of another kind that is known.
        UnidentifiedImageError, OSError: it is none at all, or is damaged.
    """
    Image.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large, and below the limit
        try:
            return Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])  # AVIF: from 11.3 on
        except UnidentifiedImageError as error:
            path = file if isinstance(file, (str, Path)) else getattr(file, "name", "")
            kind = unread_kind(_head_of(file), path)
            if kind is not None:
                raise NotReadError(kind) from error
            raise UnidentifiedImageError(f"it is none of {', '.join(FORMATS)}, or is damaged at its start") from error


def is_raw(path: str | Path) -> bool:
    """Whether a name has the ending of a camera's raw file, of which Pillow would read the thumbnail."""
    return Path(path).suffix.lower() in _RAW


def unread_kind(head: bytes, path: str | Path = "") -> str | None:
    """What a file is that is none of FORMATS, by its first bytes, else by its name's ending; None: nobody knows."""
    for kind, offset, signatures in _SIGNATURES:
        if head[offset:].startswith(signatures):
            return kind
    lower = head[:_HEAD].lower()
    for kind, sign in _TEXTS:
        if sign in lower:
            return kind
    return "a camera's raw file" if is_raw(path) else _ENDINGS.get(Path(path).suffix.lower())


def read_head(file: BinaryIO) -> bytes:
    """The first bytes of a file; it is left at its start."""
    file.seek(0)
    head = file.read(_HEAD)
    file.seek(0)
    return head


def _head_of(file: str | Path | BinaryIO) -> bytes:
    if not isinstance(file, (str, Path)):
        return read_head(file)
    with Path(file).open("rb") as stream:
        return read_head(stream)
