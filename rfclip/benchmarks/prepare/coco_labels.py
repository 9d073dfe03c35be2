"""Label values of COCO-Stuff, raw and as mmseg's classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rfclip.benchmarks.prepare.convert import table_of

VOID = 255
THINGS = 80
CLASSES = 171
# Ids (category - 1) of the 11 things that stand in COCO's list of 91 and are labelled nowhere, e.g. street sign and hat
UNUSED = frozenset((11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90))
RAW_VALUES = "raw COCO-Stuff ids 0..181 (without 11 unused ones) and 255"
TRAIN_VALUES = "labelTrainIds 0..170 and 255"
TRAIN_ENDING = "_labelTrainIds"


def raw_to_train() -> np.ndarray:
    """Table from the ids of the stuffthingmaps to the 171 classes in order; 255 stays 255."""
    used = [value for value in range(182) if value not in UNUSED]
    return table_of([*((value, index) for index, value in enumerate(used)), (VOID, VOID)])


def train_to_object() -> np.ndarray:
    """Table from the 171 classes to COCO-Object: things 0..79 become 1..80, stuff and void the background, 0."""
    return table_of([*((value, value + 1 if value < THINGS else 0) for value in range(CLASSES)), (VOID, 0)])


def raw_to_object() -> np.ndarray:
    """Table from the ids of the stuffthingmaps to COCO-Object."""
    train = raw_to_train()
    return np.where(train < 0, train, train_to_object()[train])


def label_maps(folder: Path) -> Iterator[tuple[str, Path, bool]]:
    """Image name, label map, and whether it holds labelTrainIds; of an image that has both kinds, labelTrainIds.

    Raises:
        FileNotFoundError: There is none.
    """
    train = {path.stem.removesuffix(TRAIN_ENDING): path for path in folder.glob(f"*{TRAIN_ENDING}.png")}
    raw = {path.stem: path for path in folder.glob("*.png") if path.stem.isdecimal()}
    if not train and not raw:
        raise FileNotFoundError(
            f"no label maps in {folder}: expected <image>.png of stuffthingmaps_trainval2017.zip, or <image>"
            f"{TRAIN_ENDING}.png; see datasets/README.md"
        )
    for name in sorted(train.keys() | raw.keys()):
        yield name, train.get(name) or raw[name], name in train
