"""Every shipped config loads, and says what docs/METHOD.md section 6 says."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS

from rfclip.benchmarks.configs import (
    BENCHMARKS,
    benchmark_config,
    config,
    config_root,
    find_profile,
    listed,
    method_block,
    refiner_block,
)
from rfclip.benchmarks.options import Options, build_config
from rfclip.methods import METHODS
from rfclip.refiners import build_refiner

CONFIGS = sorted(config_root().glob("*/*.py"))
SHIPPED = [path for path in CONFIGS if path.parent.name not in ("_base_", "analysis")]  # analysis/: tables of variants

# short side, mode, prob_thd, image_weight, mean_vector_weight, cluster_threshold, classes, reduce zero label
SETTINGS = {
    "voc21": (336, "whole", 0.1, 0.1, 0.03, 0.10, 21, False),
    "voc20": (336, "slide", 0, 0.4, 0.02, 0.10, 20, True),
    "context60": (336, "slide", 0.1, 0.25, 0.04, 0.09, 60, False),
    "context59": (336, "slide", 0, 0.25, 0.04, 0.09, 59, True),
    "coco_object": (336, "slide", 0.1, 0.25, 0.01, 0.10, 81, False),
    "coco_stuff": (336, "slide", 0, 0.2, 0.02, 0.02, 171, False),
    "cityscapes": (560, "slide", 0, 0.1, 0.03, 0.14, 19, False),
    "ade20k": (336, "slide", 0, 0.3, 0.05, 0.06, 150, True),
}


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_benchmark_has_the_published_settings(benchmark: str) -> None:
    side, mode, prob_thd, image_weight, mean_weight, threshold, classes, reduce = SETTINGS[benchmark]
    cfg = Config.fromfile(benchmark_config(benchmark))
    assert cfg.benchmark == cfg.model.vocabulary == benchmark
    assert cfg.test_pipeline[1].scale == (2048, side)
    assert [step.type for step in cfg.test_pipeline[1:3]] == ["Resize", "LoadAnnotations"]
    window = dict(mode="slide", crop_size=224, stride=112, window_batch=8)
    assert cfg.model.test_cfg == (window if mode == "slide" else dict(mode="whole"))
    assert cfg.model.prob_thd == prob_thd
    assert cfg.model.background_index == (0 if prob_thd else None)
    scope = "window" if benchmark == "cityscapes" else "image"
    assert cfg.model.prior == dict(
        image_weight=image_weight,
        mean_vector_weight=mean_weight,
        cluster_threshold=threshold,
        scope=scope,
        linkage="complete",
    )
    assert cfg.model.keep_seg_logits is False and cfg.model.patch_fit == "crop"
    meta = DATASETS.get(cfg.test_dataloader.dataset.type).METAINFO
    assert len(meta["classes"]) == classes
    assert bool(cfg.test_dataloader.dataset.get("reduce_zero_label", False)) is reduce


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_config_has_what_mmsegmentation_looks_for(path: Path) -> None:
    cfg = Config.fromfile(path)
    assert cfg.model.type == "RFCLIP" and "_delete_" not in cfg.pretty_text
    assert cfg.test_dataloader.dataset.pipeline == cfg.test_pipeline
    assert cfg.test_pipeline[0].type == "LoadImageFromFile"
    assert cfg.visualizer.type == "SegLocalVisualizer"
    assert cfg.test_cfg.type == "TestLoop" and cfg.test_evaluator.type == "ExactIoUMetric"
    assert "mmseg::" not in path.read_text()


def test_there_is_a_file_for_every_benchmark() -> None:
    assert {path.stem for path in SHIPPED} == {f"rfclip_vit-b16_{benchmark}" for benchmark in BENCHMARKS}


@pytest.mark.parametrize("path", sorted(config_root().glob("_base_/profiles/*.py")), ids=lambda path: path.stem)
def test_profile_replaces_the_method_and_nothing_else(path: Path) -> None:
    profile = Config.fromfile(path)
    assert list(profile) == ["model"] and list(profile.model) == ["method"]
    assert profile.model.method["_delete_"] is True
    cfg = Config.fromfile(benchmark_config("voc21"))
    cfg.merge_from_dict(profile.to_dict())
    assert cfg.model.method == {k: v for k, v in profile.model.method.items() if k != "_delete_"}


def test_paper_profile_is_the_default() -> None:
    profile = Config.fromfile(config_root() / "_base_/profiles/paper.py").model.method
    assert profile.pop("_delete_")
    assert profile == config("voc21")["method"]


@pytest.mark.parametrize(
    ("name", "clip", "layers"),
    [
        ("rfclip_vit-b16_last-layer", ("ViT-B-16", "openai"), "last"),
        ("rfclip_vit-l14", ("ViT-L-14", "openai"), "all"),
        ("rfclip_vit-l14-336", ("ViT-L-14-336", "openai"), "all"),
        ("rfclip_vit-h14", ("ViT-H-14", "laion2b_s32b_b79k"), "all"),
    ],
)
def test_other_models_differ_where_they_say(name: str, clip: tuple[str, str], layers: str) -> None:
    model = Config.fromfile(config_root() / f"_base_/models/{name}.py").model
    assert (model.clip.model, model.clip.pretrained) == clip
    assert model.method.layers == layers and model.method.distraction_dims == "auto"


def test_config_is_a_fresh_plain_dict() -> None:
    first, second = config("ade20k"), config("ade20k")
    first["clip"]["model"] = "changed"
    assert second["clip"]["model"] == "ViT-B-16"
    assert type(second) is dict and type(second["clip"]) is dict


def test_unknown_benchmark_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no benchmark 'voc12'; there are voc21, voc20"):
        config("voc12")


def test_a_registered_method_needs_no_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    class OfMine:
        def __call__(self, vit: object, images: object, record: object = None) -> object:
            raise NotImplementedError

    monkeypatch.setitem(METHODS._classes, "OfMine", OfMine)
    assert find_profile("OfMine")[0] == "OfMine"
    assert method_block("OfMine") == {"type": "OfMine"}
    assert find_profile("ofmine")[0] == find_profile("of_mine")[0] == "OfMine"
    with pytest.raises(ValueError, match=r"no profile 'Theirs'; there are .*paper.*, and the methods .*OfMine"):
        find_profile("Theirs")
    with pytest.raises(ValueError, match=r"no profile 'sc_clipp' \(did you mean 'sc_clip'\?\); there are"):
        find_profile("sc_clipp")


@pytest.mark.parametrize("name", ["", ".", "../release", "a/b", "two words"])
def test_what_is_no_name_is_no_profile(name: str) -> None:
    with pytest.raises(ValueError, match="no profile "):
        find_profile(name)


def test_a_refiner_is_known_by_its_file_and_by_its_class() -> None:
    for name in ("pamr", "PAMR", "Pamr"):
        assert refiner_block(name) == dict(type="PAMR", num_iter=10, dilations=(8, 16))
    assert refiner_block("text_laplacian") == refiner_block("TextLaplacian") == refiner_block("text-laplacian")
    assert refiner_block("none") is None
    with pytest.raises(
        ValueError, match="no refiner 'crf'; there are none, pamr, text_laplacian, and the classes PAMR"
    ):
        refiner_block("crf")


@pytest.mark.parametrize("name", listed("_base_/refiners"))
def test_refiners_have_the_defaults_of_their_class(name: str) -> None:
    assert build_refiner(refiner_block(name)) == build_refiner({"type": refiner_block(name)["type"]})


def test_the_option_puts_a_refiner_in_place_of_the_configs(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        f"_base_ = [{str(benchmark_config('voc21'))!r}]\nmodel = dict(refiner=dict(type='TextLaplacian', grid=40))\n"
    )
    assert build_config(Options(own)).model.refiner.grid == 40
    assert build_config(Options(own, refiner="pamr")).model.refiner == refiner_block("pamr")
    assert "refiner" not in build_config(Options(own, refiner="none")).model
    assert "refiner" not in build_config(Options(benchmark_config("voc21"), refiner="none")).model
    assert Options(own, refiner="none").overrides() == {"refiner": "none"}
