"""The sample benchmarks: layout on disk, label values, and that every class can be scored."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from rfclip.benchmarks.prepare import sample as script


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "sample"
    script.make_sample(out, say=lambda line: None)
    return out


def read(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.array(picture)


def labels_of(sample: Path, data_set) -> list[np.ndarray]:
    return [read(file) for file in sorted((sample / data_set.root).glob(data_set.label.format(id="*")))]


def test_every_image_has_its_label_of_the_same_size(sample: Path) -> None:
    for data_set in script.DATA_SETS:
        images = sorted((sample / data_set.root).glob(data_set.image.format(id="*")))
        labels = sorted((sample / data_set.root).glob(data_set.label.format(id="*")))
        assert len(images) == len(labels) > 1
        for image, label in zip(images, labels, strict=True):
            assert read(image).shape[:2] == read(label).shape


def test_every_class_covers_two_percent_of_some_image(sample: Path) -> None:
    for data_set in script.DATA_SETS:
        classes = len(script.load_vocabulary(data_set.vocabulary).names)
        counted = [
            np.bincount(label.ravel(), minlength=256)[: classes + data_set.first] / label.size
            for label in labels_of(sample, data_set)
        ]
        best = np.max(counted, axis=0)[data_set.first :]
        assert (best >= 0.02).all(), (data_set.root, np.flatnonzero(best < 0.02))


def test_labels_hold_nothing_but_classes_and_borders(sample: Path) -> None:
    for data_set in script.DATA_SETS:
        classes = len(script.load_vocabulary(data_set.vocabulary).names)
        allowed = {data_set.ignored, *range(data_set.first, data_set.first + classes)}
        for label in labels_of(sample, data_set):
            assert label.dtype == np.uint8
            assert set(np.unique(label)) <= allowed
            assert (label == data_set.ignored).any()


def test_regions_are_few_and_wide(sample: Path) -> None:
    for data_set in script.DATA_SETS:
        for label in labels_of(sample, data_set):
            short = min(label.shape)
            wide, regions = 48 * short / data_set.short_side, 0
            for value in set(np.unique(label)) - {data_set.ignored}:
                count, parts = cv2.connectedComponents((label == value).astype(np.uint8))
                for part in range(1, count):
                    inside = np.pad((parts == part).astype(np.uint8), 1)
                    assert 2 * cv2.distanceTransform(inside, cv2.DIST_L2, 5).max() >= wide - 1
                    regions += 1
            assert 8 <= regions <= 16


def test_lists_name_the_images(sample: Path) -> None:
    for root, index in (("VOC2012", "Segmentation"), ("VOC2010", "SegmentationContext")):
        folder = sample / "VOCdevkit" / root
        ids = (folder / "ImageSets" / index / "val.txt").read_text().split()
        assert sorted(ids) == sorted(file.stem for file in (folder / "JPEGImages").iterdir())


def test_same_seed_same_files_and_a_second_run_does_nothing(sample: Path, tmp_path: Path) -> None:
    data_set = script.DATA_SETS[0]
    script.write_data_set(tmp_path, data_set, np.random.default_rng([2026, 0]))
    for file in (tmp_path / data_set.root).rglob("*.*"):
        assert file.read_bytes() == (sample / file.relative_to(tmp_path)).read_bytes()
    said: list[str] = []
    script.make_sample(sample, say=said.append)
    assert said == [f"{sample}: the sample is there already"]


def test_another_sample_is_made_anew_and_other_folders_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "DATA_SETS", script.DATA_SETS[:1])
    out = tmp_path / "sample"
    script.make_sample(out, seed=1, say=lambda line: None)
    script.make_sample(out, seed=2, say=lambda line: None)
    assert json.loads((out / script.MARKER).read_text())["seed"] == 2
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="holds what is no part of a sample"):
        script.make_sample(other)
    assert (other / "mine.txt").read_text() == "keep"
    (out / "mine.txt").write_text("keep")
    (out / script.MARKER).write_text("damaged")
    with pytest.raises(FileExistsError, match=r"\(mine\.txt\)"):
        script.make_sample(out)
    assert (out / "mine.txt").read_text() == "keep"
