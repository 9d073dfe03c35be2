"""The cost measurement on toy sizes: what it counts, what it refuses, that it runs. No time is asserted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from rfclip import methods
from rfclip.cli import main
from rfclip.cost import flops, memory, precision, run, speed, timing
from rfclip.cost.bench import QUICK, QUICK_MODEL, Bench, plain
from rfclip.cost.report import Report
from rfclip.cost.weights import (
    NoDistractorsError,
    Tower,
    build_tower,
    distractor_shares,
    empty_tower,
    smooth_images,
)
from rfclip.normalized_cut import fiedler_vector

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench.build(QUICK)


def row(name: str) -> speed.Row:
    return next(row for row in speed.ROWS if row.name == name)


@pytest.mark.parametrize("profile", ["paper", "release"])
@pytest.mark.parametrize("name", [row.name for row in speed.ROWS])
def test_every_row_has_distractors_at_every_boundary(bench: Bench, profile: str, name: str) -> None:
    for batch in row(name).images(bench):
        shares = distractor_shares(bench.method(profile), bench.tower, batch)
        assert len(shares) == {"paper": 3, "release": 4}[profile]
        assert all(0 < share < 0.2 for share in shares)


def test_weights_without_distractors_are_refused() -> None:
    torch.manual_seed(0)
    tower = Tower(empty_tower(QUICK_MODEL), (3, 7))
    with pytest.raises(NoDistractorsError, match=r"no distractor at layer boundaries \[0, 1, 2\]"):
        distractor_shares(methods.RefocusCLIP(distraction_dims=tower.dims), tower, smooth_images(1, 64, 64))
    with pytest.raises(NoDistractorsError, match="at all"):
        distractor_shares(methods.MeanKK(), tower, smooth_images(1, 64, 64))


def test_a_row_is_not_timed_on_weights_without_distractors() -> None:
    torch.manual_seed(0)
    unplanted = Bench(Tower(empty_tower(QUICK_MODEL), (3, 7)), QUICK, torch.device("cpu"))
    with pytest.raises(NoDistractorsError):
        speed.measure(row("dense-336x448"), unplanted, repeats=1)


def test_the_same_seed_plants_the_same_tower(bench: Bench) -> None:
    again = build_tower(QUICK_MODEL)
    assert again.dims == bench.tower.dims
    for name, value in again.vit.state_dict().items():
        torch.testing.assert_close(value, bench.tower.vit.state_dict()[name], msg=name)
    assert not torch.equal(build_tower(QUICK_MODEL, seed=1).vit.conv1.weight, again.vit.conv1.weight)


def test_plain_is_the_tower_itself(bench: Bench) -> None:
    images = smooth_images(2, 64, 64)
    torch.testing.assert_close(plain(bench.tower.vit, images)[:, 0], bench.tower.vit(images), rtol=1e-4, atol=1e-5)


def test_flops_of_plain_and_baselines_by_hand(bench: Bench) -> None:
    images, n, d, e, layers = smooth_images(2, 64, 80), 80, 128, 48, 3
    t = n + 1
    linear, attention = 12 * t * d * d, 2 * t * t * d  # multiply-adds of a block
    embedding, projection = 3 * 64 * n * d, d * e
    whole = embedding + layers * (linear + attention) + t * projection
    assert flops.count_flops(lambda: plain(bench.tower.vit, images)) == 2 * 2 * whole

    def counted(name: str) -> int:
        method = getattr(methods, name)()
        return flops.count_flops(lambda: method(bench.tower.vit, images))

    assert counted("VanillaCLIP") == 2 * 2 * whole
    last = (3 * t + n) * d * d + 2 * t * t * d + n * projection  # q, k, v; out_proj of the patches; attention
    image = 2 * t * d + 9 * d * d + projection  # the class token through the ordinary last block
    earlier = embedding + (layers - 1) * (linear + attention)
    assert counted("ClearCLIP") == 2 * 2 * (earlier + last + image)


def test_fused_attention_and_products_in_place_are_counted() -> None:
    q, k, v = (torch.randn(2, 3, length, 8) for length in (5, 7, 7))
    assert flops.count_flops(lambda: F.scaled_dot_product_attention(q, k, v)) == 2 * 2 * 3 * (5 * 7 * 8 + 5 * 7 * 8)
    a, b, c = torch.randn(2, 5, 7), torch.randn(2, 7, 3), torch.randn(2, 5, 3)
    assert flops.count_flops(lambda: torch.bmm(a, b)) == 2 * 2 * 5 * 7 * 3
    assert flops.count_flops(lambda: torch.bmm(a, b, out=c)) == 2 * 2 * 5 * 7 * 3
    assert torch.equal(c, a @ b)
    assert flops.count_flops(lambda: c.baddbmm_(a, b)) == 2 * 2 * 5 * 7 * 3
    assert flops.count_flops(lambda: a[0] @ b[0, :, 0]) == 2 * 5 * 7


def test_counting_changes_nothing(bench: Bench) -> None:
    images, found = smooth_images(1, 64, 64), []
    method = bench.method("paper")
    flops.count_flops(lambda: found.append(method(bench.tower.vit, images).patches))
    assert torch.equal(found[0], method(bench.tower.vit, images).patches)


def test_parameters_of_the_published_backbone() -> None:
    tower, both = flops.count_parameters("ViT-B-16")
    assert (tower, both) == (86_192_640, 149_620_737)


def test_exact_cuts_are_counted() -> None:
    points = torch.rand(2, 80, 2, generator=torch.Generator().manual_seed(0)).double()
    affinity = torch.exp(-torch.cdist(points, points))
    assert speed.exact_cuts(lambda: fiedler_vector(affinity, "eigh")) == 2
    assert speed.exact_cuts(lambda: torch.linalg.eigh(affinity[0, :8, :8])) == 0


def test_tasks_take_turns() -> None:
    order: list[str] = []
    tasks = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = timing.take_turns(tasks, 2)
    assert order == list("abc" + "abc" + "cba")
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2, "c": 2}


def test_ratios_are_taken_round_by_round() -> None:
    assert timing.ratios([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == timing.Spread(2.0, 1.0, 3.0)
    assert timing.Spread(2.0, 1.0, 3.0).text() == "2.00 (1.00 to 3.00)"


@pytest.mark.parametrize("name", ["voc21", "voc20", "cityscapes"])
def test_the_pipeline_rows_reach_labels(bench: Bench, name: str) -> None:
    case = {"voc21": speed.VOC21, "voc20": speed.VOC20, "cityscapes": speed.CITYSCAPES}[name]
    labels = bench.to_labels(case, "release")()
    assert tuple(labels.shape) == QUICK.size(case.labelled)
    assert labels.unique().numel() > 1


def test_windows_are_those_of_the_issue(bench: Bench) -> None:
    assert [len(batch) for batch in bench.window_batches(speed.VOC21)] == [1]
    assert [len(batch) for batch in bench.window_batches(speed.VOC20)] == [6]
    assert [len(batch) for batch in bench.window_batches(speed.CITYSCAPES)] == [8, 8, 8, 8, 4]
    assert bench.queries("voc21", bench.settings("voc21")).text.shape[0] == 56


@ON_LINUX
def test_peak_memory_of_a_task_of_known_size() -> None:
    def task() -> None:
        torch.ones(40_000_000).sum()  # 160 MB

    peak, before = memory.peak_of(task)
    assert 150e6 < peak < 250e6
    assert before > 50e6


@ON_LINUX
def test_memory_row_in_a_fresh_process(bench: Bench) -> None:
    result = memory.measure(memory.ROWS[0], bench, "paper", pamr=False)
    assert 0 < result.peak < 0.6 < 0.6 + result.loaded
    assert (result.row, result.profile, result.pamr) == ("memory-voc21", "paper", False)


def test_memory_elsewhere_is_said_to_be_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "missing" / "clear_refs")
    with pytest.raises(memory.NotMeasurableError, match="needs Linux"):
        memory.peak_of(lambda: None)


def test_agreement_is_the_share_of_equal_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {
        "fp32": [torch.tensor([[[0, 1], [2, 3]]]), torch.tensor([[[5, 5, 5, 5]]])],
        "bf16": [torch.tensor([[[0, 1], [2, 2]]]), torch.tensor([[[5, 5, 5, 5]]])],
    }
    monkeypatch.setattr(precision, "_labels", lambda benchmark, profile, name, *_: labels[name])
    found = precision.measure_agreement("voc21", "paper", "bf16", Path(), {}, 2)
    assert (found.agreement, found.images) == (7 / 8, 2)


def test_row_names() -> None:
    assert run.row_names("cost, voc21") == ["cost-ViT-B-16", "cost-ViT-L-14", "cost-ViT-H-14", "voc21"]
    assert set(run.row_names(None)) == set(run.ROWS)
    with pytest.raises(ValueError, match="no row 'fast'"):
        run.row_names("speed,fast")


def test_the_tool_writes_tables_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(flops, "SIZES", ((64, 64),))
    threads = torch.get_num_threads()
    rows = "dense-windows,precision-speed,cost-ViT-B-16"
    files = ["--json=b.json", "--markdown=b.md"]
    assert main(["cost", "--quick", "--rows", rows, "--repeats=2", f"--threads={threads}", *files]) == 0
    text = (tmp_path / "b.md").read_text()
    assert text.strip() == capsys.readouterr().out.strip()
    for phrase in ("QUICK RUN", "dense encoding, 6 windows of 224", "bf16", "RF-CLIP [published]", "not measured here"):
        assert phrase in text
    content = json.loads((tmp_path / "b.json").read_text())
    assert [entry["profile"] for entry in content["speed"]] == ["release", "paper"]
    assert len(content["speed"][0]["samples"]["plain"]) == 2
    assert len(content["cost"]) == 1 + len(flops.counted())
    assert content["facts"]["versions"]["torch"] in torch.__version__
    assert content["facts"]["machine"]["threads"] == threads


def test_any_methods_beside_plain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    threads = f"--threads={torch.get_num_threads()}"
    line = [
        "cost",
        "--quick",
        "--methods=mean_kk,paper,NACLIP,ResCLIP",
        "--size=224x336",
        "--repeats=2",
        threads,
        "--json=m.json",
    ]
    assert main(line) == 0
    shown = capsys.readouterr().out
    assert all(f"| {name} | 64x96 |" in shown for name in ("plain", "mean_kk", "paper", "NACLIP", "ResCLIP"))
    rows = json.loads((tmp_path / "m.json").read_text())["methods"]
    assert [entry["method"] for entry in rows] == ["plain", "mean_kk", "paper", "NACLIP", "ResCLIP"]
    assert rows[0]["ratio"] == {"median": 1, "least": 1, "greatest": 1}
    assert rows[2]["flops"] > rows[1]["flops"] > 0
    assert len(rows[1]["samples"]) == 2
    assert not rows[0]["parts"] and "window_labels" in rows[4]["parts"]
    assert "ProxyCLIP (+DINO) [published] | VOC21 | 34.1 | 235.4 | 6.1" in shown
    for wrong, says in (
        (["--methods=fastest"], "no profile 'fastest'"),
        (["--methods=paper", "--rows=speed"], "leave --rows"),
    ):
        assert main(["cost", "--quick", *wrong]) == 1
        assert says in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["cost", "--methods=paper", "--size=0x8"])
    assert "'0x8' is no size" in capsys.readouterr().err


def test_the_tool_says_which_rows_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "--rows=fast"]) == 1
    assert "error: no row 'fast'; there are speed" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["cost", "--repeats=0"])
    assert "at least 1" in capsys.readouterr().err


def test_a_limit_that_is_missed_is_said() -> None:
    spread = timing.Spread(1.4, 1.3, 1.5)
    result = speed.SpeedResult("r", "what", "paper", "the image", spread, spread, spread, 1.35, [0.05], 0)
    report = Report("ViT-B-16", quick=False, repeats=5, speed=[result])
    assert "| **1.40 (1.30 to 1.50)** | 1.35 | NO |" in report.as_markdown()
    report.memory = [memory.MemoryResult("m", "VOC21", "paper", True, 0.5, 1.0, 0.6)]
    assert "| **0.50** | 0.6 | yes |" in report.as_markdown()
