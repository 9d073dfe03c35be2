"""Make PASCAL VOC 2012's augmented label maps from the Semantic Boundaries Dataset (SBD) and VOC's own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from rfclip.benchmarks.prepare.convert import Job, read_list, read_png, run, save_list, show_images, status, table_of
from rfclip.benchmarks.prepare.mat import read_variable

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


def prepare(source: Path, out: Path | None, workers: int, sbd: Path) -> int:
    """Convert the label maps and write the lists; returns the exit status, 0 if every label map is there.

    Raises:
        FileNotFoundError, ValueError: There is nothing to convert, or `out` leads elsewhere.
    """
    out = source if out is None else out
    todo = jobs(source, sbd, out)
    wanted = lists(source, sbd)
    done = run(todo, out, workers, read_labels)
    labelled = {job.target.stem for job in done}
    made = {name: [image for image in images if image in labelled] for name, images in wanted.items()}
    for name, images in made.items():
        save_list(images, out / LISTS / f"{name}.txt", out)
    if len(made["trainaug"]) != TRAINAUG:
        print(
            f"note: {len(made['trainaug'])} images in trainaug.txt; the published list has {TRAINAUG}", file=sys.stderr
        )
    show_images(source / "JPEGImages", out / "JPEGImages", out)
    return status(done, todo)
