"""Pixel counts of an image, and the log that keeps one synced line of them per image on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rfclip.clip.weights import hash_file
from rfclip.io.atomic import write_whole


class DataError(ValueError):
    """An image or its labels cannot be used; the message is one sentence that names the file."""


@dataclass(frozen=True)
class ImageAreas:
    """Pixel counts of one image.

    Attributes:
        image: Name of the image, relative to the data root.
        classes: (C, 3) int64; per class the pixels where prediction and label agree, the predicted ones and
            the labelled ones, all among the pixels that are not ignored.
        ignored: Pixels with the ignored label.
        invalid: Pixels whose label is no class and not the ignored one either.
        data: Fingerprint of the files that were read; see :func:`fingerprint`.
        strange: A label that is no class and not the ignored one, as it stands in the file; None if there is none.
        written: Fingerprints of the files that were written for the image, by kind; see rfclip/runs/files.py.
    """

    image: str
    classes: NDArray[np.int64]
    ignored: int
    invalid: int
    data: str = ""
    strange: int | None = None
    written: Mapping[str, str] = field(default_factory=dict)

    def to_line(self, run: str = "") -> str:
        """One line of JSON that says to which run it belongs; classes without a pixel are left out."""
        areas = {str(index): row.tolist() for index, row in enumerate(self.classes) if row.any()}
        counts = {"areas": areas, "ignored": self.ignored, "invalid": self.invalid, "strange": self.strange}
        return json.dumps({"run": run, "image": self.image, "data": self.data, "written": dict(self.written), **counts})

    @classmethod
    def from_line(cls, line: str, num_classes: int, run: str = "") -> ImageAreas:
        """Read what :meth:`to_line` wrote.

        Raises:
            ValueError: The line is torn or belongs to another run.
        """
        try:
            entry = json.loads(line)
            if entry["run"] != run:
                raise ValueError(f"of another run than {run!r}")
            classes = np.zeros((num_classes, 3), np.int64)
            for index, row in entry["areas"].items():
                classes[int(index)] = row
            counts = (int(entry["ignored"]), int(entry["invalid"]))
            return cls(
                str(entry["image"]), classes, *counts, str(entry["data"]), entry["strange"], dict(entry["written"])
            )
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
            raise ValueError(f"no line of areas of {num_classes} classes: {line[:80]!r}") from error


def count_areas(
    image: str, prediction: Tensor, label: Tensor, num_classes: int, ignore_index: int = 255, data: str = ""
) -> ImageAreas:
    """Count an image's pixels per class.

    Args:
        image: Name to file them under.
        prediction: (H, W) integer labels.
        label: (H, W) integer labels, the truth.
        num_classes: C; labels 0 to C - 1 are classes.
        ignore_index: Label of the pixels that do not count.
        data: Fingerprint of the files that were read.

    Raises:
        DataError: Prediction and label differ in size.
    """
    if prediction.shape != label.shape:
        raise DataError(
            f"{image} is {tuple(prediction.shape)} pixels, but its labels are {tuple(label.shape)} (height, width)"
        )
    counted = label != ignore_index
    predicted, labelled = prediction[counted].long(), label[counted].long()
    three = (predicted[predicted == labelled], predicted, labelled)
    columns = [
        torch.bincount(values[(values >= 0) & (values < num_classes)], minlength=num_classes) for values in three
    ]
    invalid = labelled[(labelled < 0) | (labelled >= num_classes)]
    strange = int(invalid[0]) if len(invalid) else None
    return ImageAreas(image, torch.stack(columns, 1).cpu().numpy(), int((~counted).sum()), len(invalid), data, strange)


def fingerprint(info: Mapping[str, Any]) -> str:
    """Sixteen hex digits of the contents of an image's files.

    Args:
        info: `img_path` and, if there is one, `seg_map_path`; a file that is not there counts as such.
    """
    paths = [Path(info[key]) for key in ("img_path", "seg_map_path") if info.get(key)]
    hashes = [hash_file(path) if path.is_file() else "none" for path in paths]
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16]


class AreaLog:
    """The lines of one run, a file per process: ``areas-<rank>.jsonl`` in a folder.

    Args:
        folder: Where the files are; made when the first line is written.
        run: What the run is known by; lines of others are not read.
        rank: Number of this process.
    """

    def __init__(self, folder: str | Path, run: str = "", rank: int = 0) -> None:
        self.folder = Path(folder)
        self.run = run
        self.path = self.folder / f"areas-{rank}.jsonl"

    def append(self, areas: ImageAreas) -> None:
        """Add a line and wait until it is on disk. A torn line before it is left to stand by itself."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            torn = b"" if file.read(1) in (b"", b"\n") else b"\n"
            file.write(torn + areas.to_line(self.run).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def read(self, num_classes: int) -> dict[str, ImageAreas]:
        """All whole lines of the run, of all processes, by image; others are passed over."""
        areas: dict[str, ImageAreas] = {}
        for path in sorted(self.folder.glob("areas-*.jsonl")):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = ImageAreas.from_line(line, num_classes, self.run)
                except ValueError:
                    continue
                areas[entry.image] = entry
        return areas

    def keep(self, areas: Iterable[ImageAreas]) -> None:
        """Delete all lines, of all processes, but these of the run."""
        first = self.folder / "areas-0.jsonl"
        write_whole(first, "".join(f"{one.to_line(self.run)}\n" for one in areas))
        for path in self.folder.glob("areas-*.jsonl"):
            if path != first:
                path.unlink()


def image_name(path: str | Path, data_root: str | Path | None) -> str:
    """The path of an image relative to the data root, with forward slashes; as it is if outside."""
    path = Path(path)
    inside = data_root and path.is_relative_to(data_root)
    return (path.relative_to(str(data_root)) if inside else path).as_posix()
