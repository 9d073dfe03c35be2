"""Make PASCAL VOC 2012's augmented label maps from the Semantic Boundaries Dataset (SBD) and VOC's own.

    python datasets/cvt_voc_aug.py data/VOCdevkit/VOC2012 --sbd benchmark_RELEASE/dataset

SBD is the folder of the unpacked benchmark.tgz that holds cls/<image>.mat, train.txt and val.txt. Writes
OUT/SegmentationClassAug/<image>.png, 0 background, 1 to 20 classes, 255 ignored: VOC's own label map where VOC has
one, which keeps its ignored outlines, and SBD's where it has none, so that every image of VOC's lists is there; and
the lists OUT/ImageSets/Segmentation/{trainaug,aug}.txt: VOC's training images and SBD's without VOC's validation
images (10582), and SBD's share of them (9118). Without -o all goes into VOC2012. Label maps that are there are kept.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from _convert import Job, arguments, guarded, read_list, read_png, run, save_list, show_images, status, table_of
from _mat import read_variable

FOLDER = "SegmentationClassAug"
LISTS = Path("ImageSets/Segmentation")
TRAINAUG = 10582  # images in the published list
VALUES = "0 background, 1..20 classes and 255"


def label_table() -> np.ndarray:
    """Table that leaves the 21 classes and 255 as they are, and has no entry for other values."""
    return table_of((value, value) for value in (*range(21), 255))


def read_labels(path: Path) -> np.ndarray:
    """The label map of a PNG of VOC or a .mat of SBD, whose GTcls.Segmentation is the array.

    Raises:
        ValueError: There is none, or the file is damaged.
    """
    if path.suffix != ".mat":
        return read_png(path)
    origin = "the files of SBD's dataset/cls, with GTcls.Segmentation"
    content = read_variable(path, "GTcls", origin)
    if content.dtype.names is None or "Segmentation" not in content.dtype.names or content.size != 1:
        raise ValueError(f"holds no GTcls.Segmentation; expected {origin}")
    return content["Segmentation"].item()


def jobs(voc: Path, sbd: Path, out: Path) -> list[Job]:
    """What there is to convert: an image of both has VOC's label map.

    Raises:
        FileNotFoundError: One of the two holds none.
    """
    own = {path.stem: path for path in (voc / "SegmentationClass").glob("*.png")}
    added = {path.stem: path for path in (sbd / "cls").glob("*.mat")}
    if not own:
        raise FileNotFoundError(f"no label maps in {voc / 'SegmentationClass'}: unpack VOCtrainval_11-May-2012.tar")
    if not added:
        raise FileNotFoundError(
            f"no .mat files in {sbd / 'cls'}: give the folder dataset/ of the unpacked benchmark.tgz"
        )
    table = label_table()
    return [Job(path, out / FOLDER / f"{name}.png", table, VALUES) for name, path in sorted((added | own).items())]


def lists(voc: Path, sbd: Path) -> dict[str, list[str]]:
    """The training lists: VOC's order, then SBD's; none of VOC's validation images.

    Raises:
        FileNotFoundError: A list of the originals is not there.
        ValueError: It is no UTF-8 text.
    """
    train, held_out = (
        read_list(voc / LISTS / f"{split}.txt", "VOCtrainval_11-May-2012.tar") for split in ("train", "val")
    )
    more = [name for split in ("train", "val") for name in read_list(sbd / f"{split}.txt", "benchmark.tgz")]
    known = set(held_out) | set(train)
    added = [name for name in dict.fromkeys(more) if name not in known]
    return {"trainaug": [*train, *added], "aug": added}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="VOC2012", help="folder with SegmentationClass/ and ImageSets/")
    parser.add_argument("--sbd", type=Path, required=True, help="folder with cls/, train.txt and val.txt")
    args = arguments(parser).parse_args()
    out = args.out if args.out is not None else args.source
    todo = jobs(args.source, args.sbd, out)
    wanted = lists(args.source, args.sbd)
    done = run(todo, out, args.workers, read_labels)
    labelled = {job.target.stem for job in done}
    made = {name: [image for image in images if image in labelled] for name, images in wanted.items()}
    for name, images in made.items():
        save_list(images, out / LISTS / f"{name}.txt", out)
    if len(made["trainaug"]) != TRAINAUG:
        print(
            f"note: {len(made['trainaug'])} images in trainaug.txt; the published list has {TRAINAUG}", file=sys.stderr
        )
    show_images(args.source / "JPEGImages", out / "JPEGImages", out)
    return status(done, todo)


if __name__ == "__main__":
    sys.exit(guarded(main))
