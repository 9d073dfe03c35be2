"""Methods beside each other: the statistics against loops, and rfclip compare with a segmentor without CLIP."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rfclip.cli import parse
from rfclip.cli.compare import runs
from rfclip.runs.areas import ImageAreas
from rfclip.runs.compare import Measured, as_markdown, as_text, compare, difference
from rfclip.runs.reference import unlike

ROOT = Path(__file__).parents[2]


def make_areas(seed: int, images: int = 12, classes: int = 4, skill: float = 0.5) -> np.ndarray:
    """(n, C, 3) of a method that finds `skill` of each class; some classes are missing in some images."""
    rng = np.random.default_rng(0)  # the labels are the same for every method
    labelled = rng.integers(1, 100, (images, classes)) * (rng.random((images, classes)) < 0.7)
    rng = np.random.default_rng(seed)
    agree = (labelled * np.clip(rng.normal(skill, 0.1, labelled.shape), 0, 1)).astype(np.int64)
    return np.stack([agree, agree + rng.integers(0, 9, labelled.shape), labelled], -1)


def plain_miou(areas: np.ndarray) -> float:
    ious = [agree / (found + there - agree) for agree, found, there in areas.tolist() if found + there - agree > 0]
    return 100 * sum(ious) / len(ious)


def test_difference_and_counts_against_loops() -> None:
    a, b = make_areas(1, skill=0.6), make_areas(2, skill=0.4)
    found = difference(a, b, resamples=50)
    assert found.miou == pytest.approx(plain_miou(a.sum(0)) - plain_miou(b.sum(0)))
    gains = [
        plain_miou(one[one[:, 2] > 0]) - plain_miou(other[other[:, 2] > 0]) for one, other in zip(a, b, strict=True)
    ]
    assert found.better == sum(gain > 0 for gain in gains)
    assert found.worse == sum(gain < 0 for gain in gains)
    assert found.images == 12


def test_interval_against_a_loop_over_draws() -> None:
    a, b = make_areas(1), make_areas(2)
    draws = []
    for times in np.random.default_rng(1).multinomial(12, np.full(12, 1 / 12), 200):
        sums = [areas[np.repeat(np.arange(12), times)].sum(0) for areas in (a, b)]
        draws.append(plain_miou(sums[0][sums[0][:, 2] > 0]) - plain_miou(sums[1][sums[1][:, 2] > 0]))
    found = difference(a, b, resamples=200, seed=1)
    bias = sum(draws) / 200 - found.miou
    assert found.low == pytest.approx(np.percentile(draws, 2.5) - bias)
    assert found.high == pytest.approx(np.percentile(draws, 97.5) - bias)


@pytest.mark.parametrize("images", [12, 200])
def test_rare_classes_do_not_push_the_estimate_out_of_its_interval(images: int) -> None:
    """Most classes are in one or two images, and every class is predicted somewhere: draws lack many of them."""
    rng = np.random.default_rng(3)
    labelled = rng.integers(50, 100, (images, 60)) * (rng.random((images, 60)) < 1.5 / images)
    labelled[:, 0] = 500
    stray = rng.integers(0, 3, labelled.shape)
    methods = [
        np.stack([(labelled * skill).astype(np.int64), (labelled * skill).astype(np.int64) + stray, labelled], -1)
        for skill in (0.9, 0.4)
    ]
    found = difference(*methods)
    assert found.low is not None and found.high is not None
    assert found.low < found.miou < found.high


def test_a_clear_difference_excludes_zero_and_none_does_not() -> None:
    clear = difference(make_areas(1, skill=0.8), make_areas(2, skill=0.3))
    assert clear.low is not None
    assert clear.low > 0
    same = difference(make_areas(1), make_areas(1))
    assert (same.miou, same.low, same.high, same.better, same.worse) == (0, 0, 0, 0, 0)


def test_draws_are_repeatable_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = make_areas(1), make_areas(2)
    whole = difference(a, b, resamples=200)
    assert difference(a, b, resamples=200) == whole
    monkeypatch.setattr("rfclip.runs.compare.CHUNK", 1000)
    chunked = difference(a, b, resamples=200)
    assert chunked.low == pytest.approx(whole.low)
    assert chunked.high == pytest.approx(whole.high)


def test_few_images_have_no_interval_and_other_images_are_refused() -> None:
    few = difference(make_areas(1, images=5), make_areas(2, images=5))
    assert few.low is None
    other = make_areas(2)
    other[0, 0, 2] += 1
    with pytest.raises(ValueError, match="same images"):
        difference(make_areas(1), other)


def manifest(**changes: Any) -> dict[str, Any]:
    same = dict.fromkeys(("vocabulary", "templates", "prob_thd", "resize", "window", "precision"))
    model = {"method": changes.pop("method", {"type": "MeanKK"}), "logit_scale": changes.pop("logit_scale", 40)}
    made = {
        "config": {"model": model, "dataset": {}},
        "code": changes.pop("code", {"sha256": "x", "git": "a"}),
        "weights": {"model": "tiny"},
        "profile": "mean_kk",
        "protocol": "shared",
        "pamr": False,
        "data": {"images": 12},
    }
    return {**same, **made, "time": {"images": 12, "images_per_second": 3.5}, **changes}


def measured(method: str, seed: int, **changes: Any) -> Measured:
    areas = {f"{n}.jpg": ImageAreas(f"{n}.jpg", one, 0, 0) for n, one in enumerate(make_areas(seed))}
    about = manifest(profile=method, method={"type": method}, **changes)
    return Measured(method, {"metrics": {"mIoU": 40.0 + seed}, "manifest": about}, areas, memory=812.4)


def test_rows_and_tables() -> None:
    rows = compare("voc21", [measured("mean_kk", 1), measured("paper", 2)], resamples=50)
    assert rows[0]["difference"] is None
    assert rows[1]["difference"]["images"] == 12
    assert rows[0]["published"] == 59.1
    text = as_text(rows)
    assert "41.00" in text
    assert "812" in text
    assert "minus that of mean_kk" in text
    assert "not measured here" in text
    table = as_markdown(rows)
    assert table.startswith("| benchmark | method |")
    assert "| ProxyCLIP (+DINO) | 61.3 |" in table
    assert table.index("ProxyCLIP") > table.index("published (real data")


def test_only_the_method_may_differ() -> None:
    assert unlike(manifest(method={"type": "A"}), manifest(method={"type": "B"})) == []
    assert unlike(manifest(), manifest(logit_scale=50)) == ["model.logit_scale"]
    assert unlike(manifest(), manifest(code={"sha256": "x", "git": "another commit"})) == []
    assert unlike(manifest(), manifest(code={"sha256": "y", "git": "a"})) == ["code"]
    assert unlike(manifest(), manifest(protocol="published")) == ["protocol"]
    assert unlike(manifest(), manifest(vision={"pretrained": "dino_vitb8"})) == []  # a part of the method
    assert unlike(manifest(), manifest(weights={"model": "ViT-B-16"})) == ["weights"]
    with pytest.raises(ValueError, match=r"paper and mean_kk differ in more than the method \(pamr\)"):
        compare("voc21", [measured("mean_kk", 1), measured("paper", 2, pamr=True)])


@pytest.fixture
def fake(tmp_path: Path) -> list[str]:
    """Data, a config whose segmentor needs no CLIP, and the command to compare on it."""
    voc = tmp_path / "data/VOCdevkit/VOC2012"
    folders = [voc / name for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")]
    for folder in folders:
        folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(rng.integers(0, 256, (20, 31, 3), np.uint8)).save(folders[0] / f"{index}.jpg")
        Image.fromarray(rng.integers(0, 21, (20, 31), np.uint8)).save(folders[1] / f"{index}.png")
    (folders[2] / "val.txt").write_text("0\n1\n2\n")
    (tmp_path / "fake.py").write_text(f"""
