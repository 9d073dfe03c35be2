"""A whole benchmark run with a segmentor that needs no CLIP, on a data set written here."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from rfclip.benchmarks.configs import find_profile, method_block
from rfclip.benchmarks.options import Options, build_config
from rfclip.runs import run as harness
from rfclip.runs.areas import AreaLog
from rfclip.runs.manifest import decisive_facts
from rfclip.runs.run import UserError, is_finished, run

ROOT = Path(__file__).parents[2]
IMAGES = 6
DELAY = {"model.delay": 0.4}  # seconds at each image
CONFIG = f"""
_base_ = ["{ROOT}/configs/_base_/default_runtime.py", "{ROOT}/configs/_base_/datasets/voc20.py"]
custom_imports = dict(imports=["rfclip", "tests.support.fake_segmentor"], allow_failed_imports=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
model = dict(
    type="FakeSegmentor",
    clip=dict(model="ViT-B-16", pretrained="{ROOT}/weights.pt"),
    method=dict(type="MeanKK"),
    vocabulary="voc20",
)
"""


def write_data(voc: Path) -> None:
    """Six pairs of different sizes in the layout of VOC, with pixels that do not count."""
    folders = [voc / name for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")]
    for folder in folders:
        folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(IMAGES):
        height, width = 20 + index, 31 - index
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        labels = np.where(rng.random((height, width)) < 0.1, 255, rng.integers(0, 21, (height, width)))
        Image.fromarray(image).save(folders[0] / f"{index}.jpg")
        Image.fromarray(labels.astype(np.uint8)).save(folders[1] / f"{index}.png")
    (folders[2] / "val.txt").write_text("".join(f"{index}\n" for index in range(IMAGES)))


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a config, and the results of one run."""
    folder = tmp_path_factory.mktemp("harness")
    write_data(folder / "data/VOCdevkit/VOC2012")
    (folder / "fake.py").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(ROOT)
        run(Options(Path("fake.py"), work_dir=Path("runs")))
    return folder


@pytest.fixture
def finished(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """A copy of that folder, as the working folder."""
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT)
    return Options(Path("fake.py"), work_dir=Path("runs"))


@pytest.fixture
def options(finished: Options) -> Options:
    """The same before anything ran."""
    shutil.rmtree(finished.work_dir)
    return finished


def log_of(options: Options) -> AreaLog:
    """The lines of a run, of those settings that the options mean."""
    return AreaLog(options.work_dir / "voc20", decisive_facts(build_config(options), options.overrides())["identity"])


def results_of(options: Options) -> dict[str, Any]:
    return json.loads((options.work_dir / "voc20/results.json").read_text())


def test_results_hold_scores_classes_and_manifest(finished: Options, finished_run: Path) -> None:
    results = results_of(finished)
    assert set(results["metrics"]) == {"mIoU", "aAcc", "mAcc"} and 0 < results["metrics"]["mIoU"] < 100
    assert len(results["per_class"]) == 20 and set(results["per_class"]["cat"]) == {"IoU", "Acc"}
    manifest = results["manifest"]
    assert manifest["profile"] == "mean_kk" and manifest["pamr"] is False
    assert manifest["overrides"] == {}
    assert manifest["data"]["images"] == manifest["time"]["images"] == IMAGES
    assert manifest["weights"]["pretrained"] == "weights.pt"
    assert manifest["machine"]["processes"] == 1 and "torch" in manifest["versions"]
    assert str(ROOT) not in json.dumps(results) and str(finished_run) not in json.dumps(results)
    assert [path.name for path in finished.work_dir.rglob("results.json")] == ["results.json"]


def test_label_maps_and_pictures_are_written_on_request(options: Options) -> None:
    run(replace(options, out="out", show_dir="show"))
    assert len(list(Path("out").glob("*.png"))) == IMAGES
    assert len(list(Path("show").rglob("*.png"))) == IMAGES


@pytest.mark.parametrize("kept", [3, IMAGES])
def test_resume_computes_the_missing_images_only_and_scores_the_same(finished: Options, kept: int) -> None:
    whole = results_of(finished)["metrics"]
    log = log_of(finished)
    lines = log.path.read_text().splitlines(keepends=True)
    log.path.write_text("".join(lines[:kept]) + lines[0][:15])  # as a kill leaves it
    (finished.work_dir / "voc20/results.json").unlink()
    again = run(replace(finished, resume=True))
    assert again["metrics"] == whole
    assert again["manifest"]["time"]["images"] == IMAGES - kept
    assert again["manifest"]["time"]["resumed_after"] == kept


def test_finished_and_unchanged_is_not_run_again(finished: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "Runner", None)
    assert is_finished(finished)
    assert run(replace(finished, resume=True)) == results_of(finished)


@pytest.mark.parametrize("change", ["settings", "code", "data", "labels of the same size", "pipeline"])
def test_what_changed_is_not_finished(finished: Options, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if change == "settings":
        finished = replace(finished, cfg_options={"model.prob_thd": 0.5})
    elif change == "code":
        monkeypatch.setattr("rfclip.runs.manifest.code_hash", lambda: "another")
    elif change == "pipeline":
        finished = replace(finished, cfg_options={"test_dataloader.dataset.pipeline.1.scale": (2048, 224)})
    elif change == "data":
        Image.new("RGB", (31, 20)).save("data/VOCdevkit/VOC2012/JPEGImages/0.jpg")
    else:
        path = Path("data/VOCdevkit/VOC2012/SegmentationClass/0.png")
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert not is_finished(finished)


def test_an_image_that_changed_is_done_again_and_the_others_are_kept(finished: Options) -> None:
    path = Path("data/VOCdevkit/VOC2012/SegmentationClass/2.png")
    with Image.open(path) as image:
        labels = np.array(image)
    Image.fromarray(labels % 7).save(path)
    again = run(replace(finished, resume=True))
    assert again["manifest"]["time"] | {"images": 1, "resumed_after": IMAGES - 1} == again["manifest"]["time"]
    assert again["metrics"] == run(finished)["metrics"]


def test_two_runs_do_not_write_into_one_folder(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "PATIENCE", 0)
    (options.work_dir / "voc20").mkdir(parents=True)
    lock = FileLock(options.work_dir / "voc20" / harness.LOCK)
    with lock, pytest.raises(UserError, match="another run is writing into runs/voc20"):
        run(options)
    assert run(options)["metrics"]


def test_a_name_that_is_listed_twice_is_found_before_anything_runs(options: Options) -> None:
    path = Path("data/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt")
    names = path.read_text()
    for again in ("3", "./3"):
        path.write_text(f"{names}{again}\n")
        with pytest.raises(UserError, match=r"JPEGImages/3\.jpg stands 2 times in"):
            run(options)


def test_a_file_system_without_locks_is_warned_of(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Unlockable(FileLock):
        def acquire(self, *args: Any, **kwargs: Any) -> Any:
            raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(harness, "FileLock", Unlockable)
    monkeypatch.setattr(harness, "print_log", lambda text, *_: said.append(text))
    assert run(options)["metrics"]
    assert [line for line in said if "runs/voc20 cannot be locked" in line]


def test_the_evaluators_settings_are_used(options: Options) -> None:
    whole = run(options)["metrics"]
    assert run(replace(options, cfg_options={"test_evaluator.ignore_index": 3}))["metrics"] != whole


@pytest.mark.parametrize("evaluator", ["dict(type='IoUMetric', iou_metrics=['mIoU'])", "[dict(type='ExactIoUMetric')]"])
def test_the_usual_evaluators_become_the_exact_one(options: Options, evaluator: str) -> None:
    own = options.config.with_name("own.py")
    own.write_text(f"_base_ = ['fake.py']\ntest_evaluator = dict(_delete_=True, **{evaluator})\n")
    if evaluator.startswith("["):
        own.write_text(options.config.read_text() + f"test_evaluator = {evaluator}\n")
    cfg = build_config(replace(options, config=own))
    assert cfg.test_evaluator == {"type": "ExactIoUMetric", "ignore_index": 255}


@pytest.mark.parametrize("change", [{"iou_metrics": ["mKappa"]}, {"type": "CityscapesMetric"}, {"output_dir": "x"}])
def test_other_evaluators_are_refused(options: Options, change: dict[str, Any]) -> None:
    entries = {f"test_evaluator.{key}": value for key, value in change.items()}
    with pytest.raises(UserError, match="test_evaluator must be"):
        run(replace(options, cfg_options=entries))


def test_a_pipeline_changed_in_either_place_is_changed_in_both(options: Options) -> None:
    for key in ("test_pipeline", "test_dataloader.dataset.pipeline"):
        cfg = build_config(replace(options, cfg_options={f"{key}.1.scale": (2048, 100)}))
        assert cfg.test_pipeline[1].scale == cfg.test_dataloader.dataset.pipeline[1].scale == (2048, 100)
    changed = options.config.read_text() + "test_pipeline = [dict(type='Resize', scale=(2048, 448), keep_ratio=True)]\n"
    own = options.config.with_name("own.py")
    own.write_text(changed)
    cfg = build_config(replace(options, config=own, cfg_options={"test_dataloader.dataset.pipeline.1.scale": (9, 9)}))
    assert cfg.test_pipeline[1].scale == cfg.test_dataloader.dataset.pipeline[1].scale == (9, 9)
    both = {"test_pipeline.1.scale": (2048, 9), "test_dataloader.dataset.pipeline.1.scale": (2048, 8)}
    with pytest.raises(ValueError, match="given and differ"):
        build_config(replace(options, cfg_options=both))


def test_what_changed_is_computed_anew(finished: Options) -> None:
    changed = replace(finished, cfg_options={"model.prob_thd": 0.5}, resume=True)
    assert run(changed)["manifest"]["time"]["resumed_after"] == 0


def test_moved_data_is_found_and_still_the_same_data(finished: Options) -> None:
    Path("data").rename("elsewhere")
    with pytest.raises(UserError, match="data/VOCdevkit/VOC2012 not found: see datasets"):
        is_finished(finished)
    assert is_finished(replace(finished, data_root="elsewhere"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(config=Path("none.py")), "config none.py not found; the benchmarks' are in"),
        (dict(profile="best"), "no profile 'best'; there are cass, clear_clip, gla"),
        (
            dict(cfg_options={"model.vocabulary": "voc21"}),
            "the vocabulary has 21 classes, but the data set has 20",
        ),
        (dict(cfg_options={"model.vocabulary": "voc22"}), "voc22"),
        (dict(cfg_options={"model.type": "NoSuchModel"}), "NoSuchModel is not in the"),
        (dict(cfg_options={"test_dataloader.dataset.data_root": "d"}, data_root="e"), "d not found"),
        (dict(work_dir=Path("fake.py")), "fake.py/voc20"),
    ],
)
def test_user_errors_are_one_sentence(options: Options, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        run(replace(options, **change))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("fault", "workers"), [("damaged", 1), ("vanished", 0), ("other size", 0)])
def test_a_bad_image_is_named_and_the_rest_kept(options: Options, fault: str, workers: int) -> None:
    path = Path("data/VOCdevkit/VOC2012/JPEGImages/2.jpg")
    if fault == "damaged":
        path.write_bytes(path.read_bytes()[:40])
    elif fault == "vanished":
        path.unlink()
    else:
        Image.new("RGB", (9, 8)).save(path)
    with pytest.raises(UserError) as caught:
        run(replace(options, cfg_options={"test_dataloader.num_workers": workers}))
    assert "2.jpg" in str(caught.value) and "--resume" in str(caught.value) and "\n" not in str(caught.value)
    assert len(log_of(replace(options, cfg_options={"test_dataloader.num_workers": workers})).read(20)) == 2


def test_a_full_disk_is_named(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rfclip.runs.areas.os.fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        run(options)


def test_options_reach_the_config() -> None:
    config = ROOT / "configs/rfclip/rfclip_vit-b16_voc21.py"
    cfg = build_config(Options(config, profile="MeanKK", refiner="pamr", model="tiny", data_root="/x/sample"))
    assert cfg.model.method == dict(type="MeanKK")
    assert cfg.model.refiner == dict(type="PAMR", num_iter=10, dilations=(8, 16))
    assert (cfg.model.clip.model, cfg.model.clip.pretrained) == ("tiny", None)
    assert cfg.test_dataloader.dataset.data_root == "/x/sample/VOCdevkit/VOC2012"
    cfg = build_config(Options(config, checkpoint="w.pt", profile="release", cfg_options={"model.method.tau": 3.0}))
    assert cfg.model.clip.pretrained == "w.pt"
    assert (cfg.model.method.type, cfg.model.method.tau) == ("RefocusCLIPRelease", 3.0)
    assert "beta" not in cfg.model.method and "refiner" not in cfg.model
    assert "quick_gelu" not in cfg.model.clip and "origin" not in cfg.model.clip
    options = Options(config, model="local-dir:/x", quick_gelu=False, origin="openai")
    assert build_config(options).model.clip == dict(
        model="local-dir:/x", pretrained=None, precision="fp32", quick_gelu=False, origin="openai"
    )
    assert options.overrides()["quick_gelu"] is False


@pytest.mark.parametrize("name", ["mean_kk", "MeanKK", "mean-kk", "MEANKK"])
def test_profile_by_any_spelling(name: str) -> None:
    assert find_profile(name)[0] == "mean_kk"


def test_the_two_profiles_by_their_methods() -> None:
    assert find_profile("RefocusCLIP")[0] == "paper"
    assert find_profile("RefocusCLIPRelease")[0] == "release"
    assert method_block("refocus_clip")["type"] == "RefocusCLIP"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code: a run is only resumed by the code that began it, and here that must not change."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("rfclip", "configs", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def command(code: Path, options: Options, processes: int, *extra: str) -> tuple[list[str], dict[str, str]]:
    test = [str(code / "tools/test.py"), str(options.config), f"--work-dir={options.work_dir}", *extra]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "PYTHON": sys.executable,
    }
    if processes == 1:
        return [sys.executable, *test], environment
    return ["bash", str(code / "tools/dist_test.sh"), test[1], "none", str(processes), *test[2:]], environment


def descendants(pid: int) -> list[int]:
    """All processes below one; torch's launcher gives its workers sessions of their own."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for parent in found:
        found += [child for child, above in parents.items() if above == parent]
    return found[1:]


def kill_after(code: Path, options: Options, processes: int, lines: int) -> None:
    """Start a run that waits at each image; kill all its processes when that many images are written."""
    line, environment = command(code, options, processes, "--cfg-options", "model.delay=0.4")
    process = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL)
    log = log_of(replace(options, cfg_options=DELAY))
    deadline = time.time() + 600
    while len(log.read(20)) < lines and process.poll() is None and time.time() < deadline:
        time.sleep(0.05)
    for pid in (process.pid, *descendants(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_killed_run_goes_on_and_ends_the_same(checkout: Path, finished: Options, processes: int) -> None:
    whole = results_of(finished)
    shutil.rmtree(finished.work_dir)
    kill_after(checkout, finished, processes, 2)
    done = len(log_of(replace(finished, cfg_options=DELAY)).read(20))
    assert 2 <= done < IMAGES and not (finished.work_dir / "voc20/results.json").exists()
    line, environment = command(checkout, finished, processes, "--resume", "--cfg-options", "model.delay=0.4")
    subprocess.run(line, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=900)
    results = results_of(finished)
    assert results["metrics"] == whole["metrics"] and results["per_class"] == whole["per_class"]
    assert results["manifest"]["time"]["resumed_after"] == done
    assert results["manifest"]["machine"]["processes"] == processes


def test_command_line_reports_one_sentence_and_status_one(options: Options) -> None:
    Path("data").rename("moved")
    line, environment = command(ROOT, options, 1)
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "error: data/VOCdevkit/VOC2012 not found: see datasets/README.md"
    assert "Traceback" not in done.stderr
