"""Flipped, padded and augmented views of an image, as mmseg describes them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from PIL import Image
from torch import Tensor, nn

SLIDE = {"mode": "slide", "crop_size": 64, "stride": 32, "window_batch": 3}
PRIOR = {"image_weight": 0.2, "mean_vector_weight": 0.05, "cluster_threshold": 0.3}
PAMR = {"type": "PAMR", "num_iter": 2, "dilations": (1, 2)}
FLIPS = {"horizontal": (-1,), "vertical": (-2,), "diagonal": (-2, -1)}


def flipped(direction: str | None, **meta: Any) -> SegDataSample:
    return SegDataSample(metainfo={"flip": direction is not None, "flip_direction": direction, **meta})


@pytest.mark.parametrize("direction", FLIPS)
@pytest.mark.parametrize("changes", [{}, {"refiner": PAMR, "prior": PRIOR, "test_cfg": SLIDE}])
def test_the_result_of_a_flipped_view_is_upright(build, make_images, direction: str, changes: dict[str, Any]) -> None:
    model = build(**changes)
    view = make_images(1, 80, 112)
    as_seen = model.predict(view, [SegDataSample(metainfo={"ori_shape": (50, 70)})])[0]
    upright = model.predict(view, [flipped(direction, ori_shape=(50, 70, 3))])[0]
    expected = as_seen.seg_logits.data.flip(FLIPS[direction])
    torch.testing.assert_close(upright.seg_logits.data, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(upright.pred_sem_seg.data[0], upright.seg_logits.data.argmax(0))


@pytest.mark.parametrize("key", ["padding_size", "img_padding_size"])
def test_padding_is_cut_off_before_a_view_is_flipped_back(build, make_images, key: str) -> None:
    model = build()
    view = make_images(1, 80, 112)
    padded = nn.functional.pad(view, (0, 32, 16, 0), value=7.0)
    alone = model.predict(view, [flipped("horizontal")])[0]
    found = model.predict(padded, [flipped("horizontal", **{key: (0, 32, 16, 0)})])[0]
    assert torch.equal(found.seg_logits.data, alone.seg_logits.data)


def test_padding_of_the_pipeline_and_of_the_batch_add_up(build) -> None:
    model = build()
    rng = np.random.default_rng(0)
    small, large = (torch.from_numpy(rng.integers(0, 256, (3, *size), np.uint8)) for size in ((80, 64), (112, 128)))
    padded = nn.functional.pad(small, (16, 0, 0, 0))
    samples = [flipped("vertical", padding_size=(16, 0, 0, 0)), flipped(None)]
    found = model.test_step({"inputs": [padded, large], "data_samples": samples})
    for image, sample, result in zip((small, large), (flipped("vertical"), flipped(None)), found, strict=True):
        alone = model.test_step({"inputs": [image], "data_samples": [sample]})[0]
        torch.testing.assert_close(result.seg_logits.data, alone.seg_logits.data, rtol=1e-4, atol=1e-5)


def test_images_of_different_sizes_without_samples_keep_their_sizes(build) -> None:
    found = build().test_step({"inputs": [torch.zeros(3, 80, 64), torch.zeros(3, 64, 96)]})
    assert [tuple(sample.pred_sem_seg.data.shape) for sample in found] == [(1, 80, 64), (1, 64, 96)]


def test_images_of_more_than_three_channels_are_refused(build) -> None:
    with pytest.raises(ValueError, match="images need 3 channels, got 4"):
        build().test_step({"inputs": [torch.zeros(4, 64, 64)]})


def test_views_of_one_batch_are_flipped_each_its_own_way(build, make_images) -> None:
    model = build()
    views = make_images(4, 80, 112)
    directions = [None, "vertical", "horizontal", "diagonal"]
    together = model.predict(views, [flipped(direction) for direction in directions])
    for view, direction, result in zip(views, directions, together, strict=True):
        alone = model.predict(view[None], [flipped(direction)])[0]
        torch.testing.assert_close(result.seg_logits.data, alone.seg_logits.data, rtol=1e-4, atol=1e-5)


def test_a_direction_counts_only_if_the_view_is_flipped(build, make_images) -> None:
    model, images = build(), make_images(1, 80, 112)
    sample = SegDataSample(metainfo={"flip": False, "flip_direction": "vertical"})
    assert torch.equal(model.predict(images, [sample])[0].pred_sem_seg.data, model.predict(images)[0].pred_sem_seg.data)


@pytest.mark.parametrize("direction", ["up", None, ["horizontal"]])
def test_an_unknown_direction_is_told_before_any_work(build, make_images, monkeypatch, direction: object) -> None:
    model = build()
    monkeypatch.setattr(model, "encode", None)
    sample = SegDataSample(metainfo={"flip": True, "flip_direction": direction})
    with pytest.raises(ValueError, match="flip_direction of a sample with flip=True must be one of 'horizontal'"):
        model.predict(make_images(1, 64, 64), [sample])


def views_of(image: Tensor) -> dict[str, Any]:
    """A batch of one image in two views, as TestTimeAug gives it."""
    samples = [flipped(None, img_path="a.png"), flipped("horizontal", img_path="a.png")]
    return {"inputs": [[image], [image.flip(-1)]], "data_samples": [[sample] for sample in samples]}


@pytest.mark.filterwarnings("ignore:The shape of value will convert from:UserWarning")  # mmseg's merge
def test_test_time_augmentation_is_the_mean_softmax_of_the_probabilities(settings, build, make_images) -> None:
    image = (128 + 60 * make_images(1, 80, 112)[0]).clamp(0, 255).byte()
    settings.update(vocabulary=[f"word {i}" for i in range(40)], method={"type": "MaskCLIP"})  # several words win
    data = views_of(image)
    merged = MODELS.build({"type": "SegTTAModel", "module": settings}).test_step(data)[0].pred_sem_seg.data[0]
    model = build()
    views = [
        model.test_step({"inputs": inputs, "data_samples": samples})[0].seg_logits.data
        for inputs, samples in zip(data["inputs"], data["data_samples"], strict=True)
    ]
    assert torch.equal(merged, torch.stack([view.softmax(0) for view in views]).mean(0).argmax(0))
    assert len(merged.unique()) > 1


@pytest.mark.filterwarnings("ignore:The shape of value will convert from:UserWarning")
def test_test_time_augmentation_with_one_class(settings) -> None:
    model = MODELS.build({"type": "SegTTAModel", "module": {**settings, "vocabulary": ["cat"]}})
    assert not model.test_step(views_of(torch.zeros(3, 64, 64)))[0].pred_sem_seg.data.any()


def test_test_time_augmentation_without_probabilities_is_a_sentence(settings) -> None:
    model = MODELS.build({"type": "SegTTAModel", "module": {**settings, "keep_seg_logits": False}})
    with pytest.raises(AttributeError, match="keep_seg_logits=True"):
        model.test_step(views_of(torch.zeros(3, 64, 64)))


def test_probabilities_of_another_model_do_not_stay_beside_new_labels(build, make_images) -> None:
    images = make_images(1, 64, 64)
    samples = build().predict(images, [SegDataSample()])
    assert samples[0].seg_logits.data.shape == (3, 64, 64)
    (sample,) = build(keep_seg_logits=False, vocabulary=["cat", "dog"]).predict(images, samples)
    assert not hasattr(sample, "seg_logits")
    assert isinstance(pickle.loads(pickle.dumps(sample)), SegDataSample)
    (sample,) = build().predict(images, samples)
    assert sample.seg_logits.data.shape == (3, 64, 64)


@pytest.mark.filterwarnings("ignore:The shape of value will convert from:UserWarning")
def test_a_runner_tests_with_resized_and_flipped_views(settings, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder, size in (("images", (50, 80, 3)), ("labels", (50, 80))):
        (tmp_path / folder).mkdir()
        for name in "ab":
            Image.fromarray(rng.integers(0, 3, size, np.uint8)).save(tmp_path / folder / f"{name}.png")
    augmented = {
        "type": "TestTimeAug",
        "transforms": [
            [{"type": "Resize", "scale_factor": ratio, "keep_ratio": True} for ratio in (1.0, 1.5)],
            [
                {"type": "RandomFlip", "prob": 0.0, "direction": "horizontal"},
                {"type": "RandomFlip", "prob": 1.0, "direction": "horizontal"},
                {"type": "RandomFlip", "prob": 1.0, "direction": "vertical"},
            ],
            [{"type": "LoadAnnotations"}],
            [{"type": "PackSegInputs"}],
        ],
    }
    dataset = {
        "type": "BaseSegDataset",
        "data_root": str(tmp_path),
        "data_prefix": {"img_path": "images", "seg_map_path": "labels"},
        "img_suffix": ".png",
        "metainfo": {"classes": ("background", "cat", "dog")},
        "pipeline": [{"type": "LoadImageFromFile"}, augmented],
        "test_mode": True,
    }
    cfg = Config(
        {
            "default_scope": "mmseg",
            "work_dir": str(tmp_path / "work"),
            "model": {"type": "SegTTAModel", "module": settings},
            "test_dataloader": {
                "batch_size": 2,
                "dataset": dataset,
                "sampler": {"type": "DefaultSampler", "shuffle": False},
            },
            "test_cfg": {"type": "TestLoop", "fp16": True},
            "test_evaluator": {"type": "ExactIoUMetric"},
            "experiment_name": f"tta-{tmp_path.name}",
        }
    )
    metrics = Runner.from_cfg(cfg).test()
    assert 0 < metrics["mIoU"] < 100
