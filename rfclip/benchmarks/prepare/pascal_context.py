"""Make PASCAL Context with 60 classes from its annotations of 459 classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rfclip.benchmarks.prepare.convert import Job, read_list, run, save_list, show_images, status, table_of
from rfclip.benchmarks.prepare.mat import read_variable

# Of the 459 labels, the 59 that are evaluated, in the order of mmseg's PascalContextDataset (which is alphabetical)
EVALUATED = (
    2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144, 158,
    159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360,
    366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458,
)  # fmt: skip
LABELS = 459
ARCHIVE = "VOCtrainval_03-May-2010.tar"


def context_table() -> np.ndarray:
    """Table from the 459 labels to the 60 classes."""
    pairs = ((value, index) for index, value in enumerate(EVALUATED, 1))
    return table_of(pairs, LABELS + 1, default=0)


def read_labels(path: Path) -> np.ndarray:
    """The array LabelMap of a .mat file; ValueError if there is none, or the file is damaged."""
    return read_variable(path, "LabelMap", "the files of Context's trainval.tar.gz")


def jobs(labels: Path, out: Path) -> list[Job]:
    """What there is to convert.

    Raises:
        FileNotFoundError: Nothing.
    """
    maps = sorted(labels.glob("*.mat"))
    if not maps:
        raise FileNotFoundError(f"no .mat files in {labels}: give the folder of the unpacked trainval.tar.gz")
    folder, table = out / "SegmentationClassContext", context_table()
    return [Job(path, folder / f"{path.stem}.png", table, f"labels 0..{LABELS}") for path in maps]


def prepare(source: Path, out: Path | None, workers: int, labels: Path) -> int:
    """Convert the label maps and write the lists; returns the exit status, 0 if every label map is there.

    Raises:
        FileNotFoundError, ValueError: There is nothing to convert, or `out` leads elsewhere.
    """
    out = source if out is None else out
    todo = jobs(labels, out)
    names = {split: read_list(source / f"ImageSets/Main/{split}.txt", ARCHIVE) for split in ("val", "train")}
    done = run(todo, out, workers, read_labels)
    labelled = {job.source.stem for job in done}
    for split, images in names.items():
        listed = [name for name in images if name in labelled]
        save_list(listed, out / f"ImageSets/SegmentationContext/{split}.txt", out)
    show_images(source / "JPEGImages", out / "JPEGImages", out)
    return status(done, todo)
