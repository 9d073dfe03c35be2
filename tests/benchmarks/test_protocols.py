"""What was published with each method against a table written from docs/METHODS.md's sources, and who wins over it."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from rfclip.benchmarks import protocols
from rfclip.benchmarks.configs import (
    BENCHMARKS,
    benchmark_config,
    config,
    config_root,
    find_profile,
    listed,
    method_block,
    profile_name,
    profiles,
)
from rfclip.benchmarks.options import Options, build_config
from rfclip.benchmarks.protocols import (
    PROTOCOLS,
    apply_published,
    choose_protocol,
    published_benchmarks,
    published_settings,
)
from rfclip.clip.text import load_templates
from rfclip.methods import METHODS
from rfclip.runs.manifest import decisive_facts
from rfclip.words.vocabulary import load_vocabulary

OWN = ("cass", "gla", "lposs", "pearl", "proxy_clip", "resclip", "sc_clip", "sfp", "sfp_v1")
HERE = [name for name in OWN if name in profiles()]
WHOLE = "whole"

# In the order of BENCHMARKS: voc21, voc20, context60, context59, coco_object, coco_stuff, cityscapes, ade20k
SIDES = {
    **dict.fromkeys(OWN, (336, 336, 336, 336, 336, 336, 560, 336)),
    **dict.fromkeys(("sfp", "sfp_v1"), (336, 336, 336, 336, 336, 336, 560, 384)),
    "proxy_clip": (336, 336, 336, 336, 336, 336, 448, 448),
    "lposs": (448,) * 8,
}
SMALL, LARGE = (224, 112), (336, 112)
WINDOWS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(OWN, (SMALL,) * 8),
    **dict.fromkeys(("pearl", "resclip"), (WHOLE, WHOLE, *(SMALL,) * 6)),
    "cass": (WHOLE, *(SMALL,) * 7),
    "proxy_clip": (LARGE, LARGE, LARGE, LARGE, LARGE, LARGE, SMALL, LARGE),
}
TENTH = (0.1, 0, 0.1, 0, 0.1, 0, 0, 0)
THRESHOLDS = {
    **dict.fromkeys(OWN, (0,) * 8),
    **dict.fromkeys(("pearl", "resclip", "gla", "cass"), TENTH),
    **dict.fromkeys(("sc_clip", "sfp", "sfp_v1"), (0.15, 0, 0.15, 0, 0.35, 0, 0, 0)),
    "proxy_clip": (0.2, 0, 0.15, 0, 0.25, 0, 0, 0),
}
SCALES = {
    **dict.fromkeys(OWN, (40,) * 8),
    **dict.fromkeys(("sc_clip", "sfp", "sfp_v1"), (50, 40, 40, 40, 55, 40, 40, 40)),
}
ARGUMENTS: dict[str, tuple[dict[str, Any], ...]] = {
    **dict.fromkeys(OWN, ({},) * 8),
    "pearl": (*({},) * 6, {"alpha": 0.3}, {"alpha": 0.3}),
    "cass": ({}, {"stretch_spectrum": False}, *({},) * 4, {"stretch_spectrum": False}, {}),
    "resclip": tuple(
        dict(zip(("label_threshold", "rcs_weight", "sfr_scale", "sfr_weight"), values, strict=True))
        for values in (
            (0.5, 0.3, 2.2, 0.7), (0.1, 0.6, 2.1, 0.6), (0.3, 0.3, 1.8, 0.7), (0.25, 0.4, 1.8, 0.7),
            (0.11, 0.4, 1.8, 0.7), (0.11, 0.4, 1.8, 0.7), (0.1, 0.2, 2.1, 0.6), (0.25, 0.3, 2.1, 0.7),
        )
    ),
}  # fmt: skip
AREA = {(name, "voc21"): 0.1 for name in ("sc_clip", "sfp", "sfp_v1")}
NAMES = {
    **{(name, benchmark): f"{benchmark}_sfp" for name in ("sfp", "sfp_v1") for benchmark in ("voc21", "voc20")},
    ("sfp", "cityscapes"): "cityscapes_sfp",
    **{("proxy_clip", benchmark): f"{benchmark}_proxy_clip" for benchmark in ("voc21", "voc20", "coco_object")},
    **{
        ("lposs", benchmark): f"{benchmark}_lposs"
        for benchmark in ("voc21", "voc20", "context60", "context59", "coco_object", "coco_stuff")
    },
}


def published(profile: str, benchmark: str) -> Config:
    """The benchmark's config with the published settings; the method need not be registered."""
    cfg = Config.fromfile(benchmark_config(benchmark))
    cfg.merge_from_dict(Config.fromfile(config_root() / f"_base_/profiles/{profile}.py").to_dict())
    apply_published(cfg, profile, benchmark)
    return cfg


