"""The embedded default, end to end: the tiny CLIP on the sample benchmarks, through the command lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rfclip import OpenVocabSegmenter
from rfclip.clip.tiny import TINY_FOLDER
from rfclip.io import sample_world

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}

PROJECT = """
custom_imports = dict(imports=["rfclip"])
model = dict(
    type="RFCLIP",
    clip=dict(model="tiny"),
    vocabulary=[["cat"], ["dog", "sheep"], ["grass"]],
)
"""


def python(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "sample"
    done = python("datasets/make_sample.py", out)
    assert done.returncode == 0, done.stderr
    return out


def test_the_tiny_clip_is_small() -> None:
    size = sum(file.stat().st_size for file in TINY_FOLDER.iterdir())
    assert size <= 8 * 2**20


def test_the_tiny_clip_reads_a_scene_that_it_was_not_trained_on() -> None:
    rng = np.random.default_rng(99)
    words = ["cat", "traffic light", "sky", "grass", "zebra", "bed", "river", "pizza"]
    regions = sample_world.layout((336, 448), len(words), rng)
    scene = sample_world.render(regions, words, rng)
    out = OpenVocabSegmenter(model="tiny", device="cpu")(scene.image, words)
    assert (out.labels == regions).mean() > 0.7


def test_refocusing_beats_plain_clip_on_a_sample_benchmark(sample: Path, tmp_path: Path) -> None:
    score = {}
    for profile in ("paper", "vanilla_clip"):
        done = python(
            "tools/test.py", "configs/rfclip/rfclip_vit-b16_voc20.py", "--model", "tiny", "--data-root", sample,
            "--profile", profile, "--work-dir", tmp_path / profile,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        results = json.loads((tmp_path / profile / "voc20" / "results.json").read_text())
        assert set(results["metrics"]) >= {"mIoU", "aAcc", "mAcc"}
        assert len(results["per_class"]) == 20
        score[profile] = results["metrics"]["mIoU"]
    assert score["paper"] >= 30
    assert score["paper"] > score["vanilla_clip"]


def test_five_lines_in_another_project(tmp_path: Path) -> None:
    (tmp_path / "project.py").write_text(PROJECT)
    code = (
        "import torch; from mmengine.config import Config; config = Config.fromfile('project.py');"
        "from mmseg.registry import MODELS; model = MODELS.build(config.model);"
        "print(model.predict(torch.zeros(1, 3, 64, 96))[0].pred_sem_seg.data.shape)"
    )
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "torch.Size([1, 64, 96])" in done.stdout
