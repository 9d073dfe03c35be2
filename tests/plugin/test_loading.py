"""The transform that loads images in mmseg: as our reader does, and JPEGs as mmcv does."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import sklearn.datasets
import torch
from mmcv.transforms import LoadImageFromFile as MmcvLoader
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.apis import MMSegInferencer, inference_model, init_model
from mmseg.registry import TRANSFORMS
from PIL import Image

from rfclip.benchmarks.configs import BENCHMARKS, benchmark_config
from rfclip.io.images import read_image
from rfclip.plugin.loading import LoadImageFromFile
from tests.plugin.test_segmentor import project_config
from tests.support.tiff_files import tiff_bytes

PHOTOS = sorted(Path(sklearn.datasets.__file__).with_name("images").glob("*.jpg"))
RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


@pytest.fixture
def load() -> LoadImageFromFile:
    init_default_scope("mmseg")
    loader = TRANSFORMS.build({"type": "LoadImageFromFile", "imdecode_backend": "rfclip"})
    assert isinstance(loader, LoadImageFromFile)
    return loader


def bgr(loader: MmcvLoader, path: Path) -> np.ndarray:
    return loader({"img_path": str(path)})["img"]


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_benchmark_loads_by_it(benchmark: str) -> None:
    step = Config.fromfile(benchmark_config(benchmark)).test_pipeline[0]
    assert step == {"type": "LoadImageFromFile", "imdecode_backend": "rfclip"}


def test_jpegs_and_plain_pngs_are_what_mmcv_makes_of_them(load: LoadImageFromFile, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(RGB).convert("L").save(tmp_path / "grey.jpg")
    Image.fromarray(RGB).save(tmp_path / "colour.png")
    Image.fromarray(RGB).convert("L").save(tmp_path / "grey.png")
    for path in (*PHOTOS, *tmp_path.iterdir()):
        results = load({"img_path": str(path)})
        expected = MmcvLoader()({"img_path": str(path)})
        np.testing.assert_array_equal(results["img"], expected["img"])
        assert results["img_shape"] == results["ori_shape"] == expected["ori_shape"]


def test_anything_else_has_the_colours_of_our_reader(load: LoadImageFromFile, tmp_path: Path) -> None:
    deep = RGB.astype(np.uint16) * 16
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    Image.fromarray(deep[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([RGB, RGB[..., 0]])).save(tmp_path / "alpha.tif")
    Image.fromarray(np.dstack([RGB, RGB[..., 0]])).save(tmp_path / "alpha.png")
    Image.fromarray(RGB).quantize(4).save(tmp_path / "palette.png", transparency=1)
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "inks.jpg")
    (tmp_path / "bands.tif").write_bytes(tiff_bytes(np.tile(RGB, (1, 1, 2)), extra=[0, 0, 0]))
    (tmp_path / "float.tif").write_bytes(tiff_bytes((RGB / 255).astype(np.float32)))
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(bgr(load, path)[..., ::-1], read_image(path))
        assert bgr(load, path).flags.c_contiguous
    np.testing.assert_array_equal(read_image(tmp_path / "float.tif"), RGB)
    np.testing.assert_array_equal(read_image(tmp_path / "bands.tif"), RGB)


def test_what_was_guessed_is_said_once_of_its_kind(
    load: LoadImageFromFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, int]] = []
    monkeypatch.setattr("rfclip.plugin.loading.print_log", lambda text, logger, level: said.append((text, level)))
    for number, top in enumerate((1000, 1001, 3000)):
        Image.fromarray(np.array([[0, top]], np.uint16)).save(tmp_path / f"{number}.png")
        bgr(load, tmp_path / f"{number}.png")
    Image.new("RGBA", (2, 2)).save(tmp_path / "clear.png")
    bgr(load, tmp_path / "clear.png")
    assert [level for _, level in said] == [logging.WARNING] * 2
    assert "0.png has values up to 1000; white was taken to be 1023" in said[0][0]
    assert "clear.png has transparency" in said[1][0]


def test_errors_are_one_sentence(load: LoadImageFromFile, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    (tmp_path / "cut.jpg").write_bytes(PHOTOS[0].read_bytes()[:700])
    with pytest.raises(ValueError, match=r"bad\.png' cannot be read as an image"):
        bgr(load, tmp_path / "bad.png")
    with pytest.raises(ValueError, match=r"cut\.jpg' cannot be read as an image"):
        bgr(load, tmp_path / "cut.jpg")
    with pytest.raises(FileNotFoundError, match="gone"):
        bgr(load, tmp_path / "gone.png")
    empty = TRANSFORMS.build({"type": "LoadImageFromFile", "imdecode_backend": "rfclip", "ignore_empty": True})
    assert empty({"img_path": str(tmp_path / "bad.png")}) is None
    with pytest.raises(ValueError, match="reads colours"):
        LoadImageFromFile(color_type="grayscale", imdecode_backend="rfclip")


def test_other_decoders_are_mmcvs(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([RGB, RGB[..., 0]])).save(tmp_path / "alpha.png")
    for settings in ({}, {"imdecode_backend": "pillow"}, {"color_type": "unchanged"}, {"to_float32": True}):
        ours, theirs = LoadImageFromFile(**settings), MmcvLoader(**settings)
        np.testing.assert_array_equal(bgr(ours, tmp_path / "alpha.png"), bgr(theirs, tmp_path / "alpha.png"))
    assert (
        bgr(LoadImageFromFile(imdecode_backend="rfclip", to_float32=True), tmp_path / "alpha.png").dtype == np.float32
    )


@pytest.mark.filterwarnings("ignore:Failed to add:UserWarning")  # mmengine's visualizer has no folder to save in
@pytest.mark.filterwarnings("ignore:Checkpoint is not loaded:UserWarning")  # mmseg knows no other way in
@pytest.mark.filterwarnings("ignore:weights is None:UserWarning")
def test_mmsegs_inferencers_load_by_it(
    clip_files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "deep.tif"
    path.write_bytes(tiff_bytes(np.tile(RGB.astype(np.uint16) * 16, (8, 9, 2)), extra=[0, 0, 0]))
    config = project_config(clip_files)
    config.test_pipeline[0].imdecode_backend = "rfclip"
    config.test_dataloader.dataset.pipeline = config.test_pipeline
    config.dump(tmp_path / "project.py")
    model = init_model(config, device="cpu")
    by_path = inference_model(model, str(path)).pred_sem_seg.data[0]
    by_array = inference_model(model, read_image(path)[..., ::-1].copy()).pred_sem_seg.data[0]
    assert by_path.shape == (40, 63) and torch.equal(by_path, by_array)
    inferencer = MMSegInferencer(str(tmp_path / "project.py"), device="cpu")
    found = inferencer(str(path), return_datasamples=False, show=False)["predictions"]
    np.testing.assert_array_equal(found, by_path.numpy())