@pytest.mark.parametrize("benchmark", BENCHMARKS)
@pytest.mark.parametrize("profile", OWN)
def test_settings_are_the_published_ones(profile: str, benchmark: str) -> None:
    cfg, at = published(profile, benchmark), BENCHMARKS.index(benchmark)
    model = cfg.model
    assert cfg.test_pipeline == cfg.test_dataloader.dataset.pipeline
    assert tuple(cfg.test_pipeline[1].scale) == (2048, SIDES[profile][at])
    window = WINDOWS[profile][at]
    found = model.test_cfg.mode if window == WHOLE else (model.test_cfg.crop_size, model.test_cfg.stride)
    assert found == window and model.test_cfg.mode == (WHOLE if window == WHOLE else "slide")
    assert model.test_cfg.get("pad_multiple") == (56 if profile in ("proxy_clip", "gla") else None)
    assert model.prob_thd == THRESHOLDS[profile][at] and model.logit_scale == SCALES[profile][at]
    assert model.get("area_thd") == AREA.get((profile, benchmark))
    assert model.patch_fit == ("pad_black" if profile.startswith("lposs") else "crop")
    assert model.vocabulary == NAMES.get((profile, benchmark), benchmark)
    assert model.templates == ("sfp_v1" if profile == "sfp_v1" else "imagenet80")
    assert model.clip.pretrained == ("laion2b_s34b_b88k" if profile.startswith("lposs") else "openai")
    assert model.prior == ({**config(benchmark)["prior"], "linkage": "ward"} if profile == "cass" else None)
    grid = 224 if benchmark == "cityscapes" else 80
    assert model.get("refiner") == ({"type": "TextLaplacian", "grid": grid} if profile == "pearl" else None)
    block = Config.fromfile(config_root() / f"_base_/profiles/{profile}.py").model.method
    block.pop("_delete_")
    assert model.method == {**block, **ARGUMENTS[profile][at]}


def test_the_profiles_with_settings_of_their_own() -> None:
    assert tuple(name for name in listed("_base_/profiles") if published_benchmarks(name)) == OWN
    assert all(published_benchmarks(name) == BENCHMARKS for name in OWN)
    assert published_benchmarks("mean_kk") == published_benchmarks("OfMine") == ()


@pytest.mark.parametrize("profile", OWN)
def test_what_the_settings_name_exists(profile: str) -> None:
    for benchmark in BENCHMARKS:
        settings = published_settings(profile, benchmark)
        assert load_vocabulary(settings["vocabulary"]).classes == load_vocabulary(benchmark).classes
        assert load_templates(settings["templates"])


def test_the_fifteen_templates_of_the_first_sfp() -> None:
    templates = load_templates("sfp_v1")
    assert len(set(templates)) == 15 and templates[0] == "a clean origami {}."
    assert templates[1:3] == ("a photo of a {}.", "This is a photo of a {}.")
    assert templates[5:8] == ("This is a photo of a large {}.", "There is a {} in the scene.",
                              "There is a small {} in the scene.")  # fmt: skip
    assert templates[10:] == (
        "There is the {} in the scene.", "a photo of a {} in the scene.", "a photo of a small {}.",
        "a photo of a medium {}.", "a photo of a large {}.",
    )  # fmt: skip


