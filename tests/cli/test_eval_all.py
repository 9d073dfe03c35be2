"""What eval_all runs, skips and survives; the benchmarks themselves are stood in for by a writer of results."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rfclip.benchmarks.configs import BENCHMARKS, benchmark_config
from rfclip.cli import main
from tests.runs.test_summary import result

FOLDERS = {
    "VOCdevkit/VOC2012": ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation/val.txt"),
    "ade/ADEChallengeData2016": ("images/validation", "annotations/validation"),
}


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, list[list[str]]]]:
    """call(arguments, failing=()) -> exit status, commands; a command writes results unless it fails."""
    monkeypatch.chdir(tmp_path)

    def run(arguments: list[str], failing: tuple[str, ...] = ()) -> tuple[int, list[list[str]]]:
        commands = []

        def stand_in(line: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
            commands.append(line)
            name = next(name for name in BENCHMARKS if str(benchmark_config(name)) in line)
            if name in failing:
                return subprocess.CompletedProcess(line, 1)
            content = result(name)
            content["manifest"]["time"] = {"images": 3, "seconds": 1.5}
            folder = Path("work_dirs") / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "results.json").write_text(json.dumps({**content, "expected": None}))
            return subprocess.CompletedProcess(line, 0)

        monkeypatch.setattr("rfclip.cli.eval_all.subprocess.run", stand_in)
        return main(["eval-all", *arguments]), commands

    return run


def make_data(root: Path) -> None:
    for base, names in FOLDERS.items():
        for name in names:
            path = root / base / name
            (path.parent if path.suffix else path).mkdir(parents=True, exist_ok=True)
            if path.suffix:
                path.write_text("")


def test_without_data_nothing_runs_and_the_sample_is_named(
    call: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    status, commands = call([])
    assert status == 1 and commands == []
    said = capsys.readouterr()
    assert said.err == "error: no benchmark ran: no data; --sample needs none\n"
    assert "voc21: skipped: data/VOCdevkit/VOC2012 not found: see datasets/README.md" in said.out


def test_what_has_no_data_is_skipped_and_the_rest_tabulated(
    call: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    make_data(Path("data"))
    status, commands = call([])
    assert status == 0 and len(commands) == 3
    rows = json.loads(Path("work_dirs/summary.json").read_text())["rows"]
    assert [row["benchmark"] for row in rows] == ["voc21", "voc20", "ade20k"]
    printed = capsys.readouterr().out
    assert "voc20: ran: mIoU 50.00, 3 images in 1.5 s" in printed and "published*" in printed


def test_a_benchmark_that_was_asked_for_may_not_be_skipped(
    call: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    make_data(Path("data"))
    assert call(["--benchmarks", "voc21"])[0] == 0
    assert call(["--benchmarks", "voc21,cityscapes"])[0] == 1
    assert "error: skipped although asked for: cityscapes" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        call(["--benchmarks", "voc12"])
    assert stopped.value.code == 2


def test_it_goes_on_after_a_failure(call: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    make_data(Path("data"))
    status, commands = call([], failing=("voc21",))
    assert status == 1 and len(commands) == 3
    assert "error: failed: voc21" in capsys.readouterr().err
    summary = json.loads(Path("work_dirs/summary.json").read_text())
    assert [row["benchmark"] for row in summary["rows"]] == ["voc20", "ade20k"]
    assert summary["runs"]["voc21"].startswith("failed with exit status 1, log in work_dirs")


def test_results_of_an_earlier_run_do_not_stand_for_a_failure(call: Callable[..., Any]) -> None:
    make_data(Path("data"))
    call([])
    call([], failing=("voc21",))
    rows = json.loads(Path("work_dirs/summary.json").read_text())["rows"]
    assert "voc21" not in [row["benchmark"] for row in rows]


def test_options_are_passed_on(call: Callable[..., Any]) -> None:
    make_data(Path("d"))
    options = ["--data-root=d", "--checkpoint=w.pt", "--model=auto", "--profile=release", "--pamr"]
    status, commands = call([*options, "--benchmarks=ade20k"])
    assert status == 0
    config = str(benchmark_config("ade20k"))
    assert commands[0] == [
        sys.executable, "-m", "rfclip", "test", config,
        "--work-dir=work_dirs", "--model=auto", "--pretrained=w.pt", "--method=release", "--refiner=pamr",
        "--data-root=d",
    ]  # fmt: skip
    _, commands = call([*options[:1], "--benchmarks=ade20k", "--quick-gelu=no", "--origin=me"])
    assert commands[0][-2:] == ["--quick-gelu=no", "--origin=me"]
    _, commands = call([*options[:1], "--benchmarks=ade20k", "--import=json"])
    assert "--import=json" in commands[0]
    _, commands = call([*options[:1], "--benchmarks=ade20k", "--profile=sfp", "--protocol=shared"])
    assert commands[0][-3:] == ["--method=sfp", "--protocol=shared", "--data-root=d"]
    _, commands = call([*options[:1], "--benchmarks=ade20k", "--gpus=2"])
    assert commands[0][:6] == [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
    ]
    assert commands[0][6:9] == ["rfclip", "test", config] and "--launcher=pytorch" in commands[0]


def test_sample_is_made_where_it_is_missing_and_takes_the_tiny_clip(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr("rfclip.benchmarks.prepare.sample.make_sample", lambda folder, say: made.append(folder))
    call(["--sample"])
    make_data(Path("mine"))
    _, commands = call(["--sample", "--data-root=mine", "--benchmarks=voc20"])
    assert made == [Path("data/sample")]
    assert len(commands) == 1 and "--model=tiny" in commands[0] and "--data-root=mine" in commands[0]


def test_resume_skips_what_is_finished(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    make_data(Path("data"))
    call(["--benchmarks=voc20"])
    monkeypatch.setattr("rfclip.runs.run.is_finished", lambda options: "voc20" in str(options.config))
    status, commands = call(["--benchmarks=voc20,voc21", "--resume"])
    assert status == 0 and len(commands) == 1 and "--resume" in commands[0]
    summary = json.loads(Path("work_dirs/summary.json").read_text())
    assert [row["benchmark"] for row in summary["rows"]] == ["voc20", "voc21"]
    assert "not run again" in summary["runs"]["voc20"]
