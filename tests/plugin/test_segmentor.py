"""RFCLIP in mmseg: building, predicting, the promises of the interface."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmseg.apis import MMSegInferencer, inference_model, init_model, show_result_pyplot
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

import rfclip
from rfclip.plugin import segmentor

WORDS = [["background", "wall"], ["cat"], ["dog", "puppy"]]
METHODS = [
    "RefocusCLIP", "RefocusCLIPRelease", "VanillaCLIP", "MaskCLIP", "SCLIP", "ClearCLIP", "NACLIP", "MeanKK",
]  # fmt: skip


SLIDE = {"mode": "slide", "crop_size": 64, "stride": 32, "window_batch": 3}
PRIOR = {"image_weight": 0.2, "mean_vector_weight": 0.05, "cluster_threshold": 0.3}


@pytest.mark.parametrize("test_cfg", [None, SLIDE])
def test_predict_gives_each_sample_its_own_size(build, make_images, test_cfg) -> None:
    model = build(test_cfg=test_cfg, prior=PRIOR, prob_thd=0.1, background_index=0)
    samples = [SegDataSample(metainfo={"ori_shape": shape}) for shape in ((50, 70), (33, 91))]
    results = model.predict(make_images(2, 80, 112), samples)
    for result, shape in zip(results, ((50, 70), (33, 91)), strict=True):
        labels, probs = result.pred_sem_seg.data, result.seg_logits.data
        assert labels.shape == (1, *shape)
        assert labels.dtype == torch.int64
        assert probs.shape == (3, *shape)
        assert (probs >= 0).all()
        assert (probs.sum(0) <= 1 + 1e-5).all()
        expected = torch.where(probs.amax(0) < 0.1, 0, probs.argmax(0))
        assert torch.equal(labels[0], expected)


@pytest.mark.parametrize("test_cfg", [None, SLIDE])
@pytest.mark.parametrize(
    "refiner", [None, {"type": "PAMR", "num_iter": 2, "dilations": (1, 2)}, {"type": "TextLaplacian", "grid": 20}]
)
def test_batch_of_two_is_two_batches_of_one(build, make_images, test_cfg, refiner) -> None:
    model = build(test_cfg=test_cfg, prior=PRIOR, refiner=refiner)
    images = make_images(2, 85, 118)
    together = model.predict(images)
    for image, result in zip(images, together, strict=True):
        alone = model.predict(image[None])[0]
        torch.testing.assert_close(result.seg_logits.data, alone.seg_logits.data, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["mean", "logsumexp"])
def test_names_are_joined_and_small_classes_dropped(build, make_images, how) -> None:
    images, (plain, changed) = (
        make_images(1, 80, 112),
        (build(), build(alias_aggregation=how, area_thd=0.4, background_index=0)),
    )
    cosines = plain(images, mode="tensor")[0]
    scores = (40 * cosines).softmax(0)
    owners = torch.tensor(plain.vocabulary.query_class)
    joined = {"logsumexp": lambda p: p.sum(0), "mean": lambda p: p.log().mean(0).exp()}[how]
    probs = torch.stack([joined(scores[owners == index]) for index in range(3)])
    areas = probs.argmax(0).flatten().bincount(minlength=3)[1:]
    probs[1:][areas <= 0.4 * areas.sum()] = 0
    (result,) = changed.predict(images)
    torch.testing.assert_close(result.seg_logits.data, probs, rtol=1e-4, atol=1e-6)
    best = torch.where(probs.amax(0) < changed.settings.prob_thd, 0, probs.argmax(0))
    assert torch.equal(result.pred_sem_seg.data[0], best)
    assert not torch.equal(result.seg_logits.data, plain.predict(images)[0].seg_logits.data)


def test_padding_is_cut_first(build, make_images) -> None:
    model = build()
    image = make_images(1, 80, 112)
    padded = F.pad(image, (0, 32, 0, 16), value=7.0)
    sample = SegDataSample(metainfo={"padding_size": (0, 32, 0, 16), "ori_shape": (80, 112)})
    torch.testing.assert_close(
        model.predict(padded, [sample])[0].seg_logits.data, model.predict(image)[0].seg_logits.data
    )


def test_preprocessor_takes_different_sizes(build) -> None:
    model = build()
    rng = np.random.default_rng(0)
    raw = [torch.from_numpy(rng.integers(0, 256, (3, h, w), np.uint8)) for h, w in ((80, 112), (96, 64))]
    samples = [SegDataSample(metainfo={"ori_shape": tuple(image.shape[1:])}) for image in raw]
    data = {"inputs": raw, "data_samples": samples}
    batch = model.data_preprocessor(copy.deepcopy(data))
    assert batch["inputs"].shape == (2, 3, 96, 112)
    assert [tuple(s.padding_size) for s in batch["data_samples"]] == [(0, 0, 0, 16), (0, 48, 0, 0)]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.loaded.mean, model.loaded.std))
    torch.testing.assert_close(batch["inputs"][0, :, :80], (raw[0].flip(0).float() - mean) / std)
    for one, image in zip(model.test_step(data), raw, strict=True):
        alone = model.test_step(
            {"inputs": [image], "data_samples": [SegDataSample(metainfo={"ori_shape": image.shape[1:]})]}
        )
        torch.testing.assert_close(one.seg_logits.data, alone[0].seg_logits.data, rtol=1e-4, atol=1e-5)


def test_tensor_mode_is_unscaled_cosines_per_name(build, make_images) -> None:
    model = build()
    images = make_images(2, 80, 112)
    cosines = model(images, mode="tensor")
    assert cosines.shape == (2, 5, 80, 112)
    dense = rfclip.encode_dense(model, images)
    assert dense.grid == (5, 7)
    grid = F.normalize(dense.patches, dim=-1) @ model.text_embeddings.T
    expected = F.interpolate(
        grid.transpose(1, 2).unflatten(-1, (5, 7)), (80, 112), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(cosines, expected)


def test_loss_says_that_it_is_training_free(build, make_images) -> None:
    with pytest.raises(NotImplementedError, match="training-free"):
        build()(make_images(1, 64, 64), [], mode="loss")


def test_no_seg_logits_if_not_kept(build, make_images) -> None:
    result = build(keep_seg_logits=False).predict(make_images(1, 64, 80))[0]
    assert "seg_logits" not in result.keys()  # noqa: SIM118 (mmengine looks for a field of another name)
    assert result.pred_sem_seg.data.shape == (1, 64, 80)


def test_text_embeddings_and_dataset_meta(build) -> None:
    model = build()
    text = model.text_embeddings
    assert text.shape == (5, 32)
    assert text.dtype == torch.float32
    assert not text.requires_grad
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(5))
    model.dataset_meta = {"classes": ("road",), "palette": [[1, 2, 3]]}
    assert set(model.dataset_meta) == {"classes", "palette"}
    assert tuple(model.dataset_meta["classes"]) == ("background", "cat", "dog")
    assert len(model.dataset_meta["palette"]) == 3


def test_dicts_are_not_modified(clip_files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "cache"))
    config = {
        "type": "RFCLIP", "clip": clip_files, "vocabulary": WORDS, "templates": ["a {}."],
        "method": {"type": "RefocusCLIP", "distraction_dims": [5], "calibration_images": None},
        "prior": dict(PRIOR), "refiner": {"type": "PAMR"}, "test_cfg": dict(SLIDE),
        "pretrained": None, "train_cfg": None, "init_cfg": None,
    }  # fmt: skip
    before = copy.deepcopy(config)
    MODELS.build(config)
    assert config == before


@pytest.mark.parametrize(
    "changes",
    [
        {"prior": {**PRIOR, "weight": 1}},
        {"test_cfg": {"mode": "whole", "crop": 3}},
        {"method": {"type": "RefocusCLIP", "gamma": 1}},
        {"refiner": {"type": "PAMR", "iterations": 1}},
    ],
)
def test_unknown_keys_are_errors(build, changes) -> None:
    with pytest.raises(TypeError, match=r"unknown entry '(weight|crop|gamma|iterations)'.*it takes "):
        build(**changes)


def test_unknown_clip_key_is_an_error(clip_files) -> None:
    with pytest.raises(TypeError, match="checkpoint"):
        MODELS.build({"type": "RFCLIP", "clip": {**clip_files, "checkpoint": "x"}, "vocabulary": WORDS})


def test_threshold_without_background_is_refused(build) -> None:
    with pytest.raises(ValueError, match="background_index"):
        build(prob_thd=0.1)
    with pytest.raises(ValueError, match="no background class"):
        build(vocabulary="voc20", prob_thd=0.1, background_index=0)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_inside_the_segmentor(build, make_images, name: str) -> None:
    method = {"type": name}
    if name.startswith("Refocus"):
        method["distraction_dims"] = [5, 23]
    result = build(method=method, prior=PRIOR, test_cfg=SLIDE).predict(make_images(1, 70, 90))[0]
    assert result.seg_logits.data.isfinite().all()


def test_bfloat16_is_close_to_fp32(build, clip_files, make_images) -> None:
    images = make_images(1, 80, 112)
    exact = build()(images, mode="tensor")
    rough = build(clip={**clip_files, "precision": "bf16"})(images, mode="tensor")
    assert rough.dtype == torch.float32
    assert 0 < (exact - rough).abs().max() < 0.1


def test_a_call_leaves_nothing_behind(build, make_images) -> None:
    model = build(prior=PRIOR, test_cfg=SLIDE)
    before = set(vars(model)) | set(vars(model.clip.visual))
    first = model.predict(make_images(1, 80, 112))[0].seg_logits.data
    model.predict(make_images(2, 64, 96, seed=3))
    again = model.predict(make_images(1, 80, 112))[0].seg_logits.data
    assert torch.equal(first, again)
    assert set(vars(model)) | set(vars(model.clip.visual)) == before


def project_config(clip_files: dict[str, Any]) -> Config:
    """A config of somebody else's mmseg project: five lines of ours, and what mmseg's own tools want."""
    load = [{"type": "LoadImageFromFile"}, {"type": "Resize", "scale": (2048, 96), "keep_ratio": True},
            {"type": "PackSegInputs"}]  # fmt: skip
    return Config(
        {
            "default_scope": "mmseg",
            "custom_imports": {"imports": ["rfclip"], "allow_failed_imports": False},
            "model": {
                "type": "RFCLIP", "clip": clip_files, "vocabulary": WORDS, "templates": ["a {}."],
                "method": {"type": "RefocusCLIP", "distraction_dims": [5, 23]},
            },
            "test_pipeline": load,
            "test_dataloader": {"dataset": {"pipeline": load}},
            "visualizer": {"type": "SegLocalVisualizer", "vis_backends": [], "name": "test"},
        }
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:Failed to add:UserWarning")  # mmengine's visualizer has no folder to save in
def test_mmseg_apis(clip_files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "cache"))
    model = init_model(project_config(clip_files), device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
    result = inference_model(model, image)
    assert result.pred_sem_seg.data.shape == (1, 50, 80)
    shown = show_result_pyplot(model, image, result, show=False, with_labels=False)
    assert shown.shape == (50, 80, 3)
    assert len(inference_model(model, [image, image[:, :40]])) == 2


@pytest.mark.filterwarnings("ignore:Failed to add:UserWarning")
@pytest.mark.filterwarnings("ignore:Checkpoint is not loaded:UserWarning")  # mmseg knows no other way in
@pytest.mark.filterwarnings("ignore:weights is None:UserWarning")
def test_inferencer(clip_files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "cache"))
    config = tmp_path / "project.py"
    project_config(clip_files).dump(config)
    lines: list[str] = []
    monkeypatch.setattr(segmentor, "print_log", lambda message, *_: lines.append(message))
    inferencer = MMSegInferencer(str(config), device="cpu")
    assert lines == [
        "RFCLIP keeps the 3 classes of its vocabulary and the weights of `clip`: what mmseg's inferencer warns of "
        "(a randomly initialised model, classes of Cityscapes) is not so."
    ]
    assert tuple(inferencer.model.dataset_meta["classes"]) == ("background", "cat", "dog")
    image = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
    out = inferencer(image, return_datasamples=False, show=False)
    assert np.asarray(out["predictions"]).shape == (50, 80)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"method": {"type": "RefocusCLIP", "layers": [0, 3]}}, ValueError, r"layers \[3\] do not exist"),
        (
            {"method": {"type": "RefocusCLIP", "distraction_dims": [128]}},
            ValueError,
            "do not exist in embeddings of width",
        ),
        ({"method": {"type": "MeanKK", "calibration_images": "x"}}, ValueError, "would not be looked at"),
        (
            {"method": {"type": "RefocusCLIP", "distraction_dims": [1], "calibration_images": "x"}},
            ValueError,
            "would not be looked at",
        ),
        ({"method": {"type": "Refocus"}}, ValueError, "method.type 'Refocus' is not registered .* RefocusCLIP, "),
        ({"method": {"beta": 0.5}}, ValueError, "method.type None is not registered"),
        ({"method": {"type": "PAMR"}}, TypeError, "method.type .PAMR. is no method"),
        (
            {"refiner": {"type": "MeanKK"}},
            TypeError,
            "refiner.type .MeanKK. is no refiner, which defines prepare; there are PAMR, TextLaplacian",
        ),
        (
            {"refiner": {"type": "CRF"}},
            ValueError,
            "refiner.type 'CRF' is not registered; there are PAMR, TextLaplacian",
        ),
        ({"data_preprocessor": {"type": "PaddingPreProcessor", "size_divisor": 32}}, TypeError, "size_divisor"),
    ],
)
def test_settings_that_nothing_would_use_are_refused_at_once(
    clip_files: dict[str, str], settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        MODELS.build({"type": "RFCLIP", "clip": clip_files, "vocabulary": ["cat", "dog"], **settings})


def test_inputs_that_want_a_gradient_are_predicted_as_others(clip_files: dict[str, str]) -> None:
    settings = {"type": "RFCLIP", "clip": clip_files, "vocabulary": ["cat", "dog"], "refiner": {"type": "PAMR"}}
    model, images = MODELS.build(settings), torch.randn(2, 3, 64, 80)
    wanted = [sample.pred_sem_seg.data for sample in model.predict(images)]
    found = [sample.pred_sem_seg.data for sample in model.predict(images.requires_grad_())]
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


def test_loading_a_checkpoint_into_it_is_refused(clip_files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "cache"))
    checkpoint = tmp_path / "weights.pth"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": {}}, checkpoint)
    with pytest.raises(RuntimeError, match=r"clip\.pretrained only"):
        init_model(project_config(clip_files), str(checkpoint), device="cpu")