@pytest.mark.parametrize("profile", HERE)
def test_shared_exchanges_the_method_alone(profile: str) -> None:
    for benchmark in BENCHMARKS:
        cfg = build_config(Options(benchmark_config(benchmark), profile=profile, protocol="shared"))
        plain = Config.fromfile(benchmark_config(benchmark))
        assert cfg.protocol == "shared" and cfg.test_dataloader == plain.test_dataloader
        assert cfg.model.method == method_block(profile)
        other = {"method": 0, **({"prior": None} if profile.startswith("lposs") else {})}  # which takes no prior
        assert {**cfg.model, **other} == {**plain.model, **other} and (cfg.model.prior is None) == ("prior" in other)


@pytest.mark.parametrize("profile", HERE)
def test_published_is_what_runs_without_a_word(profile: str) -> None:
    cfg = build_config(Options(benchmark_config("cityscapes"), profile=profile))
    assert cfg.protocol == "published" and cfg.model == published(profile, "cityscapes").model
    facts = decisive_facts(cfg, {})
    assert (facts["profile"], facts["protocol"]) == (profile, "published")
    assert facts["refiner"] == ("TextLaplacian" if profile == "pearl" else None) and facts["pamr"] is False


@pytest.mark.parametrize("protocol", [None, *PROTOCOLS])
def test_a_profile_without_settings_of_its_own_keeps_the_benchmarks(protocol: str | None) -> None:
    cfg = build_config(Options(benchmark_config("voc21"), profile="mean_kk", protocol=protocol))
    assert cfg.protocol == "shared" and cfg.model.prior == config("voc21")["prior"]


def test_without_a_profile_the_configs_method_says_what_is_published() -> None:
    options = Options(benchmark_config("voc21"), protocol="published")
    assert build_config(options).protocol == "shared"  # RF-CLIP's are those of the config


def test_what_the_command_line_says_wins() -> None:
    entries = {"model.prob_thd": 0.5, "model.method.alpha": 0.2, "test_pipeline.1.scale": (2048, 200)}
    cfg = build_config(Options(benchmark_config("voc21"), profile="pearl", refiner="pamr", cfg_options=entries))
    assert (cfg.model.prob_thd, cfg.model.method.alpha, cfg.model.refiner.type) == (0.5, 0.2, "PAMR")
    assert "grid" not in cfg.model.refiner and cfg.test_dataloader.dataset.pipeline[1].scale == (2048, 200)
    facts = decisive_facts(cfg, {})
    assert facts["profile"] == "pearl (alpha=0.2)" and facts["pamr"] is True and facts["refiner"] == "PAMR"


def test_another_clip_is_no_place_for_the_published_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS._classes, "LPOSS", METHODS._classes["MaskCLIP"])
    for changes, clip in (
        ({}, ("ViT-B-16", "laion2b_s34b_b88k")),
        ({"model": "tiny"}, ("tiny", None)),
        ({"model": "ViT-L-14"}, ("ViT-L-14", "openai")),
        ({"checkpoint": "mine.pt"}, ("ViT-B-16", "mine.pt")),
    ):
        cfg = build_config(Options(benchmark_config("voc20"), profile="lposs", **changes))
        assert (cfg.model.clip.model, cfg.model.clip.pretrained) == clip


