"""Make the labelTrainIds of COCO-Stuff164k from its raw pixel maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rfclip.benchmarks.prepare.coco_labels import RAW_VALUES, TRAIN_ENDING, label_maps, raw_to_train
from rfclip.benchmarks.prepare.convert import Job, run, show_images, status


def jobs(source: Path, out: Path, split: str) -> list[Job]:
    """What there is to convert in a split.

    Raises:
        FileNotFoundError: Nothing.
    """
    folder, target = source / "annotations" / split, out / "annotations" / split
    maps = [(name, path.with_name(f"{name}.png")) for name, path, _ in label_maps(folder)]
    table = raw_to_train()
    todo = [Job(raw, target / f"{name}{TRAIN_ENDING}.png", table, RAW_VALUES) for name, raw in maps if raw.exists()]
    if not todo:
        raise FileNotFoundError(
            f"no raw maps <image>.png in {folder}, only {TRAIN_ENDING}: there is nothing to convert"
        )
    return todo


def prepare(source: Path, out: Path | None, workers: int, splits: Sequence[str]) -> int:
    """Convert the splits; returns the exit status, 0 if every label map is there.

    Raises:
        FileNotFoundError, ValueError: There is nothing to convert, or `out` leads elsewhere.
    """
    out = source if out is None else out
    todo = [job for split in splits for job in jobs(source, out, split)]
    done = run(todo, out, workers)
    for split in splits:
        show_images(source / "images" / split, out / "images" / split, out)
    return status(done, todo)
