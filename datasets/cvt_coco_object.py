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
from _convert import Job, arguments, guarded, run, show_images, status


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


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="COCO_STUFF164K", help="folder with annotations/ and images/")
    parser.add_argument("--splits", default="val2017", help="parted by commas: val2017 (default), train2017")
    args = arguments(parser).parse_args()
    source = named(args.source)
    out = args.out if args.out is not None else source.with_name("coco_object")
    apart(out, source)
    splits = [split.strip() for split in args.splits.split(",")]
    todo = [job for split in splits for job in jobs(source, out, split)]
    done = run(todo, out, args.workers)
    for split in splits:
        show_images(source / "images" / split, out / "images" / split, out)
    return status(done, todo)


if __name__ == "__main__":
    sys.exit(guarded(main))
