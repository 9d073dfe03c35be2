"""Make COCO-Object from the pixel maps of COCO-Stuff164k.

    python datasets/cvt_coco_object.py data/coco_stuff164k -o data/coco_object

COCO-Object has 81 classes: the 80 things of COCO 2017 as 1 to 80, and the background, 0, which is all the rest: stuff,
and what is not labelled (255) as well. Reads COCO_STUFF164K/annotations/val2017, raw maps (<image>.png) or those that
mmseg reads (<image>_labelTrainIds.png), and train2017 only if asked for. Writes
OUT/annotations/val2017/<image>_instanceTrainIds.png, and a link OUT/images/val2017 to the images. Label maps that are
there are kept.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from _coco import RAW_VALUES, TRAIN_VALUES, label_maps, raw_to_object, train_to_object
from _convert import Job, arguments, guarded, run, show_images


def jobs(source: Path, out: Path, split: str) -> list[Job]:
    """What there is to convert in a split."""
    tables = {True: (train_to_object(), TRAIN_VALUES), False: (raw_to_object(), RAW_VALUES)}
    target = out / "annotations" / split
    return [
        Job(path, target / f"{name}_instanceTrainIds.png", *tables[is_train])
        for name, path, is_train in label_maps(source / "annotations" / split)
    ]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="COCO_STUFF164K", help="folder with annotations/ and images/")
    parser.add_argument("--splits", default="val2017", help="parted by commas: val2017 (default), train2017")
    args = arguments(parser).parse_args()
    out = args.out if args.out is not None else args.source.with_name("coco_object")
    splits = [split.strip() for split in args.splits.split(",")]
    todo = [job for split in splits for job in jobs(args.source, out, split)]
    status = run(todo, out, args.workers)
    for split in splits:
        show_images(args.source / "images" / split, out / "images" / split, out)
    return status


if __name__ == "__main__":
    sys.exit(guarded(main))
