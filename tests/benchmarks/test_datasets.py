"""Labels and names of the dataset classes, against masks written here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mmseg.datasets import COCOStuffDataset, PascalVOCDataset
from mmseg.registry import DATASETS
from PIL import Image

from rfclip.benchmarks.datasets import CheckedPipeline, COCOObjectDataset, PascalVOC20Dataset, missing_data
from rfclip.runs.areas import DataError

MASK = np.array([[0, 1, 20], [255, 5, 0]], np.uint8)


def write_pair(root: Path, folder: str, mask_suffix: str) -> None:
    for name in ("images", folder):
        (root / name).mkdir()
    Image.new("RGB", (3, 2)).save(root / "images/a.jpg")
    Image.fromarray(MASK).save(root / folder / f"a{mask_suffix}")
    (root / "val.txt").write_text("a\n")


def labels_of(config: dict) -> np.ndarray:
    dataset = DATASETS.build(dict(config, pipeline=[dict(type="LoadAnnotations")], _scope_="mmseg"))
    return dataset[0]["gt_seg_map"]


def test_voc20_drops_the_background(tmp_path: Path) -> None:
    write_pair(tmp_path, "masks", ".png")
    prefix = dict(img_path="images", seg_map_path="masks")
    labels = labels_of(dict(type="PascalVOC20Dataset", data_root=str(tmp_path), data_prefix=prefix, ann_file="val.txt"))
    assert labels.tolist() == [[255, 0, 19], [255, 4, 255]]


def test_coco_object_keeps_the_labels_and_finds_its_suffix(tmp_path: Path) -> None:
    write_pair(tmp_path, "annotations", "_instanceTrainIds.png")
    prefix = dict(img_path="images", seg_map_path="annotations")
    labels = labels_of(dict(type="COCOObjectDataset", data_root=str(tmp_path), data_prefix=prefix))
    assert labels.tolist() == MASK.tolist()


@pytest.mark.parametrize("fault", ["image", "labels", "vanished"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, fault: str) -> None:
    write_pair(tmp_path, "masks", ".png")
    path = tmp_path / ("masks/a.png" if fault == "labels" else "images/a.jpg")
    content = path.read_bytes()
    path.unlink()
    if fault != "vanished":
        path.write_bytes(content[:40])
    prefix = dict(img_path="images", seg_map_path="masks")
    steps = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]
    config = dict(type="PascalVOC20Dataset", data_root=str(tmp_path), data_prefix=prefix, ann_file="val.txt")
    dataset = DATASETS.build(dict(config, pipeline=steps, test_mode=True, _scope_="mmseg"))
    dataset.pipeline = CheckedPipeline(dataset.pipeline)
    with pytest.raises(DataError, match=r"images/a.jpg or its labels .*masks/a.png cannot be read \("):
        dataset[0]


def test_names_and_colours_follow_the_data_sets() -> None:
    assert PascalVOC20Dataset.METAINFO["classes"] == PascalVOCDataset.METAINFO["classes"][1:]
    assert len(PascalVOC20Dataset.METAINFO["palette"]) == 20
    classes, palette = COCOObjectDataset.METAINFO["classes"], COCOObjectDataset.METAINFO["palette"]
    assert classes[0] == "background" and classes[1:] == COCOStuffDataset.METAINFO["classes"][:80]
    assert len({tuple(colour) for colour in palette}) == len(classes) == 81


def test_colours_of_coco_object_can_be_told_apart() -> None:
    palette = COCOObjectDataset.METAINFO["palette"]
    assert palette[0] == [0, 0, 0] and len({tuple(colour) for colour in palette}) == len(palette) == 81


def test_missing_data_names_the_first_missing_path(tmp_path: Path) -> None:
    config = dict(
        data_root=str(tmp_path / "VOC2012"),
        data_prefix=dict(img_path="images", seg_map_path="masks"),
        ann_file="val.txt",
    )
    assert missing_data(config) == f"{tmp_path / 'VOC2012'} not found: see datasets/README.md"
    (tmp_path / "VOC2012").mkdir()
    write_pair(tmp_path / "VOC2012", "masks", ".png")
    assert missing_data(config) is None
    (tmp_path / "VOC2012/val.txt").unlink()
    assert str(missing_data(config)).startswith(f"{tmp_path / 'VOC2012/val.txt'} not found")
