"""Benchmark runs of the real segmentor, with weights of every accepted layout, and with unusable ones."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmseg.registry import MODELS

from rfclip.benchmarks.configs import BENCHMARKS, benchmark_config, config
from rfclip.benchmarks.options import Options
from rfclip.cli import compare, eval_all, segment, test
from rfclip.runs.run import UserError, run
from tests.runs.test_run import write_data

QUICK = {"model.templates": "plain", "test_dataloader.num_workers": 0, "test_dataloader.persistent_workers": False}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with six small images in VOC's layout, and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "cache"))
    write_data(tmp_path / "data/VOCdevkit/VOC2012")
    return tmp_path


def options(benchmark: str, **changes: Any) -> Options:
    extra = changes.pop("cfg_options", {})
    return Options(benchmark_config(benchmark), cfg_options={**QUICK, **extra}, **changes)


def openai_state(make_clip: Callable[..., Any]) -> dict[str, torch.Tensor]:
    state = {name: tensor for name, tensor in make_clip().state_dict().items() if name != "attn_mask"}
    sizes = {"input_resolution": 64, "context_length": 77, "vocab_size": 49408}
    return {**state, **{name: torch.tensor(size) for name, size in sizes.items()}}


@pytest.mark.parametrize("profile", ["paper", "mean_kk"])
def test_a_benchmark_runs_from_its_config(clip_files: dict[str, Any], profile: str) -> None:
    clip = dict(model=clip_files["model"], checkpoint=clip_files["pretrained"])
    results = run(options("voc21", profile=profile, refiner="pamr" if profile == "paper" else None, **clip))
    manifest = results["manifest"]
    assert 0 <= results["metrics"]["mIoU"] <= 100 and len(results["per_class"]) == 21
    assert manifest["profile"] == profile and manifest["pamr"] is (profile == "paper")
    assert len(manifest["weights"]["sha256"]) == 64 and manifest["weights"]["activation"] == "QuickGELU"
    assert manifest["weights"]["pretrained"] == "clip.safetensors"


@pytest.mark.parametrize(
    ("given", "refiner"),
    [
        ([], None),
        (["--pamr"], "pamr"),
        (["--refiner", "text_laplacian"], "text_laplacian"),
        (["--pamr", "--refiner=none"], "none"),
    ],
)
def test_the_command_lines_that_refine(given: list[str], refiner: str | None) -> None:
    lines = {
        test: ["config.py"],
        eval_all: [],
        compare: ["--methods=paper", "--benchmarks=voc21"],
        segment: ["photo.jpg", "--classes=cat"],
    }
    for verb, needed in lines.items():
        args = verb.parse(argparse.ArgumentParser(), [*needed, *given])
        expected = "none" if verb in (segment, compare) and refiner is None else refiner
        assert args.refiner == ([expected] if verb is compare else expected), verb  # compare takes several


@pytest.mark.parametrize("layout", ["torchscript", "state dict"])
def test_the_architecture_is_read_from_a_file_in_openais_layout(
    make_clip: Callable[..., Any], save_torchscript: Callable[..., None], layout: str
) -> None:
    state = openai_state(make_clip)
    if layout == "torchscript":
        save_torchscript(state, Path("weights.pt"))
    else:
        torch.save(state, "weights.pt")
    results = run(options("voc20", model="auto", checkpoint="weights.pt", profile="vanilla_clip"))
    assert results["manifest"]["weights"]["activation"] == "QuickGELU"


def test_weights_that_cannot_be_used_end_in_a_sentence(make_clip: Callable[..., Any], folder: Path) -> None:
    state = openai_state(make_clip)
    torch.save(state, "whole.pt")
    Path("torn.pt").write_bytes(Path("whole.pt").read_bytes()[:5000])
    torch.save({"visual.layer1.0.conv1.weight": torch.zeros(1)}, "resnet.pt")
    for weights, message in (
        ("none.pt", "none.pt"),
        ("torn.pt", "torn.pt"),
        ("resnet.pt", "ResNet"),
        ("whole.pt", "whole.pt"),  # of another model than the config's ViT-B-16
    ):
        with pytest.raises(UserError) as caught:
            run(options("voc20", checkpoint=weights))
        assert message in str(caught.value) and "\n" not in str(caught.value)
        assert not (folder / "work_dirs/voc20/results.json").exists()


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_shipped_model_dict_builds(clip_files: dict[str, Any], benchmark: str) -> None:
    model = MODELS.build({**config(benchmark), "clip": clip_files, "templates": "plain"})
    assert model.dataset_meta["classes"] and model.text_embeddings.shape[1] == 32


def test_a_threshold_without_a_background_is_refused(clip_files: dict[str, Any]) -> None:
    clip = dict(model=clip_files["model"], checkpoint=clip_files["pretrained"])
    with pytest.raises(UserError, match="background"):
        run(options("voc20", cfg_options={"model.prob_thd": 0.1}, **clip))
