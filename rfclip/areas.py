"""Pixel counts of an image, and the log that keeps one synced line of them per image on disk."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


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
    """

    image: str
    classes: NDArray[np.int64]
    ignored: int
    invalid: int

    def to_line(self) -> str:
        """One line of JSON; classes without a pixel are left out."""
        areas = {str(index): row.tolist() for index, row in enumerate(self.classes) if row.any()}
        return json.dumps({"image": self.image, "areas": areas, "ignored": self.ignored, "invalid": self.invalid})

    @classmethod
    def from_line(cls, line: str, num_classes: int) -> ImageAreas:
        """Read what :meth:`to_line` wrote.

        Raises:
            ValueError: The line is torn or belongs to something else.
        """
        try:
            entry = json.loads(line)
            classes = np.zeros((num_classes, 3), np.int64)
            for index, row in entry["areas"].items():
                classes[int(index)] = row
            return cls(str(entry["image"]), classes, int(entry["ignored"]), int(entry["invalid"]))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
            raise ValueError(f"no line of areas of {num_classes} classes: {line[:80]!r}") from error


def count_areas(image: str, prediction: Tensor, label: Tensor, num_classes: int, ignore_index: int = 255) -> ImageAreas:
    """Count an image's pixels per class.

    Args:
        image: Name to file them under.
        prediction: (H, W) integer labels.
        label: (H, W) integer labels, the truth.
        num_classes: C; labels 0 to C - 1 are classes.
        ignore_index: Label of the pixels that do not count.

    Raises:
        DataError: Prediction and label differ in size.
    """
    if prediction.shape != label.shape:
        raise DataError(
            f"{image} is {tuple(prediction.shape)} pixels, but its labels are {tuple(label.shape)} (height, width)"
        )
    counted = label != ignore_index
    predicted, labelled = prediction[counted].long(), label[counted].long()
    columns = [_histogram(values, num_classes) for values in (predicted[predicted == labelled], predicted, labelled)]
    valid = int(columns[2].sum())
    return ImageAreas(image, np.stack(columns, axis=1), int((~counted).sum()), int(counted.sum()) - valid)


def _histogram(values: Tensor, num_classes: int) -> NDArray[np.int64]:
    inside = values[(values >= 0) & (values < num_classes)]
    return torch.bincount(inside, minlength=num_classes).cpu().numpy().astype(np.int64)


class AreaLog:
    """The lines of one benchmark, a file per process: ``areas-<rank>.jsonl`` in a folder.

    Args:
        folder: Where the files are; made when the first line is written.
        rank: Number of this process.
    """

    def __init__(self, folder: str | Path, rank: int = 0) -> None:
        self.folder = Path(folder)
        self.path = self.folder / f"areas-{rank}.jsonl"

    def append(self, areas: ImageAreas) -> None:
        """Add a line and wait until it is on disk. A torn line before it is left to stand by itself."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            torn = b"" if file.read(1) in (b"", b"\n") else b"\n"
            file.write(torn + areas.to_line().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def read(self, num_classes: int) -> dict[str, ImageAreas]:
        """All whole lines of all processes, by image; lines that cannot be read are passed over."""
        areas: dict[str, ImageAreas] = {}
        for path in sorted(self.folder.glob("areas-*.jsonl")):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = ImageAreas.from_line(line, num_classes)
                except ValueError:
                    continue
                areas[entry.image] = entry
        return areas

    def clear(self) -> None:
        """Delete the lines of all processes."""
        for path in self.folder.glob("areas-*.jsonl"):
            path.unlink()


def image_name(path: str | Path, data_root: str | Path | None) -> str:
    """The path of an image relative to the data root, with forward slashes; as it is if outside."""
    path = Path(path)
    inside = data_root and path.is_relative_to(data_root)
    return (path.relative_to(str(data_root)) if inside else path).as_posix()
