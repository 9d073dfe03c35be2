"""What a manifest says of a config, and what makes it another one."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from rfclip.benchmarks.configs import benchmark_config, config, profile_name
from rfclip.runs import manifest
from rfclip.runs.manifest import circumstances, code_hash, data_facts, decisive_facts, fingerprints, without_paths


class Dataset:
    """Three images and their masks; the last mask is missing."""

    def __init__(self, root: Path) -> None:
        self.data_root = str(root)
        for index in range(3):
            (root / f"{index}.jpg").write_bytes(b"x" * (index + 1))
        for index in range(2):
            (root / f"{index}.png").write_bytes(b"y")

    def __len__(self) -> int:
        return 3

    def get_data_info(self, index: int) -> dict[str, str]:
        return {"img_path": f"{self.data_root}/{index}.jpg", "seg_map_path": f"{self.data_root}/{index}.png"}


def facts(**changes: Any) -> dict[str, Any]:
    cfg = Config.fromfile(benchmark_config("voc21"))
    cfg.merge_from_dict(changes)
    return decisive_facts(cfg, {"profile": "paper", "pamr": False})


def test_facts_of_a_benchmark() -> None:
    found = facts()
    assert found["profile"] == "paper" and found["layers"] == "all" and found["pamr"] is False
    assert found["vocabulary"]["name"] == "voc21"
    assert (found["vocabulary"]["classes"], found["templates"]["count"]) == (21, 80)
    assert found["prob_thd"] == 0.1 and found["window"] == {"mode": "whole"} and found["precision"] == "fp32"
    assert found["resize"] == [[2048, 336]]
    assert found["config"]["evaluator"] == {"type": "ExactIoUMetric", "ignore_index": 255}
    assert "data_root" not in found["config"]["dataset"]
    assert found["config_file"] == "rfclip_vit-b16_voc21.py"
    json.dumps(found)


@pytest.mark.parametrize(
    "changes",
    [
        {"model.prior.image_weight": 0.2},
        {"model.vocabulary": "voc21_clean"},
        {"model.method.beta": 0.5},
        {"test_dataloader.dataset.reduce_zero_label": True},
        {"test_dataloader.dataset.indices": 2},
        {"test_dataloader.dataset.pipeline.1.scale": (2048, 224)},
        {"test_evaluator.ignore_index": 0},
        {"test_cfg.fp16": True},
        {"data_preprocessor": {"type": "PaddingPreProcessor", "mean": [0.0] * 3, "std": [255.0] * 3}},
    ],
)
def test_identity_follows_the_settings(changes: dict[str, Any]) -> None:
    assert facts()["identity"] == facts()["identity"]
    assert facts(**changes)["identity"] != facts()["identity"]


def test_identity_does_not_follow_what_decides_no_number() -> None:
    changes = {
        "test_evaluator.prefix": "x",
        "test_dataloader.batch_size": 4,
        "test_dataloader.dataset.test_mode": False,
    }
    assert facts(**changes)["identity"] == facts()["identity"]


@pytest.mark.parametrize("entry", ["clip.pretrained", "clip.model", "method.distraction_dims"])
def test_identity_follows_the_files_that_the_config_names(tmp_path: Path, entry: str) -> None:
    identities = set()
    for content in (b"1", b"2"):
        (tmp_path / "file").write_bytes(content)
        identities.add(facts(**{f"model.{entry}": str(tmp_path / "file")})["identity"])
    assert len(identities) == 2


def test_identity_follows_the_calibration_folder(tmp_path: Path) -> None:
    identities = set()
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(b"1")
        identities.add(facts(**{"model.method.calibration_images": str(tmp_path)})["identity"])
    assert len(identities) == 2


def test_data_are_known_by_their_contents(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    before = fingerprints(dataset)
    assert list(before) == ["0.jpg", "1.jpg", "2.jpg"]
    (tmp_path / "1.png").write_bytes(b"z")  # of the same size
    after = fingerprints(dataset)
    assert [name for name in before if before[name] != after[name]] == ["1.jpg"]
    assert fingerprints(dataset, ["2.jpg"]) == {"2.jpg": after["2.jpg"]}
    assert data_facts(before)["images"] == 3
    assert data_facts(before)["sha256"] != data_facts(after)["sha256"]


def test_profile_names() -> None:
    assert profile_name(config("voc21")["method"]) == "paper"
    assert profile_name({}) == "paper"
    assert profile_name({"type": "MeanKK"}) == "mean_kk"
    assert profile_name({**config("voc21")["method"], "beta": 0.5, "layers": "last"}) == "paper (beta=0.5, layers=last)"
    assert profile_name({"type": "Mine"}) == "Mine"
    refocused = {"type": "Refocused", "head": {"type": "SCCLIP"}, "beta": 0.5}
    assert profile_name(refocused) == "Refocused (head={'type': 'SCCLIP'}, beta=0.5)"


def test_absolute_paths_are_cut(tmp_path: Path) -> None:
    value = {"a": [str(tmp_path / "weights.pt"), "data/voc", ("~/x.json", 3)], "b": tmp_path / "y"}
    assert without_paths(value) == {"a": ["weights.pt", "data/voc", ["x.json", 3]], "b": "y"}


def test_circumstances_name_no_host() -> None:
    found = circumstances()
    assert found["versions"]["mmsegmentation"] and found["machine"]["cores"] >= 1
    assert manifest.platform.node() not in json.dumps(found) or not manifest.platform.node()


def test_commit_is_that_of_the_checkout_and_none_without(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest.git_commit.cache_clear()
    root = Path(manifest.__file__).parents[2]
    if (root / ".git").exists():
        head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True)
        assert str(manifest.git_commit()).rstrip("+") == head.stdout.strip()

    def no_git(*_: object) -> str:
        raise FileNotFoundError("git")

    manifest.git_commit.cache_clear()
    monkeypatch.setattr(manifest, "_git", no_git)
    assert manifest.git_commit() is None
    manifest.git_commit.cache_clear()


def test_the_code_hash_counts_what_can_change_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("refocus.py", "methods/base.py", "data/vocabularies/voc21.json", "cli/test.py", "data/expected.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("as it was")
    monkeypatch.setattr("rfclip.runs.manifest.PACKAGE", tmp_path)
    before = code_hash.__wrapped__()
    for name, counts in (("cli/test.py", False), ("data/expected.json", False), ("methods/base.py", True)):
        (tmp_path / name).write_text("changed")
        assert (code_hash.__wrapped__() != before) is counts, name


def vision_run(tmp_path: Path, clip: str = "tiny", **vfm: Any) -> dict[str, Any]:
    method = {"type": "ProxyCLIP", "vfm": {"type": "DINO", "pretrained": "auto", **vfm}, "_delete_": True}
    return facts(**{"model.clip.model": clip, "model.clip.pretrained": None, "model.method": method})


def test_the_vision_model_counts(tmp_path: Path) -> None:
    tiny, other = vision_run(tmp_path), vision_run(tmp_path, clip="ViT-B-16")
    assert tiny["vision"]["pretrained"] == "tiny8" and tiny["vision"]["type"] == "DINO"
    assert other["vision"]["pretrained"] == "dino_vitb8"
    assert len(tiny["vision"]["file_sha256"]) == 64 and other["vision"]["file_sha256"] is None
    (tmp_path / "mine.pth").write_bytes(b"x")
    mine = vision_run(tmp_path, pretrained=str(tmp_path / "mine.pth"))
    assert mine["vision"]["pretrained"] == "mine.pth" and str(tmp_path) not in json.dumps(mine)
    (tmp_path / "mine.pth").write_bytes(b"yy")
    os.utime(tmp_path / "mine.pth", (1, 1))
    changed = vision_run(tmp_path, pretrained=str(tmp_path / "mine.pth"))
    heads = vision_run(tmp_path, pretrained=str(tmp_path / "mine.pth"), heads=2)
    assert len({each["identity"] for each in (tiny, other, mine, changed, heads)}) == 5
    assert facts()["vision"] is None
