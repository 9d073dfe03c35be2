"""rfclip compare: words, worker processes, what is kept, what a failing row does; with a segmentor without CLIP."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from rfclip.analysis import charts
from rfclip.benchmarks.configs import benchmark_config
from rfclip.benchmarks.options import Options
from rfclip.benchmarks.prepare.sample import DATA_SETS, write_data_set
from rfclip.cli import main, parse
from rfclip.cli.compare import measure_costs, plan
from rfclip.cli.pool import Progress, Worker, ask_all, duration, environments
from rfclip.cli.worker import packed, unpacked
from rfclip.cost import kept
from rfclip.explain import style
from rfclip.runs.compare.rows import Row, chosen_reference, make_rows, row_options
from rfclip.runs.compare.table import Measured, Table
from rfclip.runs.run import run as run_benchmark

ROOT = Path(__file__).parents[2]
MINE = """
import os
from mmseg.registry import MODELS
from tests.support.fake_segmentor import FakeSegmentor

@MODELS.register_module(force=True)
class Picky(FakeSegmentor):
    def __init__(self, method, **settings):
        super().__init__(**settings)
        self.method = method
    def predict(self, inputs, data_samples):
        if self.method["type"] == "SCLIP":
            raise RuntimeError("it does not like scarves")
        if self.method["type"] == "NACLIP":
            os._exit(7)
        return super().predict(inputs, data_samples)
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Three pictures, and a config whose segmentor needs no CLIP; the working folder is theirs."""
    voc = tmp_path / "data/VOCdevkit/VOC2012"
    folders = [voc / name for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")]
    for folder in folders:
        folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(rng.integers(0, 256, (20, 31, 3), np.uint8)).save(folders[0] / f"{index}.jpg")
        Image.fromarray(rng.integers(0, 21, (20, 31), np.uint8)).save(folders[1] / f"{index}.png")
    (folders[2] / "val.txt").write_text("0\n1\n2\n")
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "fake.py").write_text(f"""
_base_ = ["{ROOT}/configs/_base_/default_runtime.py", "{ROOT}/configs/_base_/datasets/voc20.py"]
custom_imports = dict(imports=["rfclip", "mine"], allow_failed_imports=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
clip = dict(model="x", pretrained=None)
model = dict(type="Picky", clip=clip, method=dict(type="MeanKK"), vocabulary="voc20")
""")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{tmp_path}")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "fake.py"


def compare(*arguments: str) -> int:
    return main(["compare", "--benchmarks=fake.py", "--work-dir=out", "--no-cost", *arguments])


def table() -> list[dict[str, Any]]:
    return json.loads(Path("out/table.json").read_text())["rows"]


def test_a_table_is_made_of_the_runs_of_rfclip_test_and_goes_on(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--methods=MeanKK,mask_clip", "--names=published,plain", "--images=2", "--resume")
    assert compare(*asked) == 0
    said = capsys.readouterr().out
    assert "[4/4] mask_clip+names-plain, voc20: mIoU" in said and "0 rows, 0 cells left" in said
    rows = table()
    assert [row["row"] for row in rows] == ["mean_kk", "mask_clip", "mean_kk+names-plain", "mask_clip+names-plain"]
    assert [row["rank"] for row in rows] == [1.5] * 4 and rows[1]["difference"]["miou"] == 0  # it minds no method
    assert rows[0]["cells"]["voc20"]["images"] == 2 and rows[0]["cost"] is None
    for ending in ("csv", "md", "png"):
        assert Path(f"out/table.{ending}").stat().st_size > 0

    alone = run_benchmark(
        Options(
            Path(config),
            profile="mask_clip",
            protocol="shared",
            cfg_options={"test_dataloader.dataset.indices": 2},
            work_dir=Path("alone"),
        )
    )
    there = json.loads(Path("out/mask_clip/voc20/results.json").read_text())
    for results in (alone, there):
        for fact in ("time", "machine"):
            results["manifest"].pop(fact)
    assert there == json.loads(json.dumps(alone))

    Path("out/mean_kk/voc20/results.json").unlink()  # as if it had been killed: its finished images are there
    before = {path: path.stat().st_mtime_ns for path in Path("out").glob("*/voc20/results.json")}
    assert compare(*asked) == 0
    said = capsys.readouterr().out
    assert said.count(", kept;") == 3 and "mean_kk, voc20: mIoU" in said
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert table() == rows


def test_a_row_that_fails_or_dies_leaves_the_others_alone(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("--methods=mean_kk,sclip,naclip,mask_clip") == 1
    said = capsys.readouterr()
    assert "error: sclip on voc20: RuntimeError: it does not like scarves" in said.err
    assert "error: naclip on voc20: its process ended with exit status 7" in said.err
    rows = {row["row"]: row for row in table()}
    assert rows["mean_kk"]["mean"] is not None and rows["mask_clip"]["rank"] == 1.5
    assert rows["sclip"]["mean"] is None and "scarves" in rows["sclip"]["cells"]["voc20"]["why"]
    assert "scarves" in Path("out/workers.log").read_text()  # with its traceback


def test_only_what_ran_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(kept, "measure_kept", lambda names, *_: asked.extend(names) or ())
    ran = Measured({"metrics": {"mIoU": 1.0}, "manifest": {}}, None)  # type: ignore[arg-type,typeddict-item]  # what is read of it
    rows = [Row("paper"), Row("sclip"), Row("naclip"), Row("sclip", prior="none")]
    cells = {(rows[0], "a"): ran, (rows[1], "a"): "it broke", (rows[2], "a"): "no data", (rows[3], "a"): ran}
    line = argparse.Namespace(model="tiny", work_dir=tmp_path)
    assert measure_costs(Table(rows, ["a"], "paper", cells=cells), line, "cpu") == {}
    assert asked == ["paper", "sclip"]


def test_a_real_table_of_two_methods_and_two_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny CLIP on one drawn benchmark: differences, cost, and a plot that shows both."""
    voc = next(one for one in DATA_SETS if one.root.endswith("VOC2012"))
    write_data_set(tmp_path / "data", voc, np.random.default_rng(0))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    figures = []
    monkeypatch.setattr(style, "save", lambda figure, path: figures.append(figure) or path)
    line = ["compare", "--methods=mean_kk,sclip", "--prior=published,none", "--benchmarks=voc20", "--model=tiny"]
    assert main([*line, "--work-dir=out", "--resamples=50"]) == 0
    rows = table()
    assert [row["row"] for row in rows] == ["mean_kk", "sclip", "mean_kk+prior-none", "sclip+prior-none"]
    for first, second in (rows[:2], rows[2:]):
        difference = second["cells"]["voc20"]["mIoU"] - first["cells"]["voc20"]["mIoU"]
        assert second["difference"]["miou"] == pytest.approx(difference)
        assert {first["rank"], second["rank"]} == {1, 2}
    assert rows[3]["worth"]["miou"] == pytest.approx(rows[3]["mean"] - rows[1]["mean"])
    manifest = json.loads(Path("out/sclip+prior-none/voc20/results.json").read_text())["manifest"]
    assert manifest["config"]["model"]["prior"] is None
    costs = json.loads(Path("out/costs.json").read_text())
    assert rows[1]["cost"] == costs["sclip"] and 0.5 < costs["sclip"]["ratio"] < 20
    (axis,) = figures[0].axes
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == [
        f"prior {prior}, refiner none, names published" for prior in ("published", "none")
    ]
    assert sorted(text.get_text() for text in axis.texts) == ["mean_kk", "mean_kk", "sclip", "sclip"]
    shown = sorted(tuple(map(float, text.xy)) for text in axis.texts)
    np.testing.assert_allclose(shown, sorted((row["cost"]["ratio"], row["mean"]) for row in rows))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--methods=mean_kk,nonsense"], "no profile 'nonsense'"),
        (["--methods=mean_kk,MeanKK"], "mean_kk stands twice"),
        (["--methods=mean_kk", "--data-root=nowhere"], "nowhere"),
        (["--methods=mean_kk", "--benchmarks=voc22"], "no benchmark 'voc22'"),
        (["--methods=mean_kk", "--benchmarks=fake.py,fake.py"], "voc20 stands twice"),
        (["--methods=mean_kk", "--prior=some"], "--prior takes published, none, by commas; got 'some'"),
        (["--methods=mean_kk", "--refiner=pamr,pamr"], "pamr stands twice in --refiner"),
        (["--methods=mean_kk", "--names=dirty"], "--names takes published, clean, plain"),
        (["--methods=mean_kk", "--reference=paper"], "the reference paper is none of --methods mean_kk"),
        (["--methods="], "--methods names none"),
    ],
)
def test_mistakes_are_found_before_anything_runs(
    config: str, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(*arguments) == 1
    assert sentence in capsys.readouterr().err and not Path("out/mean_kk").exists()


def test_benchmarks_without_data_are_skipped_among_all_and_say_why_when_named(config: str) -> None:
    line = ["compare", "--methods=mean_kk", "--work-dir=out"]
    _, bases, skipped = plan(parse([*line, "--benchmarks=all"])[1])
    assert list(bases) == ["voc21", "voc20"] and len(skipped) == 6 and skipped[0].startswith("context60: ")
    made, bases, _ = plan(parse([*line, "--benchmarks=voc21,ade20k"])[1])
    assert made.benchmarks == ["voc21", "ade20k"] and list(bases) == ["voc21"]
    assert str(made.cells[Row("mean_kk"), "ade20k"]).startswith("no data: ")


def test_a_work_dir_that_cannot_be_written_is_named(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").write_text("a file")
    assert compare("--methods=mean_kk") == 1
    said = capsys.readouterr().err
    assert said.count("error: ") == 1 and "to out: a file stands there; give another --out" in said


def test_rows_and_reference() -> None:
    rows = make_rows(["paper", "sfp"], ["published", "none"], ["none", "pamr"], ["published", "clean"])
    assert len(rows) == 16 and len({row.name for row in rows}) == 16
    assert rows[0].name == "paper" and rows[-1].name == "sfp+prior-none+refiner-pamr+names-clean"
    assert [row.method for row in rows[:2]] == ["paper", "sfp"]
    assert chosen_reference(None, ["mean_kk", "paper"], every=True) == "paper"
    assert chosen_reference(None, ["mean_kk", "paper"], every=False) == "mean_kk"
    assert chosen_reference("RefocusCLIP", ["mean_kk", "paper"], every=False) == "paper"
    line = ["compare", "--methods=sfp", "--benchmarks=voc21"]
    assert parse([*line, "--pamr"])[1].refiner == ["pamr"]
    assert [parse([*line, f"--protocol={one}"])[1].refiner for one in ("shared", "published")] == [
        ["none"],
        ["published"],
    ]


def test_nothing_is_set_that_the_config_has_already() -> None:
    base = Options(benchmark_config("voc20"), model="tiny", protocol="shared")
    assert row_options(Row("paper", "none"), base).cfg_options == {"model.prior": None}
    assert row_options(Row("lposs", "none"), base).cfg_options == {}  # it has none anyhow
    assert row_options(Row("paper"), base).cfg_options == {}
    with_pamr = row_options(Row("paper", refiner="pamr", names="clean"), base)
    assert (with_pamr.refiner, with_pamr.cfg_options) == ("pamr", {"model.vocabulary": "voc20_clean"})
    assert row_options(Row("paper", names="plain"), base).cfg_options["model.vocabulary"][-1] == ["tvmonitor"]


def test_a_cell_travels_to_its_worker_whole() -> None:
    base = Options(Path("a.py"), model="tiny", cfg_options={"x.y": 2}, resume=True, work_dir=Path("w"))
    assert unpacked(packed(Row("paper", "none"), base)) == (Row("paper", "none"), base)


def test_workers_share_cores_and_have_a_gpu_each() -> None:
    shared = environments(3, gpus=False, base={"OMP_NUM_THREADS": "7"})
    assert [one["OMP_NUM_THREADS"] for one in shared] == ["2"] * 3 and "CUDA_VISIBLE_DEVICES" not in shared[0]
    (alone,) = environments(1, gpus=False, base={"MALLOC_MMAP_MAX_": "7"})
    assert "OMP_NUM_THREADS" not in alone and alone["MALLOC_MMAP_MAX_"] == "7"
    assert [one["CUDA_VISIBLE_DEVICES"] for one in environments(2, gpus=True, base={})] == ["0", "1"]
    given = environments(2, gpus=True, base={"CUDA_VISIBLE_DEVICES": "4,6"})
    assert [one["CUDA_VISIBLE_DEVICES"] for one in given] == ["4", "6"]


def test_answers_come_from_all_workers_and_a_missing_program_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "ask", lambda self, line: {"seconds": 1.0, "kept": False, "line": line})
    workers = [Worker([], {}, tmp_path / "log") for _ in range(2)]
    found = dict(ask_all(["a", "b", "c"], workers))
    assert {number: answer["line"] for number, answer in found.items()} == {0: "a", 1: "b", 2: "c"}
    monkeypatch.undo()
    monkeypatch.setattr("sys.executable", str(tmp_path / "nothing"))
    (answer,) = (answer for _, answer in ask_all(["a"], workers[:1]))
    assert "could not be started" in answer["error"]


def test_progress_tells_what_is_left_and_how_long_it_takes() -> None:
    progress = Progress({"a": ["x", "y"], "b": ["x", "y"]}, workers=2)
    assert progress.text() == "2 rows, 4 cells left"
    progress.done("a", "x", {"seconds": 100.0, "kept": False})
    progress.done("a", "y", {"seconds": 300.0, "kept": False})
    assert progress.text() == "1 row, 2 cells left, about 3 min"  # (100 + 300) / 2 workers
    progress.done("b", "x", {"seconds": 1.0, "kept": True})
    progress.done("b", "y", {"error": "it broke"})
    assert progress.text() == "0 rows, 0 cells left"
    assert [duration(one) for one in (3.4, 89, 600, 36000)] == ["3 s", "89 s", "10 min", "10.0 h"]


def test_the_plot_has_a_label_at_each_point_that_covers_no_other() -> None:
    names = [f"method_{number}" for number in range(12)]
    costs = np.array([1.0, 1.01, 1.02, 1.02, 1.03, 1.1, 1.1, 1.2, 2.0, 4.0, 8.0, 8.1])
    values = np.array([50.0, 50.1, 50.2, 50.0, 49.9, 50, 52, 51, 40, 60, 61, 61])
    figure = charts.mean_against_cost(names, costs, values, ["a"] * 6 + ["b"] * 6, "title", "nothing real")
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.texts if text.get_text() in names] != []
    assert {text.get_text(): text.xy for text in axis.texts} == dict(
        zip(names, zip(costs, values, strict=True), strict=True)
    )
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axis.texts]  # without the lines to their points
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