def test_a_data_set_of_ones_own_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.py"
    own.write_text(f"_base_ = {str(benchmark_config('voc20'))!r}\nbenchmark = 'mine'\n")
    lines: list[str] = []
    monkeypatch.setattr(protocols, "print_log", lambda line, *_: lines.append(line))
    cfg = build_config(Options(own, profile="sc_clip"))
    assert cfg.protocol == "shared" and cfg.model.prior is not None
    assert lines == ["Nothing was published with 'sc_clip' for 'mine': the config's own settings (protocol shared)."]
    assert build_config(Options(own, profile="sc_clip", protocol="shared")).protocol == "shared" and len(lines) == 1
    with pytest.raises(ValueError, match=r"'sc_clip' has no published settings for 'mine' \(there are voc21, voc20"):
        build_config(Options(own, profile="sc_clip", protocol="published"))


def test_what_a_config_of_ones_own_loses_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.py"
    base = f"_base_ = {str(benchmark_config('voc20'))!r}\n"
    own.write_text(base + "model = dict(vocabulary='voc20_clean', logit_scale=60.0)\n")
    lines: list[str] = []
    monkeypatch.setattr(protocols, "print_log", lambda line, *_: lines.append(line))
    for profile in ("sc_clip", "mean_kk"):
        build_config(Options(benchmark_config("voc20"), profile=profile))
        build_config(Options(own, profile=profile, protocol="shared"))
    assert lines == []
    assert build_config(Options(own, profile="sc_clip")).model.vocabulary == "voc20"
    assert lines == [
        "The config's model.logit_scale, model.vocabulary give way to what was published with 'sc_clip' for 'voc20'; "
        "--protocol shared keeps them, and --cfg-options win."
    ]


def test_unknown_names_are_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="no protocol 'fair'; there are published, shared"):
        choose_protocol("fair", "sc_clip", "voc21")
    with pytest.raises(ValueError, match=r"'mean_kk' has no published settings .* \(profiles with some: sc_clip, sfp"):
        published_settings("mean_kk", "voc21")
    with pytest.raises(ValueError, match=r"no profile 'scclipp' .*there are .*sc_clip.*, and the methods .*SCCLIP"):
        build_config(Options(benchmark_config("voc21"), profile="scclipp"))


def test_a_pipeline_without_a_short_side_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        f"_base_ = {str(benchmark_config('voc20'))!r}\ntest_pipeline = [dict(type='LoadImageFromFile')]\n"
        "test_dataloader = dict(dataset=dict(pipeline=test_pipeline))\n"
    )
    with pytest.raises(ValueError, match=r"short side needs one step .*Resize.*--protocol shared"):
        build_config(Options(own, profile="sc_clip"))


def test_profiles_of_methods_that_are_not_registered_are_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(profiles()) <= set(listed("_base_/profiles"))
    monkeypatch.setattr(METHODS, "_classes", {k: v for k, v in METHODS._classes.items() if k != "PEARL"})
    monkeypatch.setattr(METHODS, "_others", [])
    assert "pearl" not in profiles() and "mean_kk" in profiles()
    with pytest.raises(ValueError, match="profile 'pearl' needs the method PEARL, which is not registered; there are"):
        find_profile("pearl")


def test_a_tenth_method_is_a_class_and_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry is CONTRIBUTING.md's example, under a class without a profile of its own."""
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```json\n(\{\n  \"key_key\".*?)^```$", text, re.DOTALL | re.MULTILINE)
    known = protocols._protocols()
    check_entry(json.loads(block)["key_key"], known["common"]["all"])
    entry = json.loads(block.replace("voc21_key_key", "voc21_clean"))
    entry["key_key"]["ade20k"]["method"] = {"layers": "last"}
    monkeypatch.setattr(protocols, "_protocols", lambda: {**known, "profiles": {"KeyKey": entry["key_key"]}})
    monkeypatch.setitem(METHODS._classes, "KeyKey", METHODS._classes["MeanKK"])
    cfg = build_config(Options(benchmark_config("voc21"), profile="KeyKey"))
    assert (cfg.protocol, cfg.model.method, cfg.model.prob_thd) == ("published", {"type": "KeyKey"}, 0.2)
    assert (cfg.model.vocabulary, cfg.model.refiner, cfg.test_pipeline[1].scale) == (
        "voc21_clean", {"type": "PAMR"}, (2048, 448),
    )  # fmt: skip
    facts = decisive_facts(build_config(Options(benchmark_config("ade20k"), profile="KeyKey")), {})
    assert (facts["profile"], facts["protocol"], facts["pamr"]) == ("KeyKey", "published", True)
    assert facts["layers"] == "last"
    with pytest.raises(ValueError, match=r"'KeyKey' has no published settings for 'voc20' \(there are voc21, ade20k\)"):
        build_config(Options(benchmark_config("voc20"), profile="KeyKey", protocol="published"))


