"""Whose weights a file holds and which activation they have can be said to every command."""

import json
from pathlib import Path

import numpy as np
import pytest

from rfclip.benchmarks.options import Options, build_config
from rfclip.cli import main, parse
from rfclip.cli.processes import command_of
from rfclip.runs.manifest import decisive_facts
from rfclip.segment.api import OpenVocabSegmenter

ROOT = Path(__file__).parents[2]
NEEDED = {
    "segment": ["x.png", "--classes=a"],
    "explain": ["x.png", "--classes=a"],
    "analyze": ["ablation"],
    "compare": ["--methods=paper", "--benchmarks=voc21"],
    "test": ["config.py"],
}


@pytest.mark.parametrize(
    "name",
    ["segment", "explain", "demo", "calibrate", "analyze", "audit", "test", "eval-all", "compare"],
)
def test_every_command_takes_them(name, capsys):
    def read(*arguments):
        return parse([name, *NEEDED.get(name, []), *arguments])[1]

    assert (read().quick_gelu, read().origin) == (None, None)
    told = read("--quick-gelu=no", "--origin=openai")
    assert (told.quick_gelu, told.origin) == (False, "openai")
    assert read("--quick-gelu=yes").quick_gelu is True
    with pytest.raises(SystemExit):
        read("--quick-gelu=false")
    assert "give yes or no, got 'false'" in capsys.readouterr().err


def test_they_are_passed_on_to_a_process_of_its_own():
    config = ROOT / "configs/rfclip/rfclip_vit-b16_voc21.py"
    plain = command_of(Options(config), [])
    assert command_of(Options(config, quick_gelu=True), []) == [*plain, "--quick-gelu=yes"]
    assert command_of(Options(config, quick_gelu=False, origin="me"), []) == [*plain, "--quick-gelu=no", "--origin=me"]


def test_they_reach_the_clip(clip_files, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "cache"))
    model = [f"--model={clip_files['model']}", f"--pretrained={clip_files['pretrained']}", f"--out={tmp_path / 'out'}"]
    loaded = []

    def calibrated(clip, images):
        loaded.append(clip)
        raise ValueError("that is enough")

    monkeypatch.setattr("rfclip.analysis.calibration.calibrated", calibrated)
    assert main(["calibrate", *model, "--quick-gelu=no", "--origin=me"]) == 1
    assert "that is enough" in capsys.readouterr().err
    assert (loaded[0].activation, loaded[0].origin) == ("GELU", "me")


def as_folder(clip_files, folder):
    """The CLIP of files as a folder of open_clip."""
    folder.mkdir()
    content = {"model_cfg": json.loads(Path(clip_files["model"]).read_text())}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    Path(clip_files["pretrained"]).rename(folder / "open_clip_model.safetensors")
    return folder


def test_a_folder_needs_no_weights_beside_it(clip_files, tmp_path, monkeypatch):
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "cache"))
    folder = as_folder(clip_files, tmp_path / "folder")
    segmenter = OpenVocabSegmenter(f"local-dir:{folder}", device="cpu", templates="plain", short_side=64)
    assert segmenter.loaded.architecture == "ViT-128x3-16-64x64"
    assert segmenter(np.zeros((64, 64, 3), np.uint8), ["cat", "dog"]).labels.shape == (64, 64)


@pytest.mark.parametrize("prefix", ["local-dir:", ""])
def test_the_weights_in_a_folder_are_known_before_a_run(clip_files, tmp_path, prefix):
    folder = as_folder(clip_files, tmp_path / "folder")
    options = Options(ROOT / "configs/rfclip/rfclip_vit-b16_voc21.py", model=f"{prefix}{folder}")
    before = decisive_facts(build_config(options), options.overrides())
    file = folder / "open_clip_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\1\2\3\4")
    after = decisive_facts(build_config(options), options.overrides())
    assert before["weights"]["file_sha256"] != after["weights"]["file_sha256"]
    assert before["identity"] != after["identity"]
