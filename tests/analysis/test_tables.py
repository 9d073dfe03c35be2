"""The analyses: rows that exist, published values beside, files; the runs themselves are replaced."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS

from rfclip.analysis import charts
from rfclip.analysis import tables as module
from rfclip.analysis.observations import consistency, observe, write_consistency, write_observation
from rfclip.analysis.tables import Setting, analyses, load_analysis, measure, published_values, write_table
from rfclip.benchmarks.options import build_config
from rfclip.clip.loader import load_clip
from rfclip.io.sample_world import calibration_images
from rfclip.runs.reference import published

DIMS = (5, 23)  # of the fixture clip_files


def test_the_shipped_analyses():
    assert analyses() == ("ablation", "beta", "heads", "neighbourhood", "suppression", "targets", "tau")


@pytest.mark.parametrize("name", analyses())
def test_every_row_can_be_built(name):
    for row in load_analysis(name).rows:
        assert type(MODELS.build(dict(row.method))).__name__ == row.method["type"]


@pytest.mark.parametrize("name", ["ablation", "suppression"])
def test_rows_are_the_published_ones_in_their_order(name):
    assert [row.name for row in load_analysis(name).rows] == [row["method"] for row in published()[name]]


def test_sweeps_hold_the_default():
    for name in ("tau", "beta", "neighbourhood"):
        table = load_analysis(name)
        assert table.marked in [row.x for row in table.rows]


def test_published_values_and_where_there_are_none():
    ablation = load_analysis("ablation")
    assert published_values(ablation, "voc21")[-1] == 64.8
    assert published_values(ablation, "voc20") is None
    assert published_values(load_analysis("targets"), "voc21") is None


def test_an_unknown_analysis():
    with pytest.raises(ValueError, match="no analysis 'x'; there are ablation, beta"):
        load_analysis("x")


@pytest.fixture
def ran(monkeypatch):
    """The options of the benchmark runs, which give 10, 11, ... % mIoU, and none for the third."""
    options = []

    def run(given):
        options.append(given)
        print("settings\n" * 200)
        alarms = ["a class is never predicted"] if len(options) == 2 else []
        return {"metrics": {"mIoU": None if len(options) == 3 else 9.0 + len(options)}, "alarms": alarms}

    monkeypatch.setattr(module, "run_benchmark", run)
    return options


def test_a_row_is_a_run_with_its_method(ran, tmp_path):
    setting = Setting(("voc21", "ade20k"), "tiny", None, "sample", limit=2)
    table = load_analysis("suppression")
    measured = measure(table, setting, tmp_path)
    assert measured["voc21"][:2] == [10, 11] and math.isnan(measured["voc21"][2])
    assert measured["ade20k"] == [15, 16, 17, 18, 19]
    assert len({str(options.work_dir) for options in ran[:5]}) == 5
    cfg = build_config(ran[4])
    assert cfg.model.method == {"type": "FilteredMeanKK", "filter": "median"}
    assert cfg.model.clip.model == "tiny" and cfg.test_dataloader.dataset.indices == 2
    assert cfg.test_dataloader.dataset.data_root.startswith("sample")
    assert all(options.resume for options in ran)


def test_the_screen_shows_a_line_for_each_row(ran, tmp_path, capsys):
    measure(load_analysis("suppression"), Setting(("voc21",)), tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        "voc21, none: mIoU 10.00",
        "voc21, -inf mask: mIoU 11.00; a class is never predicted",
        "voc21, low-pass filter: mIoU unknown",
        "voc21, mean filter: mIoU 13.00",
        "voc21, median filter: mIoU 14.00",
    ]


def test_table_and_plots(ran, tmp_path):
    table = load_analysis("suppression")
    measured = measure(table, Setting(("voc21", "voc20")), tmp_path)
    paths = write_table(table, measured, tmp_path / "out", "generated sample")
    assert [path.name for path in paths] == ["suppression.csv", "suppression_voc21.png", "suppression_voc20.png"]
    rows = list(csv.DictReader(paths[0].read_text().splitlines()))
    assert len(rows) == 10
    assert rows[1]["row"] == "-inf mask" and rows[1]["mIoU_measured_%"] == "11.00"
    assert rows[1]["mIoU_published_%_real_data_ViT-B-16"] == "3.50" and rows[2]["mIoU_measured_%"] == ""
    assert rows[6]["mIoU_published_%_real_data_ViT-B-16"] == ""  # nothing is published for voc20
    assert "this project's own" in rows[0]["note"] and rows[0]["measured_on"] == "generated sample"


def test_published_bars_stand_apart_and_are_named_as_such():
    figure = charts.bars(["a", "b"], np.array([1.0, np.nan]), np.array([50.0, 60.0]), "mIoU, %", "title")
    measured, beside = figure.axes
    assert measured.get_title() == "measured here" and beside.get_title() == charts.PUBLISHED
    assert "not measured here" in charts.PUBLISHED
    assert [bar.get_width() for bar in beside.patches] == [50, 60]
    assert [text.get_text().strip() for text in measured.texts] == ["1.0", "none"]
    assert len(charts.bars(["a"], np.array([1.0]), None, "mIoU, %", "title").axes) == 1


@pytest.fixture
def loaded(clip_files):
    return load_clip(**clip_files)


@pytest.fixture
def scenes():
    return torch.from_numpy(calibration_images(3, (64, 80), seed=1)).split(1)


def test_observation(loaded, scenes, tmp_path):
    found = observe(loaded, scenes, DIMS, beta=0.7)
    assert found.ratio.shape == found.received.shape == (3, 3 * 20)
    assert (found.ratio > 1).any()
    assert found.received.mean() < 1  # the class token takes the rest
    np.testing.assert_allclose(found.share_after, 0.3 * found.share_before, rtol=1e-4)
    expected = (found.received / 20 * (found.ratio > 1)).sum(1) / 3
    np.testing.assert_allclose(found.share, expected, rtol=1e-4)
    paths = write_observation(found, tmp_path, "scenes")
    assert [path.name for path in paths] == ["attention.csv", "attention_fit.png", "attention_share.png"]
    rows = list(csv.DictReader(paths[0].read_text().splitlines()))
    assert [row["block"] for row in rows] == ["block 0", "block 1", "block 2"]
    assert rows[2]["refocused_after_%"] == ""


def test_fit_of_a_known_line(loaded, scenes):
    found = observe(loaded, scenes[:1], DIMS)
    object.__setattr__(found, "received", 2 * found.ratio + 0.5)
    assert found.fit() == pytest.approx((2, 0.5, 1), abs=1e-4)


def test_no_images(loaded):
    with pytest.raises(ValueError, match="no image"):
        observe(loaded, [], DIMS)


def test_consistency_of_two_sets(loaded, scenes, tmp_path):
    found = consistency(loaded, {"one": scenes[:2], "two": scenes[2:]})
    table, plot = write_consistency(found, tmp_path, "a CLIP")
    rows = csv.DictReader(table.read_text().splitlines())
    chosen = {(row["data_set"], int(row["channel"])) for row in rows if row["chosen"] == "1"}
    assert {channel for name, channel in chosen if name == "one"} == set(DIMS)
    assert Path(plot).is_file()
