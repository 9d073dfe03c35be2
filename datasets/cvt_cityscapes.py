"""Make the labelTrainIds of Cityscapes from the labelIds that its gtFine package holds.

    python datasets/cvt_cityscapes.py data/cityscapes

Reads CITYSCAPES/gtFine/val/<city>/*_gtFine_labelIds.png, and train only if asked for. Writes
*_gtFine_labelTrainIds.png, 19 classes as 0 to 18, all else as 255, into OUT/gtFine/val/<city>; without -o beside the
originals. Label maps that are there are kept. The polygons and Cityscapes' own scripts are not needed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from _convert import Job, arguments, guarded, run, show_images, status, table_of

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


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="CITYSCAPES", help="folder with gtFine/ and leftImg8bit/")
    parser.add_argument("--splits", default="val", help="parted by commas: val (default), train")
    args = arguments(parser).parse_args()
    out = args.out if args.out is not None else args.source
    splits = [split.strip() for split in args.splits.split(",")]
    todo = [job for split in splits for job in jobs(args.source, out, split)]
    done = run(todo, out, args.workers)
    for split in splits:
        show_images(args.source / "leftImg8bit" / split, out / "leftImg8bit" / split, out)
    return status(done, todo)


if __name__ == "__main__":
    sys.exit(guarded(main))
