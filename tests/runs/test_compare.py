"""The fair table: statistics against loops, ranks, what may stand beside each other, and how it is written."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from rfclip.runs.areas import ImageAreas
from rfclip.runs.compare import statistics
from rfclip.runs.compare.rows import Row
from rfclip.runs.compare.statistics import Sampled, difference, ranks, sample
from rfclip.runs.compare.table import Measured, Table
from rfclip.runs.compare.writing import About, as_csv, as_json, as_markdown, as_text, write
from rfclip.runs.reference import unlike

ABOUT = About("mean_kk", "shared", 50, "tiny", "the generated sample", "on one image", ("ade20k: nowhere",), True)


def make_areas(seed: int, images: int = 12, classes: int = 4, skill: float = 0.5) -> np.ndarray:
    """(n, C, 3) of a method that finds `skill` of each class; some classes are missing in some images."""
    rng = np.random.default_rng(0)  # the labels are the same for every method
    labelled = rng.integers(1, 100, (images, classes)) * (rng.random((images, classes)) < 0.7)
    rng = np.random.default_rng(seed)
    agree = (labelled * np.clip(rng.normal(skill, 0.1, labelled.shape), 0, 1)).astype(np.int64)
    return np.stack([agree, agree + rng.integers(0, 9, labelled.shape), labelled], -1)


def named(areas: np.ndarray, names: Sequence[str] | None = None) -> dict[str, ImageAreas]:
    names = names or [f"{number:03}.jpg" for number in range(len(areas))]
    return {name: ImageAreas(name, one, 0, 0) for name, one in zip(names, areas, strict=True)}


def sampled(areas: np.ndarray, resamples: int = 200, seed: int = 0) -> Sampled:
    return sample(named(areas), resamples, seed)


def plain_miou(areas: np.ndarray) -> float:
    ious = [agree / (found + there - agree) for agree, found, there in areas.tolist() if found + there - agree > 0]
    return 100 * sum(ious) / len(ious)


def plain_draws(areas: np.ndarray, draws: list[list[int]]) -> list[float]:
    found = []
    for images in draws:
        total = sum(areas[image] for image in images)
        found.append(plain_miou(total[total[:, 2] > 0]))
    return found


def drawn(count: int, resamples: int, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The images of each draw; the generator is made to count from a fixed seed."""
    generator = np.random.default_rng(5)
    monkeypatch.setattr(statistics.np.random, "default_rng", lambda _: np.random.Generator(np.random.PCG64(5)))
    times = generator.multinomial(count, np.full(count, 1 / count), resamples)
    return [[image for image in range(count) for _ in range(row[image])] for row in times.tolist()]


def test_difference_and_counts_against_loops() -> None:
    a, b = make_areas(1, skill=0.6), make_areas(2, skill=0.4)
    found = difference([(sampled(a), sampled(b))])
    assert found.miou == pytest.approx(plain_miou(a.sum(0)) - plain_miou(b.sum(0)))
    gains = [
        plain_miou(one[one[:, 2] > 0]) - plain_miou(other[other[:, 2] > 0]) for one, other in zip(a, b, strict=True)
    ]
    assert found.better == sum(gain > 0 for gain in gains)
    assert found.worse == sum(gain < 0 for gain in gains)
    assert found.images == 12


