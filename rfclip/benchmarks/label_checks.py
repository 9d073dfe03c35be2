"""Reads an image and its label map to the end, and says what is wrong with the values of one map and of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rfclip.io.formats import open_picture
from rfclip.io.images import DAMAGE

IGNORED = 255
# VOC's outlines, 255, cover 6 % of real label maps and its background, 0, 68 %; with 1 taken off 255 has both shares
WIDEST_OUTLINES = 0.1
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
SCAN, END = b"\xff\xda", b"\xff\xd9"  # markers of a JPEG: pixels follow, and the end; neither occurs among the pixels
READ_ERRORS: tuple[type[Exception], ...] = (*DAMAGE, MemoryError, Image.DecompressionBombError)
AGAIN = "make the sample again: remove it, then rfclip prepare sample"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        kind: What it is about: 'missing', 'count', 'pairing', 'unreadable', 'size', 'labels' or 'classes'.
        file: Relative to the data root of the benchmark; None if it is about no single file. Of a finding about many
            label maps, one that shows it.
        text: What is wrong.
        cure: What to do.
    """

    kind: str
    file: str | None
    text: str
    cure: str

    def __str__(self) -> str:
        place = f"{self.file}: " if self.file is not None else ""
        return f"{place}{self.text}; {self.cure}"


@dataclass(frozen=True)
class Convention:
    """Which values a benchmark's label maps may hold.

    Attributes:
        classes: Names of the classes.
        first: Value of class 0: 1 where 0 is taken off by the config, else 0.
        void: Whether 255, not labelled, may occur; where it may not, that is 0.
        prepare: How right label maps are made.
        complete: Whether every class must occur, as in the generated sample.
    """

    classes: tuple[str, ...]
    first: int
    void: bool
    prepare: str
    complete: bool = False

    @property
    def top(self) -> int:
        """Value of the last class."""
        return self.first + len(self.classes) - 1

    @property
    def has_background(self) -> bool:
        """Whether 0 is all that is none of the objects."""
        return self.first == 1 or self.classes[0] == "background"


@dataclass(frozen=True)
class Look:
    """What an image and its label map show.

    Attributes:
        label: The label map, relative to the benchmark's data root.
        findings: What is wrong with the two.
        shares: Per value that occurs, its share of the pixels, 0 to 1; empty if the map could not be read.
    """

    label: str
    findings: tuple[Finding, ...] = ()
    shares: dict[int, float] = field(default_factory=dict)


def look_at(image: Path, label: Path, convention: Convention, root: Path) -> Look:
    """Read an image and its label map to the end.

    Args:
        image: The image.
        label: Its label map.
        convention: What the map may hold.
        root: The benchmark's data root.
    """
    findings: list[Finding] = []
    name = relative(label, root)
    picture = _read(image, root, "copy it again from the original archive", findings)
    labels = _read(label, root, "copy or make it again", findings)
    if labels is None:
        return Look(name, tuple(findings))
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        text = f"holds colours or truth values {labels.shape} {labels.dtype}, not one class index per pixel"
        return Look(name, (*findings, Finding("labels", name, text, convention.prepare)))
    if picture is not None and picture.shape[:2] != labels.shape:
        height, width = picture.shape[:2]
        text = f"is {labels.shape[1]} x {labels.shape[0]} pixels, its image {width} x {height}"
        findings.append(Finding("size", name, text, "take image and label map from the same release"))
    values, counts = np.unique(labels, return_counts=True)
    findings += [Finding("labels", name, text, convention.prepare) for text in _strange(values, convention)]
    shares = {int(value): int(count) / labels.size for value, count in zip(values, counts, strict=True)}
    return Look(name, tuple(findings), shares)


def occurrences(looks: Sequence[Look], convention: Convention) -> dict[str, int]:
    """Per class the number of label maps that show it; empty if none could be read."""
    seen = Counter(value for look in looks for value in look.shares)
    return {name: seen[value] for value, name in enumerate(convention.classes, convention.first)} if seen else {}


