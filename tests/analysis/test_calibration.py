"""Planted channels are found, exactly; halves; the files of the report; rfclip calibrate."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rfclip.analysis import charts
from rfclip.analysis.calibration import add_to_data_file, calibrated, write_report
from rfclip.cli import main
from rfclip.clip.loader import load_clip
from rfclip.io.sample_world import calibration_images
from rfclip.methods import distraction as calibrate

PLANTED = (5, 23)  # of the fixture clip_files


@pytest.fixture
def loaded(clip_files):
    return load_clip(**clip_files)


@pytest.fixture
def scenes():
    return torch.from_numpy(calibration_images(6, (64, 80), seed=1)).split(1)


def test_finds_exactly_the_planted_channels_in_both_halves(loaded, scenes):
    found = calibrated(loaded, scenes)
    assert found.dims == PLANTED
    assert found.half_dims == (PLANTED, PLANTED)
    assert found.agreement == 1
    assert found.images == 6


def test_every_patch_counts_the_same(loaded, scenes):
    small = [scene[:, :32, :48] for scene in scenes[:3]]
    mixed = [*small, *scenes[3:]]
    expected = calibrate.measure(loaded.model.visual, map(loaded.normalised, mixed))
    found = calibrated(loaded, mixed).whole
    torch.testing.assert_close(found.profile, expected.profile)
    torch.testing.assert_close(found.crossings, expected.crossings)
    assert float(found.profile.sum()) == pytest.approx(1)


def test_one_image_has_no_halves(loaded, scenes):
    with pytest.raises(ValueError, match="1 image is too few"):
        calibrated(loaded, scenes[:1])


def test_the_report_and_its_data_file_are_taken(loaded, scenes, tmp_path, monkeypatch):
    table, plot, data = write_report(calibrated(loaded, scenes), loaded, tmp_path / "out", "scenes")
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [int(row["channel"]) for row in rows if row["chosen"] == "1"] == list(PLANTED)
    assert sum(float(row["share_1/d"]) for row in rows) == pytest.approx(128, abs=0.1)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert calibrate.resolve_distraction_dims(loaded, str(data)) == PLANTED
    monkeypatch.setattr(calibrate, "DATA_FILE", data)
    monkeypatch.setattr(calibrate, "measure", None)  # nothing is calibrated
    assert calibrate.resolve_distraction_dims(loaded, "auto") == PLANTED


def test_adding_keeps_what_a_data_file_holds(loaded, tmp_path):
    file = tmp_path / "dims.json"
    file.write_text('{"ViT-B-16": {"openai": [4]}}')
    add_to_data_file(file, loaded, (1, 2))
    add_to_data_file(file, loaded, (3,))
    entries = json.loads(file.read_text())
    assert entries == {"ViT-B-16": {"openai": [4]}, loaded.architecture: {loaded.weights_hash: [3]}}


@pytest.mark.parametrize("content", ["[1]", "nothing"])
def test_other_files_are_left_alone(loaded, tmp_path, content):
    file = tmp_path / "dims.json"
    file.write_text(content)
    with pytest.raises(ValueError, match="is no data file"):
        add_to_data_file(file, loaded, (1,))
    assert file.read_text() == content


def test_the_plot_marks_the_chosen_channels():
    profile, crossings = np.ones(20), np.zeros(20)
    profile[[3, 7]] = (6, 5)
    crossings[3] = 0.05
    figure = charts.channel_profile(profile, crossings, [3, 7], (2.0, 0.002), "title")
    assert figure.get_suptitle() == "title"
    for axis, values in zip(figure.axes, (profile, 100 * crossings), strict=True):
        assert [text.get_text() for text in axis.texts] == ["3", "7"]
        assert [segment[1][1] for segment in axis.collections[0].get_segments()] == values.tolist()


@pytest.fixture
def run(clip_files, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    model = [f"--model={clip_files['model']}", f"--pretrained={clip_files['pretrained']}"]
    return lambda *arguments: main(["calibrate", *map(str, arguments), *model])


def test_tool_on_a_folder(run, tmp_path, capsys, scenes):
    for number, scene in enumerate(scenes):
        path = tmp_path / "photos" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(scene[0].numpy()).save(path)
    assert run(tmp_path / "photos", "--out", "out") == 0
    text = capsys.readouterr().out
    assert "ViT-128x3-16-64x64: 5, 23\n" in text and "agreement 100 %" in text and "rule: a channel is chosen" in text
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "distraction_dims.json",
        "profile.csv",
        "profile.png",
    ]


def test_tool_without_a_folder_and_with_an_empty_one(run, tmp_path, capsys, monkeypatch):
    file = tmp_path / "data.json"
    monkeypatch.setattr(calibrate, "DATA_FILE", file)
    assert run("--scenes", 4, "--update") == 0
    assert list(json.loads(file.read_text())["ViT-128x3-16-64x64"].values()) == [list(PLANTED)]
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty") == 1
    assert "holds no image" in capsys.readouterr().err
