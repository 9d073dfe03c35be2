"""Tables, published numbers beside measured ones, and the expectations a run is held against."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from rfclip.benchmarks.configs import BENCHMARKS, benchmark_config
from rfclip.benchmarks.options import Options, build_config
from rfclip.cli import main
from rfclip.runs import reference, summary
from rfclip.runs.manifest import config_facts
from rfclip.runs.reference import HEADING, published, published_miou, unlike_published, unlike_shipped, verdict
from rfclip.runs.summary import MixedProtocolsError, as_csv, as_markdown, as_text, read_results, table, write


def result(benchmark: str, miou: float = 50.0, real: bool = False, **changes: Any) -> dict[str, Any]:
    """Results of a benchmark: on the sample by the tiny CLIP, or as the published ones were measured."""
    images = published()["images"][benchmark][0] if real else 3
    tiny = {"model": "tiny", "pretrained": None, "sha256": "abc", "architecture": "x", "origin": "tiny"}
    openai = {"model": "ViT-B-16", "pretrained": "openai", "architecture": "ViT-B-16", "origin": "openai"}
    refiner = "pamr" if changes.get("pamr") else None
    manifest = {
        "profile": "paper",
        "layers": "all",
        "protocol": "shared",
        "pamr": False,
        "precision": "fp32",
        "vocabulary": {"name": benchmark},
        "templates": {"name": "imagenet80"},
        "weights": openai if real else tiny,
        "data": {"images": images},
        "config": config_facts(build_config(Options(benchmark_config(benchmark), refiner=refiner))),
        "code": {"sha256": "code"},
        "identity": "id",
        **changes,
    }
    metrics = {"mIoU": miou, "aAcc": 60.123, "mAcc": None}
    return {"metrics": metrics, "per_class": {}, "manifest": manifest, "alarms": []}


def test_published_numbers_are_complete_and_their_means_agree() -> None:
    for row in published()["main"]:
        values = [row["mIoU"][name] for name in BENCHMARKS]
        mean = sum(values) / 8
        told = f"{mean:.1f}" in row.get("note", "")  # where the paper's mean is not that of its numbers
        assert told or mean == pytest.approx(row["mIoU"]["mean"], abs=0.06), row["method"]
    assert published_miou("voc21", "paper", False) == 64.8
    assert published_miou("voc21", "release", True) == 67.2
    assert published_miou("voc21", "mean_kk", False) == 59.1
    assert published_miou("voc20", "mean_kk", False) is None
    assert published_miou("voc21", "sclip", False) is None


def test_published_numbers_of_a_method_belong_to_its_own_settings() -> None:
    assert published_miou("voc21", "sc_clip", False) is None
    assert published_miou("voc21", "sc_clip", False, "published") == 64.6
    assert published_miou("mean", "pearl", False, "published") == 43.2
    assert published_miou("ade20k", "resclip", True, "published") is None
    assert published_miou("voc21", "sfp_v1", False, "published") is None
    assert published_miou("voc21", "paper", False, "published") is None  # RF-CLIP's settings are the shared ones
    rows = [row for row in published()["main"] if "protocol" in row]
    assert sorted(name for row in rows for name in row["profiles"]) == [
        "cass", "gla", "lposs", "pearl", "proxy_clip", "resclip", "sc_clip", "sfp",
    ]  # fmt: skip


def test_only_the_published_protocol_can_be_compared() -> None:
    assert unlike_published("ade20k", result("ade20k", real=True)["manifest"]) == []
    assert unlike_published("context59", result("context59", data={"images": 5105}, real=True)["manifest"]) == []
    found = unlike_published("voc21", result("voc21", vocabulary={"name": "voc21_clean"})["manifest"])
    assert found == ["3 images instead of 1449", "weights tiny", "vocabulary voc21_clean"]


@pytest.mark.parametrize(
    ("entry", "value", "sentence"),
    [
        (
            "test_dataloader.dataset.pipeline.1.scale",
            (2048, 448),
            r"dataset.pipeline.1.scale [2048, 448] instead of [2048, 336]",
        ),
        ("model.templates", ["a {}"], "model.templates ['a {}'] instead of imagenet80"),
        ("model.prob_thd", 0.5, "model.prob_thd 0.5 instead of 0.1"),
        ("model.test_cfg.mode", "slide", "model.test_cfg.mode slide instead of whole"),
        ("model.logit_scale", 100.0, "model.logit_scale 100.0 instead of 40.0"),
        ("model.prior.scope", "window", "model.prior.scope window instead of image"),
        ("model.patch_fit", "pad", "model.patch_fit pad instead of crop"),
        ("model.refiner.num_iter", 1, "model.refiner.num_iter 1 instead of 10"),
        ("test_evaluator.ignore_index", 0, "evaluator.ignore_index 0 instead of 255"),
        ("test_cfg.fp16", True, "loop.fp16 True instead of nothing"),
        ("model.prior", None, "model.prior None instead of nothing"),
    ],
)
def test_a_setting_that_is_not_the_published_one_is_named(entry: str, value: Any, sentence: str) -> None:
    pamr = "refiner" in entry
    options = Options(benchmark_config("voc21"), refiner="pamr" if pamr else None, cfg_options={entry: value})
    facts = config_facts(build_config(options))
    changed = result("voc21", 64.8, real=True, profile="release", pamr=pamr, config=json.loads(json.dumps(facts)))
    assert unlike_published("voc21", changed["manifest"]) == [sentence]
    assert verdict("voc21", changed) is None
    with pytest.raises(MixedProtocolsError, match="2 protocols"):
        table({"voc21": changed, "voc20": result("voc20", real=True, profile="release", pamr=pamr)})


def test_settings_of_ones_own_benchmark_deviate_from_nothing() -> None:
    assert unlike_shipped("mine", result("voc21", config={"model": {"prob_thd": 0.7}})["manifest"]) == []
    assert unlike_shipped("voc21", result("voc21")["manifest"]) == []


def test_other_weights_code_or_activation_are_another_protocol() -> None:
    long_name = {"model": "hf-hub:" + "x" * 60, "pretrained": None}
    pairs = [
        ({"weights": {**long_name, "sha256": "a"}}, {"weights": {**long_name, "sha256": "b"}}),
        ({"code": {"sha256": "a"}}, {"code": {"sha256": "b"}}),
        ({"weights": {**long_name, "activation": "GELU"}}, {"weights": {**long_name, "activation": "QuickGELU"}}),
    ]
    for first, second in pairs:
        with pytest.raises(MixedProtocolsError):
            table({"voc21": result("voc21", **first), "voc20": result("voc20", **second)})


def test_one_change_to_all_benchmarks_is_one_protocol() -> None:
    for entries in ({"model.prior": None}, {"model.logit_scale": 50.0}):
        results = {}
        for name in BENCHMARKS:
            facts = config_facts(build_config(Options(benchmark_config(name), cfg_options=entries)))
            results[name] = result(name, config=facts)
        assert table(results)[-1]["benchmark"] == "mean"


def test_windows_as_large_as_the_weights_want_are_one_protocol() -> None:
    results = {}
    for name in ("voc21", "voc20"):  # whole, and in windows
        entries = {"model.test_cfg.crop_size": 336} if name == "voc20" else {}
        facts = config_facts(build_config(Options(benchmark_config(name), cfg_options=entries)))
        results[name] = result(name, config=facts, real=True)
    rows = table(results)
    assert [row["note"] for row in rows] == ["", "not comparable: model.test_cfg.crop_size 336 instead of 224"]


def test_results_of_another_version_are_refused(tmp_path: Path) -> None:
    (tmp_path / "voc21").mkdir()
    for key in ("weights", "data", "vocabulary", "templates", "profile", "protocol", "pamr", "layers", "precision"):
        content = result("voc21")
        del content["manifest"][key]
        (tmp_path / "voc21/results.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match="of another version"):
            read_results(tmp_path)
    for change in ({"metrics": {"mIoU": "3"}}, {"manifest": {**result("voc21")["manifest"], "config": {"model": {}}}}):
        (tmp_path / "voc21/results.json").write_text(json.dumps({**result("voc21"), **change}))
        with pytest.raises(ValueError, match="of another version"):
            read_results(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"manifest": {}, "metrics": {}}', '{"manifest": 1}'])
def test_damaged_results_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "voc21").mkdir()
    (tmp_path / "voc21/results.json").write_text(content)
    with pytest.raises(ValueError, match=r"voc21/results\.json is damaged or of another version: run"):
        read_results(tmp_path)


def test_table_says_what_cannot_be_compared_and_whose_numbers_stand_there() -> None:
    rows = table({name: result(name, 10.0 + index) for index, name in enumerate(BENCHMARKS)})
    assert [row["benchmark"] for row in rows] == [*BENCHMARKS, "mean"]
    assert rows[0]["published"] == 64.8 and rows[-1]["published"] == 44.2
    assert all("not comparable" in row["note"] for row in rows)
    assert rows[-1]["mIoU"] == 13.5 and rows[0]["mAcc"] is None
    for text in (as_markdown(rows), as_csv(rows), as_text(rows)):
        assert HEADING in text
    assert next(csv.DictReader(io.StringIO(as_csv(rows))))["mIoU"] == "10.0"


def test_real_numbers_have_no_note() -> None:
    rows = table({"voc21": result("voc21", real=True)})
    assert len(rows) == 1 and rows[0]["note"] == ""


def test_two_protocols_do_not_share_a_column_unsaid() -> None:
    results = {"voc21": result("voc21"), "voc20": result("voc20", pamr=True)}
    with pytest.raises(MixedProtocolsError, match="measured with 2 protocols"):
        table(results)
    rows = table(results, mixed=True)
    assert [row["note"].split(";")[0] for row in rows] == ["protocol A", "protocol B"]
    clean = result("voc20", vocabulary={"name": "voc20_clean"})
    with pytest.raises(MixedProtocolsError):
        table({"voc21": result("voc21"), "voc20": clean})


def test_files_of_a_work_dir(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no <benchmark>/results.json in"):
        read_results(tmp_path)
    for name in ("voc20", "mine", "voc21"):
        (tmp_path / name).mkdir()
        content = result("voc20" if name == "mine" else name)
        (tmp_path / name / "results.json").write_text(json.dumps(content))
    results = read_results(tmp_path)
    assert list(results) == ["voc21", "voc20", "mine"]
    write(tmp_path, table({"voc21": results["voc21"]}), {"voc21": "ran", "ade20k": "skipped: no data"})
    content = json.loads((tmp_path / "summary.json").read_text())
    assert content["rows"][0]["mIoU"] == 50.0 and content["runs"]["ade20k"] == "skipped: no data"
    assert "- ade20k: skipped: no data" in (tmp_path / "summary.md").read_text()
    assert (tmp_path / "summary.csv").read_text().count("\n") == 2


def test_summarize_refuses_and_marks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, pamr in (("voc21", False), ("voc20", True)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(result(name, pamr=pamr)))
    assert main(["summarize", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: these results were measured with 2 protocols")
    assert main(["summarize", str(tmp_path), "--mixed"]) == 0
    printed = capsys.readouterr().out
    assert "protocol B" in printed and "published*" in printed


@pytest.mark.parametrize(("miou", "passed"), [(65.2, True), (64.0, False)])
def test_a_run_of_the_published_protocol_passes_or_fails(miou: float, passed: bool) -> None:
    found = verdict("voc21", result("voc21", miou, real=True, profile="release"))
    assert found is not None and found["passed"] is passed
    assert found["sentence"].startswith("pass" if passed else "FAIL")
    assert "expected 64.8 within 0.5 (published)" in found["sentence"]


def test_nothing_is_expected_of_other_settings() -> None:
    assert verdict("voc21", result("voc21", 64.8, real=True)) is None
    assert verdict("voc21", result("voc21", 64.8, real=True, profile="release", precision="bf16")) is None


def test_measured_expectations_belong_to_weights_and_images(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = reference.entry({"voc21": result("voc21", 35.0)}, tolerance=1.0)
    monkeypatch.setattr(reference, "_expected", lambda: [entry])
    found = verdict("voc21", result("voc21", 35.9))
    assert found is not None and found["passed"] and "measured by this project" in found["sentence"]
    assert verdict("voc21", result("voc21", 35.9, data={"images": 4})) is None
    assert verdict("voc21", result("voc21", 35.9, precision="bf16")) is None
    assert verdict("voc21", result("voc21", 35.9, vocabulary={"name": "voc21_clean"})) is None
    other_activation = {**result("voc21")["manifest"]["weights"], "activation": "GELU"}
    assert verdict("voc21", result("voc21", 35.9, weights=other_activation)) is None
    other = config_facts(build_config(Options(benchmark_config("voc21"), cfg_options={"model.prob_thd": 0.5})))
    assert verdict("voc21", result("voc21", 35.9, config=other)) is None
    assert verdict("voc20", result("voc20", 35.9)) is None
    assert verdict("voc21", result("voc21", 35.9, vision={"sha256": "other"})) is None
    assert summary.COLUMNS["published"] == HEADING


def test_measured_expectations_belong_to_a_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = build_config(Options(benchmark_config("voc21"), profile="sfp", protocol="published"))
    facts = {"profile": "sfp", "protocol": "published", "config": config_facts(cfg)}
    facts |= {"vocabulary": {"name": "voc21_sfp"}, "vision": {"pretrained": "tiny8", "sha256": "v"}}
    run = result("voc21", 35.0, **facts)
    entry = reference.entry({"voc21": run}, tolerance=1.0)
    assert (entry["protocol"], entry["vision"]) == ("published", "v")
    monkeypatch.setattr(reference, "_expected", lambda: [entry])
    found = verdict("voc21", run)
    assert found is not None and found["passed"]
    assert unlike_shipped("voc21", run["manifest"]) == []
    assert verdict("voc21", result("voc21", 35.0, **facts | {"protocol": "shared"})) is None
    assert verdict("voc21", result("voc21", 35.0, **facts | {"vision": {"sha256": "w"}})) is None
    assert verdict("voc21", result("voc21", 35.0, **facts | {"vocabulary": {"name": "voc21"}})) is None
    assert table({"voc21": run})[0]["note"].startswith("not comparable: 3 images instead of 1449, weights tiny")


def test_the_published_weights_are_those_of_the_method() -> None:
    cfg = build_config(Options(benchmark_config("voc20"), profile="lposs"))
    facts = {"profile": "lposs", "protocol": "published", "config": config_facts(cfg)}
    weights = {"model": "ViT-B-16", "pretrained": "laion2b_s34b_b88k", "architecture": "ViT-B-16", "activation": "GELU"}
    facts |= {"vocabulary": {"name": "voc20_lposs"}, "weights": {**weights, "origin": "laion2b_s34b_b88k"}}
    assert unlike_published("voc20", result("voc20", real=True, **facts)["manifest"]) == []
    openai = {**weights, "origin": "openai", "activation": "QuickGELU"}
    run = result("voc20", real=True, **facts | {"weights": openai})
    assert unlike_published("voc20", run["manifest"]) == ["weights ViT-B-16"]
