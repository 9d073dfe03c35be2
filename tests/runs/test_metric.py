"""Areas, scores, the log that survives a kill, and the sampler, against plain loops and mmsegmentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from PIL import Image

from rfclip.runs import metric as evaluation
from rfclip.runs.areas import AreaLog, DataError, ImageAreas, count_areas, fingerprint, image_name
from rfclip.runs.metric import ExactIoUMetric, UnfinishedSampler, class_table, score

CLASSES = 5


def random_pair(seed: int, size: tuple[int, int] = (11, 17)) -> tuple[torch.Tensor, torch.Tensor]:
    """A prediction and a label map; class 3 is never labelled, class 4 is in neither."""
    rng = np.random.default_rng(seed)
    prediction = torch.from_numpy(rng.integers(0, 4, size))
    label = torch.from_numpy(rng.choice([0, 1, 2, 255], size))
    return prediction, torch.where(torch.from_numpy(rng.random(size) < 0.5) & (label != 255), prediction % 3, label)


def as_samples(pairs: list[tuple[torch.Tensor, torch.Tensor]], **extra: object) -> list[dict]:
    return [
        dict(
            pred_sem_seg=dict(data=prediction[None]),
            gt_sem_seg=dict(data=label[None].to(torch.uint8)),
            img_path=f"root/images/{index}.jpg",
            fingerprint=f"print {index}",
            **extra,
        )
        for index, (prediction, label) in enumerate(pairs)
    ]


def metric(**settings: object) -> ExactIoUMetric:
    built = METRICS.build(dict(type="ExactIoUMetric", data_root="root", **settings))
    built.dataset_meta = dict(classes=tuple("abcde"))
    return built


class FakeDataset:
    """Just what the sampler reads of a data set."""

    data_root = "root"
    metainfo: ClassVar[dict[str, tuple[str, ...]]] = {"classes": tuple("abcde")}

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def get_data_info(self, index: int) -> dict[str, str]:
        return {"img_path": f"root/images/{index}.jpg"}


def test_areas_equal_a_loop_over_pixels() -> None:
    prediction, label = random_pair(0)
    label[0, :3] = torch.tensor([7, 5, 254])
    counts, ignored, invalid = np.zeros((CLASSES, 3), int), 0, 0
    for p, t in zip(prediction.flatten().tolist(), label.flatten().tolist(), strict=True):
        if t == 255:
            ignored += 1
            continue
        invalid += t >= CLASSES
        counts[p, 1] += 1
        if t < CLASSES:
            counts[t, 2] += 1
            counts[t, 0] += p == t
    areas = count_areas("x", prediction, label, CLASSES)
    assert areas.classes.tolist() == counts.tolist()
    assert (areas.ignored, areas.invalid) == (ignored, invalid)
    assert invalid == 3


def test_areas_of_other_sizes_are_refused() -> None:
    with pytest.raises(DataError, match=r"x is \(2, 3\) pixels, but its labels are \(3, 2\)"):
        count_areas("x", torch.zeros(2, 3), torch.zeros(3, 2), CLASSES)


def test_scores_are_those_of_mmsegmentation() -> None:
    samples = as_samples([random_pair(seed) for seed in range(6)])
    ours, theirs = metric(), IoUMetric()
    theirs.dataset_meta = ours.dataset_meta
    for each in (ours, theirs):
        each.process({}, samples[:2])
        each.process({}, samples[2:])
    assert ours.evaluate(6) == pytest.approx(theirs.evaluate(6), abs=0.0101)


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_other_measures_are_those_of_mmsegmentation(beta: float) -> None:
    samples = as_samples([random_pair(seed) for seed in range(6)])
    ours = metric(iou_metrics=["mFscore", "mDice"], beta=beta)
    theirs = IoUMetric(iou_metrics=["mIoU", "mFscore", "mDice"], beta=beta)
    theirs.dataset_meta = ours.dataset_meta
    for each in (ours, theirs):
        each.process({}, samples)
    found = ours.evaluate(6)
    assert found.keys() == {"mIoU", "aAcc", "mAcc", "mFscore", "mPrecision", "mRecall", "mDice"}
    assert found == pytest.approx(theirs.evaluate(6), abs=0.0101)


def test_samples_without_labels_are_an_error() -> None:
    samples = as_samples([random_pair(0)])
    del samples[0]["gt_sem_seg"]
    with pytest.raises(DataError, match=r"images/0\.jpg came out of the pipeline without labels"):
        metric().process({}, samples)


def test_absent_class_is_left_out_and_absent_but_predicted_counts_as_zero() -> None:
    total = np.array([[5, 5, 10], [0, 0, 0], [0, 5, 0]])
    scores = score(total)
    assert scores.metrics() == pytest.approx({"mIoU": 25.0, "aAcc": 50.0, "mAcc": 50.0})
    per_class = scores.per_class(["a", "b", "c"])
    assert per_class == {
        "a": {"IoU": 50.0, "Acc": 50.0},
        "b": {"IoU": None, "Acc": None},
        "c": {"IoU": 0.0, "Acc": None},
    }


def test_sums_are_exact_where_float32_is_not() -> None:
    total = np.array([[2**24 + 1, 2**24 + 1, 2**24 + 2]])
    assert score(total).metrics()["mIoU"] == 100 * (2**24 + 1) / (2**24 + 2)


def test_line_and_back() -> None:
    areas = count_areas("images/ä.jpg", *random_pair(1), CLASSES)
    again = ImageAreas.from_line(areas.to_line(), CLASSES)
    assert again.image == areas.image and again.classes.tolist() == areas.classes.tolist()
    assert "4" not in json.loads(areas.to_line())["areas"]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[1]",
        '{"run": ""}',
        '{"run": "", "image": "x", "areas": {"9": [1, 1, 1]}}',
        '{"run": "a", "image": "x"}',
    ],
)
def test_a_line_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="no line of areas of 5 classes"):
        ImageAreas.from_line(line, CLASSES)


def test_log_survives_a_torn_line_and_counts_an_image_once(tmp_path: Path) -> None:
    first, second = AreaLog(tmp_path, "one", 0), AreaLog(tmp_path, "one", 1)
    areas = [count_areas(f"images/{index}.jpg", *random_pair(index), CLASSES) for index in range(3)]
    first.append(areas[0])
    with first.path.open("a") as file:
        file.write(areas[1].to_line()[:20])
    assert set(first.read(CLASSES)) == {"images/0.jpg"}
    first.append(areas[2])
    second.append(areas[0])
    assert set(first.read(CLASSES)) == {"images/0.jpg", "images/2.jpg"}
    second.keep([areas[2]])
    assert set(first.read(CLASSES)) == {"images/2.jpg"}
    assert [path.name for path in tmp_path.iterdir()] == ["areas-0.jsonl"]
    second.keep([])
    assert first.read(CLASSES) == {}


def test_lines_of_another_run_do_not_count(tmp_path: Path) -> None:
    areas = [count_areas(f"images/{index}.jpg", *random_pair(index), CLASSES) for index in range(2)]
    AreaLog(tmp_path, "one").append(areas[0])
    AreaLog(tmp_path, "two", 1).append(areas[1])
    assert set(AreaLog(tmp_path, "one").read(CLASSES)) == {"images/0.jpg"}
    assert set(AreaLog(tmp_path, "two").read(CLASSES)) == {"images/1.jpg"}
    assert list(UnfinishedSampler(FakeDataset(3), str(tmp_path), "one")) == [1, 2]


def test_a_fingerprint_follows_the_contents_of_both_files(tmp_path: Path) -> None:
    info = {"img_path": str(tmp_path / "a.jpg"), "seg_map_path": str(tmp_path / "a.png")}
    found = []
    for image, label in ((b"1", None), (b"1", b"2"), (b"1", b"3"), (b"4", b"3")):
        (tmp_path / "a.jpg").write_bytes(image)
        if label is not None:
            (tmp_path / "a.png").write_bytes(label)
        found.append(fingerprint(info))
    assert len(set(found)) == 4
    assert fingerprint(info) == found[-1]
    assert fingerprint({"img_path": info["img_path"]}) not in found


def test_sampler_takes_what_has_no_line_and_deals_it_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AreaLog(tmp_path)
    for index in (0, 3):
        log.append(count_areas(f"images/{index}.jpg", *random_pair(index), CLASSES))
    assert list(UnfinishedSampler(FakeDataset(6), str(tmp_path))) == [1, 2, 4, 5]
    assert list(UnfinishedSampler(FakeDataset(3))) == [0, 1, 2]
    parts = []
    for rank in range(3):
        monkeypatch.setattr(evaluation, "get_dist_info", lambda rank=rank: (rank, 3))
        parts.append(list(UnfinishedSampler(FakeDataset(6), str(tmp_path))))
    assert parts == [[1, 5], [2], [4]]


def test_an_interrupted_run_ends_with_the_same_scores(tmp_path: Path) -> None:
    samples = as_samples([random_pair(seed) for seed in range(5)])
    whole = metric()
    whole.process({}, samples)
    expected = whole.evaluate(5)
    before = metric(log_dir=str(tmp_path))
    before.process({}, samples[:3])
    after = metric(log_dir=str(tmp_path))
    after.process({}, samples[2:])
    assert after.evaluate(5) == expected


def test_missing_images_are_an_error(tmp_path: Path) -> None:
    part = metric(log_dir=str(tmp_path))
    part.process({}, as_samples([random_pair(0)]))
    with pytest.raises(RuntimeError, match="the data set has 2 images, but areas of 1 images were found"):
        part.evaluate(2)


def test_results_of_another_disk_reach_the_log(tmp_path: Path) -> None:
    elsewhere = metric(log_dir=str(tmp_path / "a"))
    elsewhere.process({}, as_samples([random_pair(0)]))
    here = metric(log_dir=str(tmp_path / "b"))
    here.results = elsewhere.results
    here.evaluate(1)
    assert {name: areas.data for name, areas in AreaLog(tmp_path / "b").read(CLASSES).items()} == {
        "images/0.jpg": "print 0"
    }


def test_label_maps_are_written_in_the_convention_of_the_data_set(tmp_path: Path) -> None:
    prediction, label = random_pair(0)
    writer = metric(output_dir=str(tmp_path))
    writer.process({}, as_samples([(prediction, label)], reduce_zero_label=True))
    assert np.array(Image.open(tmp_path / "0.png")).tolist() == (prediction + 1).tolist()
    assert writer.evaluate(1)["mIoU"] > 0


def test_names_outside_the_root_stay_whole() -> None:
    assert image_name("data/voc/images/a.jpg", "data/voc") == "images/a.jpg"
    assert image_name("data/vocabulary/a.jpg", "data/voc") == "data/vocabulary/a.jpg"
    assert image_name("data/a.jpg", None) == "data/a.jpg"


def test_class_table_shows_what_is_unknown_as_a_dash() -> None:
    table = class_table(score(np.array([[5, 5, 10], [0, 0, 0]])), ["a", "bcdefg"])
    assert table.splitlines() == [
        "class      IoU     Acc",
        "a        50.00   50.00",
        "bcdefg       -       -",
    ]
