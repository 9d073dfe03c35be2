"""Make COCO-Object from the pixel maps of COCO-Stuff164k."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rfclip.benchmarks.prepare.coco_labels import RAW_VALUES, TRAIN_VALUES, label_maps, raw_to_object, train_to_object
from rfclip.benchmarks.prepare.convert import Job, run, show_images, status


def jobs(source: Path, out: Path, split: str) -> list[Job]:
    """What there is to convert in a split."""
    tables = {True: (train_to_object(), TRAIN_VALUES), False: (raw_to_object(), RAW_VALUES)}
    target = out / "annotations" / split
    return [
        Job(path, target / f"{name}_instanceTrainIds.png", *tables[is_train])
        for name, path, is_train in label_maps(source / "annotations" / split)
    ]


def named(source: Path) -> Path:
    """The folder by a name of its own, which `.` and `..` have not."""
    return source if source.name not in ("", "..") else source.resolve()


def apart(out: Path, source: Path) -> None:
    """Make sure that the label maps of the two do not mix.

    Raises:
        ValueError: `out` is the source, or lies in its annotations.
    """
    place, origin = out.resolve(), source.resolve()
    if place == origin or place.is_relative_to(origin / "annotations"):
        raise ValueError(f"{out} is the folder of COCO-Stuff's own label maps: give another with -o, e.g. coco_object")


def prepare(source: Path, out: Path | None, workers: int, splits: Sequence[str]) -> int:
    """Convert the splits; returns the exit status, 0 if every label map is there.

    Raises:
        FileNotFoundError, ValueError: There is nothing to convert, or `out` leads elsewhere.
    """
    source = named(source)
    out = source.with_name("coco_object") if out is None else out
    apart(out, source)
    todo = [job for split in splits for job in jobs(source, out, split)]
    done = run(todo, out, workers)
    for split in splits:
        show_images(source / "images" / split, out / "images" / split, out)
    return status(done, todo)
