"""rfclip prepare sample|coco-object|coco-stuff|cityscapes|pascal-context|voc-aug: put a data set on disk."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rfclip
from rfclip.cli.arguments import Help, add_common, words

SAMPLE = """Write the eight benchmarks in miniature, from generated scenes, e.g. into data/sample.

Folders, file names and label values are those of the real data sets (VOC21 and VOC20 share a tree, and so do Context60
and Context59), so the same configs read both. Each region shows one of its class's names, drawn at random; regions
are parted by a border that is not counted. The pictures are drawn, not photographs: they show that everything runs and
which way a change goes, and say nothing about real data."""
COCO_OBJECT = """Make COCO-Object from the pixel maps of COCO-Stuff164k.

COCO-Object has 81 classes: the 80 things of COCO 2017 as 1 to 80, and the background, 0, which is all the rest: stuff,
and what is not labelled (255) as well. Reads COCO_STUFF164K/annotations/val2017, raw maps (<image>.png) or those that
mmseg reads (<image>_labelTrainIds.png), and train2017 only if asked for. Writes
OUT/annotations/val2017/<image>_instanceTrainIds.png, and a link OUT/images/val2017 to the images. Label maps that are
there are kept."""
COCO_STUFF = """Make the labelTrainIds of COCO-Stuff164k from its raw pixel maps.

Reads COCO_STUFF164K/annotations/val2017/<image>.png (of stuffthingmaps_trainval2017.zip), and train2017 only if asked
for. Writes <image>_labelTrainIds.png, 171 classes as 0 to 170, not labelled as 255, into OUT/annotations/val2017;
without -o beside the raw maps. Label maps that are there are kept."""
CITYSCAPES = """Make the labelTrainIds of Cityscapes from the labelIds that its gtFine package holds.

Reads CITYSCAPES/gtFine/val/<city>/*_gtFine_labelIds.png, and train only if asked for. Writes
*_gtFine_labelTrainIds.png, 19 classes as 0 to 18, all else as 255, into OUT/gtFine/val/<city>; without -o beside the
originals. Label maps that are there are kept. The polygons and Cityscapes' own scripts are not needed."""
PASCAL_CONTEXT = """Make PASCAL Context with 60 classes from its annotations of 459 classes.

LABELS is the folder of the unpacked trainval.tar.gz: one <image>.mat per image, with an array LabelMap (0 to 459).
Writes OUT/SegmentationClassContext/<image>.png, 59 classes as 1 to 59 and all else as the background, 0; and the lists
OUT/ImageSets/SegmentationContext/{val,train}.txt: the images of VOC2010's ImageSets/Main/{val,train}.txt that have
labels. Label maps that are there are kept."""
VOC_AUG = """Make PASCAL VOC 2012's augmented label maps from the Semantic Boundaries Dataset (SBD) and VOC's own.

SBD is the folder of the unpacked benchmark.tgz that holds cls/<image>.mat, train.txt and val.txt. Writes
OUT/SegmentationClassAug/<image>.png, 0 background, 1 to 20 classes, 255 ignored: VOC's own label map where VOC has
one, which keeps its ignored outlines, and SBD's where it has none, so that every image of VOC's lists is there; and
the lists OUT/ImageSets/Segmentation/{trainaug,aug}.txt: VOC's training images and SBD's without VOC's validation
images (10582), and SBD's share of them (9118). Without -o all goes into VOC2012. Label maps that are there are kept."""


class LongHelp(Help, argparse.RawDescriptionHelpFormatter):
    """Keeps the paragraphs of a description."""


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser.description = "Put a data set on disk as the configs read it; datasets/README.md says where it comes from."
    sets = parser.add_subparsers(dest="what", metavar="WHAT", required=True, title="what there is (WHAT --help)")

    def add(name: str, description: str) -> argparse.ArgumentParser:
        line = description.partition("\n")[0].rstrip(".")
        one = sets.add_parser(name, help=line, description=description, formatter_class=LongHelp)
        add_common(one, default=argparse.SUPPRESS)
        return one

    sample = add("sample", SAMPLE)
    sample.add_argument("out", type=Path, metavar="OUT", help="folder to write, e.g. data/sample")
    sample.add_argument("--seed", type=int, default=2026, help="of the scenes")
    for name, description, source, parts, splits in (
        ("coco-object", COCO_OBJECT, "COCO_STUFF164K", "annotations/ and images/", "val2017,train2017"),
        ("coco-stuff", COCO_STUFF, "COCO_STUFF164K", "annotations/ and images/", "val2017,train2017"),
        ("cityscapes", CITYSCAPES, "CITYSCAPES", "gtFine/ and leftImg8bit/", "val,train"),
    ):
        one = _converter(add(name, description), source, parts)
        one.add_argument(
            "--splits", type=words, default=splits.split(",")[:1], help=f"of {splits} (default: the first)"
        )
    context = _converter(add("pascal-context", PASCAL_CONTEXT), "VOC2010", "JPEGImages/ and ImageSets/")
    context.add_argument("--labels", type=Path, required=True, help="folder of the .mat files")
    voc = _converter(add("voc-aug", VOC_AUG), "VOC2012", "SegmentationClass/ and ImageSets/")
    voc.add_argument("--sbd", type=Path, required=True, help="folder with cls/, train.txt and val.txt")
    return parser.parse_args(arguments)


def _converter(parser: argparse.ArgumentParser, source: str, parts: str) -> argparse.ArgumentParser:
    """Add what all converters have."""
    parser.add_argument("source", type=Path, metavar=source, help=f"folder with {parts}")
    parser.add_argument("-o", "--out", type=Path, metavar="OUT", help="folder to write")
    workers = min(8, os.cpu_count() or 1)
    parser.add_argument("--workers", type=int, default=workers, help="processes")
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the data set."""
    if args.what == "sample":
        rfclip.register()  # the names of its classes are mmseg's
    module: Any = importlib.import_module(f"rfclip.benchmarks.prepare.{args.what.replace('-', '_')}")
    if args.what == "sample":
        module.make_sample(args.out, args.seed)
        return 0
    more = {name: getattr(args, name) for name in ("splits", "labels", "sbd") if hasattr(args, name)}
    return int(module.prepare(args.source, args.out, args.workers, **more))
