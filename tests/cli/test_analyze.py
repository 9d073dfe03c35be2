"""rfclip analyze and rfclip audit on two small pictures in VOC's layout and a small random CLIP."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rfclip.cli import main


@pytest.fixture
def data(tmp_path):
    """A data root with VOC 2012: two pictures of 40 x 60 pixels, upper half class 3, lower half class 15."""
    root = tmp_path / "data" / "VOCdevkit" / "VOC2012"
    folders = [root / name for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")]
    for folder in folders:
        folder.mkdir(parents=True)
    labels = np.repeat([3, 15], 20).astype(np.uint8)[:, None].repeat(60, 1)
    for name in ("a", "b"):
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folders[0] / f"{name}.jpg")
        Image.fromarray(labels).save(folders[1] / f"{name}.png")
    (folders[2] / "val.txt").write_text("a\nb\n")
    return tmp_path / "data"


@pytest.fixture
def tool(clip_files, data, monkeypatch, tmp_path):
    """tool(verb, *arguments) -> exit status."""
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("rfclip.plugin.segmentor.load_templates", lambda spec: ("a {}.",))
    monkeypatch.setattr("rfclip.methods.distraction.SCENES", 4)
    monkeypatch.chdir(tmp_path)
    model = [f"--model={clip_files['model']}", f"--checkpoint={clip_files['pretrained']}", f"--data-root={data}"]

    def call(name, *arguments):
        return main([name, *map(str, arguments), *model, "--out=out"])

    return call


def read(name):
    return list(csv.DictReader(Path("out", name).read_text().splitlines()))


def test_attention(tool, capsys):
    assert tool("analyze", "attention", "--short-side=48") == 0
    assert [row["block"] for row in read("attention.csv")] == ["block 0", "block 1", "block 2"]
    assert {row["measured_on"].partition(", ")[2] for row in read("attention.csv")} == {"voc21, first 32 images"}
    assert "attention_fit.png" in capsys.readouterr().out


def test_a_table_of_one_image_fills_no_more_than_a_screen(tool, tmp_path, capsys):
    settings = tmp_path / "two.py"
    rows = "[dict(name='a', method=dict(type='MeanKK')), dict(name='b', method=dict(type='VanillaCLIP'))]"
    settings.write_text(f"analysis = dict(title='Two', rows={rows})")
    assert tool("analyze", settings, "--limit=1") == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) <= 6 and "voc21, b: mIoU" in said.out
    assert len(read("two.csv")) == 2
    assert {row["measured_on"].partition(", ")[2] for row in read("two.csv")} == {"your data, first 1 images"}
    (log, _) = Path("out/runs").rglob("*.log")
    assert "distraction" not in said.out and "test_dataloader" in log.read_text()  # the settings


def test_consistency(tool):
    assert tool("analyze", "consistency", "--short-side=48") == 0
    assert {row["data_set"] for row in read("consistency.csv")} <= {"voc21"}
    assert Path("out/consistency.png").is_file()


def test_audit(tool, tmp_path, capsys):
    own = tmp_path / "mine.txt"
    own.write_text("wall, floor\n" + "".join(f"thing {i}\n" for i in range(20)))
    assert tool("audit", "--vocabulary", own, "--limit=1", "--keep-all-names") == 0
    rows = read("audit_voc21.csv")
    assert {"IoU_published_%", "IoU_clean_%", "IoU_plain_%", "IoU_mine_%"} <= set(rows[0])
    assert [row["kind"] for row in rows].count("class") == 21
    assert sum(float(row["pixels_won_%"]) for row in rows if row["kind"] == "name") == pytest.approx(100, abs=0.5)
    assert "the first 1 images of each benchmark" in Path("out/audit.md").read_text(encoding="utf-8")
    assert "voc21      published" in capsys.readouterr().out and Path("out/audit_voc21.png").is_file()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["analyze", "nothing"], "no analysis 'nothing'; there are ablation"),
        (["analyze", "attention", "--benchmarks=voc"], "no benchmark 'voc'"),
        (["analyze", "attention", "--benchmarks=ade20k"], "ade"),
        (["audit", "--vocabulary=no.txt"], "no.txt not found"),
        (["audit", "--distractors=-3"], "--distractors takes how many words, 0 or more"),
    ],
)
def test_errors_are_one_sentence(tool, capsys, arguments, message):
    assert tool(*arguments) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error