def overall(looks: Sequence[Look], convention: Convention) -> list[Finding]:
    """What is wrong with all label maps together: what none of them shows alone."""
    read = [look for look in looks if look.shares]
    if not read:
        return []
    occurs = occurrences(read, convention)
    there = [name for name, count in occurs.items() if count]
    absent = [name for name in occurs if name not in there]
    kind, name, cure = "classes", read[0].label, convention.prepare
    findings = _taken_off(read, convention)
    if not there:
        values = sorted({value for look in read for value in look.shares})
        text = f"shows no class, nor does any other label map: the only values are {values[:5]}"
        findings.append(Finding(kind, name, text, cure))
    elif len(there) == 1 and len(occurs) > 1 and len(read) > 1:
        findings.append(Finding(kind, name, f"shows one class only, {there[0]}, as all label maps do", cure))
    elif convention.complete and absent and not any(look.findings for look in looks):
        text = f"the generated sample shows every class, and here are missing: {shortened(absent)}"
        findings.append(Finding(kind, None, text, AGAIN))
    return findings


def shortened(names: Sequence[str], most: int = 8) -> str:
    """The first names, and dots if there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def relative(path: Path, root: Path) -> str:
    """The path below `root`, or the bare name."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _strange(values: np.ndarray, convention: Convention) -> list[str]:
    """What is wrong with the values of one label map."""
    texts = []
    strange = values[(values > convention.top) & (values != IGNORED)]
    if strange.size:
        allowed = f"0..{convention.top}" + (f" and {IGNORED}" if convention.void else "")
        texts.append(f"holds the values {strange[:5].tolist()}, expected {allowed}")
    if not convention.void and IGNORED in values:
        texts.append(f"holds {IGNORED} where 0 should be: what is not labelled was left in, or 1 taken off already")
    return texts


def _taken_off(read: Sequence[Look], convention: Convention) -> list[Finding]:
    """Whether 255 may occur, and has the place of the background, so that all other values are one too low."""
    if not (convention.void and convention.has_background):
        return []
    void, zero = (sum(look.shares.get(value, 0.0) for look in read) / len(read) for value in (IGNORED, 0))
    if void <= max(zero, WIDEST_OUTLINES):
        return []
    worst = max(read, key=lambda look: look.shares.get(IGNORED, 0.0))
    text = (
        f"{worst.shares[IGNORED]:.0%} of it are {IGNORED}, of all label maps {void:.0%}, and 0, the background, only "
        f"{zero:.0%}: it looks as if 1 had been taken off already"
    )
    return [Finding("labels", worst.label, text, convention.prepare)]


def _read(path: Path, root: Path, cure: str, findings: list[Finding]) -> np.ndarray | None:
    """The pixels of an image; None, and a finding, if it is damaged."""
    try:
        return _pixels(path.read_bytes())
    except READ_ERRORS as error:
        reason = "it is no image" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
        findings.append(Finding("unreadable", relative(path, root), f"cannot be read ({reason})", cure))
        return None


def _pixels(data: bytes) -> np.ndarray:
    """The pixels of an image that is there to its end, turned as OpenCV turns a photo.

    Raises:
        READ_ERRORS: It is damaged.
    """
    with open_picture(BytesIO(data)) as image:
        is_jpeg = image.format in ("JPEG", "MPO")
        image.verify()  # a PNG's checksums up to its last chunk, which reading the pixels leaves out
    if is_jpeg and data.rfind(END) < data.rfind(SCAN):
        raise OSError("it ends too early: there is no end marker")  # libjpeg would fill the rest with grey
    with open_picture(BytesIO(data)) as image:
        turned = image.getexif().get(0x0112) in TURNED and image.mode in ("RGB", "L", "CMYK")
        return np.asarray(ImageOps.exif_transpose(image) if turned else image)
