"""The wheel holds all that an installed package needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from mmengine.fileio import load as load_yaml
from PIL import Image

ROOT = Path(__file__).parents[1]
NEEDED = (
    "rfclip/py.typed",
    "rfclip/.mim/model-index.yml",
    "rfclip/.mim/configs/rfclip/metafile.yml",
    "rfclip/.mim/configs/rfclip/rfclip_vit-b16_voc21.py",
    "rfclip/.mim/configs/_base_/profiles/release.py",
    "rfclip/data/published.json",
    "rfclip/data/vocabularies/voc21.json",
    "rfclip/data/templates/imagenet80.json",
    "rfclip/methods/baselines.py",
    "rfclip/benchmarks/prepare/sample.py",
    "rfclip/cli/eval_all.py",
)
HEAVY = ("torch", "mmseg", "mmcv", "mmengine", "numpy", "matplotlib", "open_clip", "PIL")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("rfclip", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "requirements.txt", "model-index.yml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, f"--wheel-dir={out}", str(source)], check=True, capture_output=True, timeout=600)
    return next(out.glob("rfclip-*.whl"))


def test_wheel_holds_every_data_file_and_config(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, prefix in ((ROOT / "rfclip/data", "rfclip/data"), (ROOT / "configs", "rfclip/.mim/configs")):
        files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert {f"{prefix}/{path.relative_to(folder).as_posix()}" for path in files} <= names
    assert set(NEEDED) <= names
    assert not any(name.startswith(("tests/", "tools/")) for name in names)


def test_metadata_leaves_mmcv_to_the_user(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    text = archive.read(next(name for name in archive.namelist() if name.endswith("METADATA"))).decode()
    required = [line for line in text.splitlines() if line.startswith("Requires-Dist:")]
    assert [line for line in required if "mmcv" in line] == ['Requires-Dist: mmcv-lite<2.2,>=2.0.1; extra == "lite"']
    assert any("open_clip" in line or "open-clip" in line for line in required)
    versions = next(line for line in text.splitlines() if line.startswith("Requires-Python:"))
    assert set(versions.split(": ")[1].replace(" ", "").split(",")) == {">=3.10", "<3.14"}


def test_config_comes_from_the_installed_package(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "from rfclip.benchmarks.configs import config, config_root\n"
        "print(config_root().name, config('cityscapes')['prior']['scope'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.stdout.split() == ["configs", "window"], done.stderr


def test_the_index_of_models_names_every_config() -> None:
    index = load_yaml(ROOT / "model-index.yml")
    models = [model for file in index["Import"] for model in load_yaml(ROOT / file)["Models"]]
    configs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs/rfclip").glob("*.py")}
    assert {model["Config"] for model in models} == configs
    assert all(model["Name"] == Path(model["Config"]).stem for model in models)


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """command(folder, *arguments, python=()): the console script of an installed wheel, away from the checkout."""
    site = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", f"--target={site}", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=600)
    environment = {**os.environ, "PYTHONPATH": str(site), "RFCLIP_CACHE": str(site / "cache")}

    def run(folder: Path, *arguments: str, python: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, *python, str(site / "bin/rfclip"), *arguments]
        return subprocess.run(
            line, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
        )

    return run


def test_the_console_script_answers_before_anything_heavy(command: Callable[..., Any], tmp_path: Path) -> None:
    for arguments in (["--help"], ["segment", "--help"], ["prepare", "sample", "--help"]):
        done = command(tmp_path, *arguments, python=["-X", "importtime"])
        assert done.returncode == 0 and "usage: rfclip" in done.stdout
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "rfclip.cli" in imported and not imported & set(HEAVY)


def test_an_installed_wheel_segments(command: Callable[..., Any], tmp_path: Path) -> None:
    Image.new("RGB", (80, 60), "green").save(tmp_path / "a.png")
    done = command(tmp_path, "segment", "a.png", "--classes=grass,sky", "--model=tiny", "--short-side=64")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "segmented").iterdir()) == [
        "a.json",
        "a_labels.png",
        "a_overlay.png",
    ]


@pytest.mark.slow
def test_an_installed_wheel_has_every_command(command: Callable[..., Any], tmp_path: Path) -> None:
    Image.new("RGB", (80, 60), "green").save(tmp_path / "a.png")
    for line in (
        ["explain", "a.png", "--classes=grass,sky", "--model=tiny", "--short-side=64", "--plots=budget"],
        ["prepare", "sample", "mine"],
        ["eval-all", "--sample", "--benchmarks=voc20"],
        ["eval-all", "--sample", "--benchmarks=voc20", "--resume", "--gpus=2"],
        ["summarize", "work_dirs"],
        ["compare", "--sample", "--methods=mean_kk,paper", "--benchmarks=voc20", "--limit=1", "--work-dir=both"],
        ["info"],
    ):
        done = command(tmp_path, *line)
        assert done.returncode == 0, (line, done.stderr)
    for name in ("explained/a.html", "mine/sample.json", "work_dirs/voc20/results.json", "work_dirs/summary.md"):
        assert (tmp_path / name).is_file()
    assert {path.name for path in (tmp_path / "both").glob("table.*")} == {
        f"table.{kind}" for kind in ("json", "csv", "md", "png")
    }
