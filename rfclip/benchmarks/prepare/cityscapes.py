"""Make the labelTrainIds of Cityscapes from the labelIds that its gtFine package holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rfclip.benchmarks.prepare.convert import Job, run, show_images, status, table_of

ENDING = "_gtFine_labelIds.png"
# labelIds of road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky,
# person, rider, car, truck, bus, train, motorcycle, bicycle
EVALUATED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
IGNORED = 255


def label_ids_to_train() -> np.ndarray:
    """Table from labelIds 0..33 to the 19 classes; the ids that are not evaluated become 255."""
    pairs = [(value, IGNORED) for value in range(34)]
    return table_of([*pairs, *((value, index) for index, value in enumerate(EVALUATED))])


def jobs(source: Path, out: Path, split: str) -> list[Job]:
    """What there is to convert in a split.

    Raises:
        FileNotFoundError: Nothing.
    """
    folder = source / "gtFine" / split
    maps = sorted(folder.glob(f"*/*{ENDING}"))
    if not maps:
        raise FileNotFoundError(f"no <city>/*{ENDING} in {folder}: unpack gtFine_trainvaltest.zip there")
    table = label_ids_to_train()
    return [
        Job(path, out / path.relative_to(source).with_name(path.name.replace("labelIds", "labelTrainIds")), table,
            "labelIds 0..33")
        for path in maps
    ]  # fmt: skip


def prepare(source: Path, out: Path | None, workers: int, splits: Sequence[str]) -> int:
    """Convert the splits; returns the exit status, 0 if every label map is there.

    Raises:
        FileNotFoundError, ValueError: There is nothing to convert, or `out` leads elsewhere.
    """
    out = source if out is None else out
    todo = [job for split in splits for job in jobs(source, out, split)]
    done = run(todo, out, workers)
    for split in splits:
        show_images(source / "leftImg8bit" / split, out / "leftImg8bit" / split, out)
    return status(done, todo)
