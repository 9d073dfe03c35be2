"""Nothing that a caller sets for torch reaches behind clip.precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from mmengine.runner import autocast
from torch import nn

import rfclip
from rfclip.methods import distraction as calibrate

SLIDE = {"mode": "slide", "crop_size": 64, "stride": 32, "window_batch": 3}
PRIOR = {"image_weight": 0.2, "mean_vector_weight": 0.05, "cluster_threshold": 0.3}
PAMR = {"type": "PAMR", "num_iter": 2, "dilations": (1, 2)}

CASTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "half": lambda model: model.half(),
    "bfloat16": lambda model: model.bfloat16(),
    "double": lambda model: model.double(),
    "to": lambda model: model.to(torch.float16),
    "to device": lambda model: model.to("cpu", torch.float64),
    "type": lambda model: model.type(torch.bfloat16),
}


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("wrap", [lambda model: model, nn.Sequential])
def test_casts_name_the_setting(build, make_images, cast: str, wrap) -> None:
    model, images = build(), make_images(1, 64, 64)
    before = model.predict(images)[0].seg_logits.data
    with pytest.raises(ValueError, match=r"alone or inside another model, must be torch\.float32.*clip\.precision"):
        CASTS[cast](wrap(model))
    assert torch.equal(model.float().to("cpu").predict(images)[0].seg_logits.data, before)


@pytest.fixture
def default_dtype() -> Iterator[Callable[[torch.dtype], None]]:
    """Set torch's default dtype for one test."""
    yield torch.set_default_dtype
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_another_default_dtype_names_the_setting(settings, build, make_images, default_dtype, dtype) -> None:
    model, images = build(), make_images(1, 64, 64)
    segmenter = rfclip.OpenVocabSegmenter(**settings["clip"], device="cpu", method=settings["method"])
    calls = [
        build,
        lambda: rfclip.OpenVocabSegmenter("tiny", device="cpu"),
        lambda: model.predict(images),
        lambda: model(images, mode="tensor"),
        lambda: rfclip.encode_dense(model, images),
        lambda: segmenter(np.zeros((40, 60, 3), np.uint8), ["cat", "dog"]),
    ]
    default_dtype(dtype)
    for call in calls:
        with pytest.raises(ValueError, match=r"default dtype must be torch\.float32.*clip\.precision"):
            call()


AUTOCASTS = [lambda: torch.autocast("cpu", torch.bfloat16), lambda: autocast("cpu", enabled=True)]


@pytest.mark.parametrize("outer", AUTOCASTS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["RefocusCLIP", "RefocusCLIPRelease", "MeanKK"])
def test_an_autocast_around_it_changes_nothing(settings, build, make_images, outer, precision: str, method) -> None:
    changes = {"clip": {**settings["clip"], "precision": precision}, "prior": PRIOR, "refiner": PAMR}
    changes |= {"method": {"type": method, **({} if method == "MeanKK" else {"distraction_dims": [5, 23]})}}
    model, images = build(**changes, test_cfg=SLIDE), make_images(2, 70, 96)
    samples, dense, cosines = model.predict(images), rfclip.encode_dense(model, images), model(images, mode="tensor")
    with outer():
        built_inside = build(**changes, test_cfg=SLIDE)
        again, dense_again = model.predict(images), rfclip.encode_dense(model, images)
        cosines_again = model(images, mode="tensor")
        features = model.extract_feat(images)
    for one, other in zip(samples, [*again], strict=True):
        assert torch.equal(one.seg_logits.data, other.seg_logits.data)
    assert torch.equal(dense.patches, dense_again.patches)
    assert torch.equal(dense.image, dense_again.image)
    assert torch.equal(cosines, cosines_again)
    assert torch.equal(features, model.extract_feat(images))
    assert torch.equal(built_inside.predict(images)[0].seg_logits.data, samples[0].seg_logits.data)
    assert torch.equal(built_inside.clusters, model.clusters)


def test_an_autocast_around_the_segmenter_changes_nothing(settings) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    arguments = {**settings["clip"], "device": "cpu", "method": settings["method"], "prior": PRIOR, "refiner": PAMR}
    expected = rfclip.OpenVocabSegmenter(**arguments)(picture, ["cat", "dog", "grass"]).probs
    with torch.autocast("cpu", torch.bfloat16):
        found = rfclip.OpenVocabSegmenter(**arguments)(picture, ["cat", "dog", "grass"]).probs
    assert expected is not None
    assert np.array_equal(expected, found)


def test_an_autocast_around_calibration_changes_nothing(planted, make_images) -> None:
    images = make_images(2, 80, 112)
    expected = calibrate.measure(planted.vit, [images])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(calibrate.measure(planted.vit, [images]).profile, expected.profile)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_of_another_precision_are_seen_in_fp32(build, make_images, dtype: torch.dtype) -> None:
    model, images = build(prior=PRIOR, refiner=PAMR), make_images(1, 64, 80).to(dtype)
    expected = model.predict(images.float())[0].seg_logits.data
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.predict(images)[0].seg_logits.data, expected)
    assert torch.equal(model(images, mode="tensor"), model(images.float(), mode="tensor"))


def test_whole_numbers_are_no_normalised_images(build) -> None:
    with pytest.raises(ValueError, match=r"normalised floating-point values, got torch\.uint8"):
        build().predict(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