_base_ = ["{ROOT}/configs/_base_/default_runtime.py", "{ROOT}/configs/_base_/datasets/voc20.py"]
custom_imports = dict(imports=["rfclip", "tests.support.fake_segmentor"], allow_failed_imports=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
clip = dict(model="x", pretrained=None)
model = dict(type="FakeSegmentor", clip=clip, method=dict(type="MeanKK"), vocabulary="voc20")
""")
    return [sys.executable, str(ROOT / "tools/compare.py"), "--benchmarks=fake.py", "--out=out"]


def run(line: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_as_a_program(fake: list[str], tmp_path: Path) -> None:
    done = run([*fake, "--methods=MeanKK,sclip", "--images=2"], tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out/table.json").read_text())
    assert [(row["method"], row["images"]) for row in rows] == [("mean_kk", 2), ("sclip", 2)]
    assert rows[1]["difference"]["miou"] == 0  # the fake takes no notice of the method
    assert all(row["memory_mib"] > 50 and row["images_per_second"] > 0 for row in rows)
    assert "voc20" in done.stdout
    assert (tmp_path / "out/sclip/voc20/results.json").is_file()
    assert "| voc20 | sclip | 2 |" in (tmp_path / "out/table.md").read_text()
    with (tmp_path / "out/table.csv").open(newline="") as file:
        assert [(row["method"], row["difference_miou"]) for row in csv.DictReader(file)] == [
            ("mean_kk", ""),
            ("sclip", "0.0"),
        ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--methods=mean_kk,nonsense"], "no profile 'nonsense'"),
        (["--methods=mean_kk,MeanKK"], "stands twice"),
        (["--methods=mean_kk", "--data-root=nowhere"], "nowhere"),
        (["--methods=mean_kk", "--benchmarks=voc22"], "no benchmark 'voc22'"),
    ],
)
def test_mistakes_are_found_before_anything_runs(
    fake: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    with pytest.raises((ValueError, OSError), match=sentence):
        runs(parse(["compare", *fake[2:], *arguments])[1])