def check_entry(entry: dict[str, Any], common: dict[str, Any]) -> None:
    """An entry of protocols.json has no word that nothing reads."""
    benchmarks = set(entry) - {"like", "benchmarks", "all"}
    assert benchmarks <= set(BENCHMARKS) and set(entry.get("benchmarks", [])) <= set(BENCHMARKS)
    for name in benchmarks | {"all"} & set(entry):
        assert set(entry[name]) <= {*common, "vocabulary", "method", "clip"}, name
        assert set(entry[name].get("clip", {})) <= {"model", "pretrained"}


def test_the_data_file_has_no_word_that_nothing_reads() -> None:
    data = protocols._protocols()
    assert set(data) == {"note", "common", "profiles"}
    for name, entry in data["profiles"].items():
        check_entry(entry, data["common"]["all"])
        assert entry.get("like", name) in data["profiles"]
        kind = METHODS.get(Config.fromfile(config_root() / f"_base_/profiles/{name}.py").model.method["type"])
        arguments = {key for benchmark in BENCHMARKS for key in published_settings(name, benchmark).get("method", {})}
        assert kind is None or arguments <= {one.name for one in fields(kind)}


def test_a_profile_is_found_by_file_or_class() -> None:
    for name in ("sc_clip", "SCCLIP", "scclip", "Sc-Clip"):
        assert find_profile(name)[0] == "sc_clip"
    assert find_profile("SFP")[0] == "sfp" and find_profile("sfp_v1")[1]["model"]["method"]["version"] == "v1"
    assert find_profile("SCLIP")[0] == "sclip"


def test_of_several_profiles_of_a_method_the_nearest_names_a_block() -> None:
    assert profile_name({"type": "SFP", "version": "v1"}) == "sfp_v1"
    assert profile_name({"type": "SFP"}) == "sfp"
    assert profile_name({"type": "SFP", "version": "v1", "salience": 3.0}) == "sfp_v1 (salience=3.0)"
    vfm = {"type": "DINO", "pretrained": "auto"}
    assert profile_name({"type": "LPOSS", "vfm": vfm}) == "lposs"
    assert profile_name({"type": "LPOSS", "vfm": vfm, "plus": True}) == "lposs (plus=True)"
    assert profile_name({"type": "ResCLIP", "rcs_weight": 0.6}, lambda _: {"rcs_weight": 0.6}) == "resclip"


def test_what_is_changed_by_hand_is_changed_in_a_copy() -> None:
    find_profile("paper")[1]["model"]["method"]["tau"] = 1.0
    published_settings("pearl", "voc21")["refiner"]["grid"] = 1
    assert find_profile("paper")[1]["model"]["method"]["tau"] == 5.0
    assert published_settings("pearl", "voc21")["refiner"]["grid"] == 80


def test_a_method_that_gives_scores_runs_without_the_configs_prior(caplog: pytest.LogCaptureFixture) -> None:
    cfg = build_config(Options(benchmark_config("voc21"), profile="lposs", protocol="shared"))
    assert cfg.model.prior is None and "LPOSS gives scores in place of cosines" in caplog.text
    assert build_config(Options(benchmark_config("voc21"), profile="paper")).model.prior is not None
