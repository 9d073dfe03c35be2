"""The wheel holds all that an installed package needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from mmengine.fileio import load as load_yaml

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
)


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
