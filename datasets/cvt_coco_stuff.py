"""Make the labelTrainIds of COCO-Stuff164k from its raw pixel maps.

    python datasets/cvt_coco_stuff.py data/coco_stuff164k

Reads COCO_STUFF164K/annotations/val2017/<image>.png (of stuffthingmaps_trainval2017.zip), and train2017 only if asked
for. Writes <image>_labelTrainIds.png, 171 classes as 0 to 170, not labelled as 255, into OUT/annotations/val2017;
without -o beside the raw maps. Label maps that are there are kept.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from _coco import RAW_VALUES, TRAIN_ENDING, label_maps, raw_to_train
from _convert import Job, arguments, guarded, run, show_images, status


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


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="COCO_STUFF164K", help="folder with annotations/ and images/")
    parser.add_argument("--splits", default="val2017", help="parted by commas: val2017 (default), train2017")
    args = arguments(parser).parse_args()
    out = args.out if args.out is not None else args.source
    splits = [split.strip() for split in args.splits.split(",")]
    todo = [job for split in splits for job in jobs(args.source, out, split)]
    done = run(todo, out, args.workers)
    for split in splits:
        show_images(args.source / "images" / split, out / "images" / split, out)
    return status(done, todo)


if __name__ == "__main__":
    sys.exit(guarded(main))