def test_intervals_against_a_loop_over_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over two benchmarks of different sizes, the same draws for both sides, the mean of the two differences."""
    sizes, sides = (12, 7), []
    centred: list[list[float]] = []
    for size in sizes:
        a, b = make_areas(1, images=size), make_areas(2, images=size)
        with monkeypatch.context() as patch:
            draws = drawn(size, 150, patch)
            sides.append((sampled(a, 150), sampled(b, 150)))
        gains = [one - other for one, other in zip(plain_draws(a, draws), plain_draws(b, draws), strict=True)]
        mean = sum(gains) / len(gains)
        centred.append([(gain - mean) * (size / (size - 1)) ** 0.5 for gain in gains])
    both = difference([(sides[0][0], sides[0][1]), (sides[1][0], sides[1][1])])
    misses = [sum(pair) / 2 for pair in zip(*centred, strict=True)]
    assert both.low == pytest.approx(both.miou + np.percentile(misses, 2.5))
    assert both.high == pytest.approx(both.miou + np.percentile(misses, 97.5))
    assert both.images == 19
    alone = difference([sides[0]])
    assert alone.low == pytest.approx(alone.miou + np.percentile(centred[0], 2.5))
    assert difference([sides[1]]).low is None  # seven images are too few


@pytest.mark.parametrize("images", [12, 200])
def test_rare_classes_do_not_push_the_estimate_out_of_its_interval(images: int) -> None:
    """Most classes are in one or two images, and every class is predicted somewhere: draws lack many of them."""
    rng = np.random.default_rng(3)
    labelled = rng.integers(50, 100, (images, 60)) * (rng.random((images, 60)) < 1.5 / images)
    labelled[:, 0] = 500
    stray = rng.integers(0, 3, labelled.shape)
    one, other = (
        np.stack([(labelled * skill).astype(np.int64), (labelled * skill).astype(np.int64) + stray, labelled], -1)
        for skill in (0.9, 0.4)
    )
    found = difference([(sampled(one, 2000), sampled(other, 2000))])
    assert found.low is not None and found.high is not None
    assert found.low < found.miou < found.high


def test_a_clear_difference_excludes_zero_and_none_does_not() -> None:
    clear = difference([(sampled(make_areas(1, skill=0.8)), sampled(make_areas(2, skill=0.3)))])
    assert clear.low is not None and clear.low > 0
    same = difference([(sampled(make_areas(1)), sampled(make_areas(1)))])
    assert (same.miou, same.low, same.high, same.better, same.worse) == (0, 0, 0, 0, 0)


def test_draws_hang_on_the_images_and_the_seed_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a = make_areas(1)
    whole = sampled(a)
    np.testing.assert_array_equal(sampled(a).draws, whole.draws)
    elsewhere = sample(named(a, [f"folder/{number:03}.png" for number in range(12)]), 200)
    np.testing.assert_array_equal(elsewhere.draws, whole.draws)  # the same pictures in another benchmark
    others = sample(named(a, [f"{number:03}x.jpg" for number in range(12)]), 200)
    assert not np.allclose(others.draws, whole.draws)
    assert not np.allclose(sampled(a, seed=1).draws, whole.draws)
    monkeypatch.setattr(statistics, "CHUNK", 1000)
    np.testing.assert_allclose(sampled(a).draws, whole.draws)


def test_a_benchmark_of_one_image_leaves_no_interval_and_other_images_are_refused() -> None:
    many = sampled(make_areas(1)), sampled(make_areas(2))
    single = sampled(make_areas(1, images=1)), sampled(make_areas(2, images=1))
    assert difference([many]).low is not None
    assert difference([many, single]).low is None
    other = make_areas(2)
    other[0, 0, 2] += 1
    with pytest.raises(ValueError, match="same images"):
        difference([(sampled(make_areas(1)), sampled(other))])


def test_ranks_against_a_loop() -> None:
    values = [3.0, None, 7.0, 3.0, 9.5, 3.0]
    known = [value for value in values if value is not None]
    expected = [
        None if one is None else sum(v > one for v in known) + (1 + sum(v == one for v in known)) / 2 for one in values
    ]
    assert ranks(values) == expected
    assert ranks([None, None]) == [None, None]


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
        "refiner": None,
        "data": {"images": 12},
    }
    return {**same, **made, "time": {"images": 12, "images_per_second": 3.5}, **changes}


def measured(method: str, skill: float, miou: float | None = 0.0, **changes: Any) -> Measured:
    about = manifest(profile=method, method={"type": method}, **changes)
    one = sampled(make_areas(round(100 * skill), skill=skill), 50)
    results = {"metrics": {"mIoU": one.miou if miou == 0 else miou}, "manifest": about, "alarms": []}
    return Measured(results, one)  # type: ignore[arg-type]  # a manifest of few entries


def filled(protocol: str = "shared") -> Table:
    """Two benchmarks; sclip is the better of two, mean_kk the reference; without the prior both lose."""
    rows = [Row(method, prior) for prior in ("published", "none") for method in ("mean_kk", "sclip")]
    table = Table(rows, ["voc21", "ade20k"], "mean_kk", protocol)
    for row, skill in zip(rows, (0.5, 0.7, 0.4, 0.6), strict=True):
        for benchmark in table.benchmarks:
            table.cells[row, benchmark] = measured(row.method, skill)
    return table


def test_rows_have_means_ranks_differences_and_what_the_setting_is_worth() -> None:
    first, second, third, fourth = filled().content({"sclip": {"ratio": 1.25, "least": 1.2, "greatest": 1.3}})
    assert [row["rank"] for row in (first, second, third, fourth)] == [2, 1, 2, 1]
    assert second["mean"] == pytest.approx(sum(cell["mIoU"] for cell in second["cells"].values()) / 2)
    assert second["mean_rank"] == 1
    assert first["difference"] is None and second["difference"]["miou"] == pytest.approx(second["mean"] - first["mean"])
    assert second["difference"]["low"] < second["difference"]["miou"] < second["difference"]["high"]
    assert fourth["worth"]["miou"] == pytest.approx(fourth["mean"] - second["mean"])
    assert second["worth"] is None and fourth["first_setting"] == "published none published"
    assert second["cost"]["ratio"] == 1.25 and first["cost"] is None
    assert any("tuned" in note for note in filled().content()[0]["notes"]) is False  # nothing is known of mean_kk


def test_a_cell_that_failed_says_why_and_its_row_has_no_mean() -> None:
    table = filled()
    table.cells[table.rows[1], "ade20k"] = "no data: nowhere"
    del table.cells[table.rows[3], "voc21"]
    _, failed, _, pending = table.content()
    assert failed["cells"]["ade20k"]["why"] == "no data: nowhere" and failed["cells"]["ade20k"]["rank"] is None
    assert failed["cells"]["voc21"]["rank"] == 1
    assert failed["mean"] is None and failed["rank"] is None and failed["difference"] is None
    assert "ade20k: no data: nowhere" in failed["notes"] and "voc21: not run yet" in pending["notes"]
    table.cells[table.rows[0], "voc21"] = "no memory"
    assert any("no difference, because mean_kk" in note for note in table.content()[1]["notes"])


def test_only_the_method_may_differ() -> None:
    assert unlike(manifest(method={"type": "A"}), manifest(method={"type": "B"})) == []
    assert unlike(manifest(), manifest(logit_scale=50)) == ["model.logit_scale"]
    assert unlike(manifest(), manifest(code={"sha256": "x", "git": "another commit"})) == []
    assert unlike(manifest(), manifest(code={"sha256": "y", "git": "a"})) == ["code"]
    assert unlike(manifest(), manifest(protocol="published")) == ["protocol"]
    assert unlike(manifest(), manifest(vision={"pretrained": "dino_vitb8"})) == []  # a part of the method
    assert unlike(manifest(), manifest(weights={"model": "ViT-B-16"})) == ["weights"]
    for protocol, compared in (("shared", False), ("published", True)):
        table = filled(protocol)
        table.cells[table.rows[1], "voc21"] = measured("sclip", 0.7, logit_scale=50)
        row = table.content()[1]
        assert (row["rank"] is not None, row["difference"] is not None) == (compared, compared)
        assert row["cells"]["voc21"]["differs_in"] == ["model.logit_scale"]
        assert row["cells"]["voc21"]["not_comparable"] == ([] if compared else ["model.logit_scale"])
        assert any("model.logit_scale" in note for note in row["notes"])
    table.cells[table.rows[1], "voc21"] = measured("sclip", 0.7, code={"sha256": "y", "git": "a"})
    assert table.content()[1]["rank"] is None  # other code is never comparable


def test_a_block_that_one_lacks_is_named_alone() -> None:
    table = filled()
    prior = {"image_weight": 0.1, "scope": "image"}
    for row, with_it in ((table.rows[0], prior), (table.rows[1], None)):
        one = measured(row.method, 0.5)
        one.manifest["config"]["model"]["prior"] = with_it
        table.cells[row, "voc21"] = one
    assert table.content()[1]["cells"]["voc21"]["not_comparable"] == ["model.prior"]
    assert "voc21: no rank: differs from mean_kk in model.prior" in " ".join(table.content()[1]["notes"])


def test_notes_tell_how_a_method_was_published() -> None:
    rows = [
        Row(method, prior) for prior in ("published", "none") for method in ("paper", "sc_clip", "pearl", "mean_kk")
    ]
    notes = {row["row"]: " ".join(row["notes"]) for row in Table(rows, ["voc21"], "paper").content()}
    assert "published without the prior" in notes["sc_clip"] and "the prior" not in notes["sc_clip+prior-none"]
    assert "published with the prior" in notes["paper+prior-none"] and "the prior" not in notes["paper"]
    assert "refiner of its own" in notes["pearl"] and "published" not in notes["mean_kk"]


def test_no_labels_are_no_scores() -> None:
    table = filled()
    table.cells[table.rows[1], "voc21"] = measured("sclip", 0.7, miou=None)
    row = table.content()[1]
    assert row["mean"] is None and row["difference"] is None
    assert "voc21: no scores, because nothing is labelled" in row["notes"]


def test_text_markdown_csv_and_json(tmp_path: Any) -> None:
    content = filled().content(
        {"mean_kk": {"why": "no tower"}, "sclip": {"ratio": 1.25, "least": 1.2, "greatest": 1.3}}
    )
    write(tmp_path, content, ABOUT)
    text, table = as_text(content, ABOUT), (tmp_path / "table.md").read_text()
    assert table == as_markdown(content, ABOUT)
    for shown in (text, table):
        assert "minus that of mean_kk" in shown and "says nothing about real data" in shown
        assert "Left out: ade20k: nowhere" in shown and "1 (1.0)" in shown and "1.25" in shown
    assert "the mean is that of all eight benchmarks" in table
    assert table.startswith("| method | prior | refiner | names | voc21 | ade20k | mean | rank |")
    parts = [
        "Difference to mean_kk",
        "What the settings are worth",
        "says nothing",
        "published (real data",
        "ProxyCLIP",
    ]
    assert all(table.index(one) < table.index(other) for one, other in pairwise(parts))
    lines = list(csv.DictReader(as_csv(content).splitlines()))
    assert [line["benchmark"] for line in lines] == ["voc21", "ade20k", "mean"] * 4
    assert float(lines[5]["mIoU"]) == pytest.approx(content[1]["mean"]) and lines[5]["times_plain"] == "1.25"
    assert float(lines[3]["difference_miou"]) == pytest.approx(content[1]["cells"]["voc21"]["difference"]["miou"])
    assert lines[2]["why"] == "no tower" and lines[11]["worth_images"] == "24"
    kept = json.loads(as_json(content, ABOUT))
    assert kept["rows"] == json.loads(json.dumps(content)) and kept["about"]["resamples"] == 50
