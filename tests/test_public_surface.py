"""The names that users rely on: they exist, and take what they took, with the same defaults.

What is listed may be added to, never taken away: a further argument needs a default.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS

import rfclip
from rfclip.methods import DenseOutput
from rfclip.pipeline.prior import Prior
from rfclip.pipeline.windows import Windows
from rfclip.refiners import PAMR, TextLaplacian

NEEDED = inspect.Parameter.empty
SHARED = dict(
    templates="imagenet80",
    prior=None,
    refiner=None,
    logit_scale=40.0,
    prob_thd=0.0,
    background_index=None,
    method=None,
    alias_aggregation="max",
    area_thd=None,
)

ARGUMENTS: dict[str, dict[str, Any]] = {
    "rfclip.plugin.segmentor.RFCLIP": dict(
        clip=NEEDED,
        vocabulary=NEEDED,
        **SHARED,
        patch_fit="crop",
        keep_seg_logits=True,
        test_cfg=None,
        pretrained=None,
        train_cfg=None,
        init_cfg=None,
    ),
    "rfclip.segment.api.OpenVocabSegmenter": dict(
        model="ViT-B-16", pretrained="openai", device=None, **SHARED, patch_fit="pad", short_side=336, test_cfg=None
    ),
    "rfclip.clip.loader.load_clip": dict(model=NEEDED, pretrained=None, precision="fp32", quick_gelu=None, origin=None),
    "rfclip.methods.RefocusCLIP": dict(distraction_dims="auto", tau=5.0, beta=0.7, layers="all"),
    "rfclip.methods.RefocusCLIPRelease": dict(distraction_dims="auto", tau=5.0, alpha=0.4, similarity_threshold=0.4),
    "rfclip.methods.VanillaCLIP": {},
    "rfclip.methods.MaskCLIP": {},
    "rfclip.methods.SCLIP": {},
    "rfclip.methods.ClearCLIP": {},
    "rfclip.methods.NACLIP": {},
    "rfclip.methods.MeanKK": {},
    "rfclip.config": dict(benchmark=NEEDED),
    "rfclip.encode_dense": dict(model=NEEDED, images=NEEDED),
    "rfclip.refocus.distraction_scores": dict(patches=NEEDED, dims=NEEDED),
    "rfclip.refocus.locate_distractors": dict(patches=NEEDED, dims=NEEDED, tau=NEEDED),
    "rfclip.refocus.locate_defocus": dict(attn_kk=NEEDED, distractors=NEEDED),
    "rfclip.refocus.redistribute_attention": dict(attn=NEEDED, distractors=NEEDED, defocus=NEEDED, beta=NEEDED),
    "rfclip.refocus.redistribute_embedding": dict(patches=NEEDED, distractors=NEEDED, dims=NEEDED, grid=NEEDED),
    "rfclip.normalized_cut.fiedler_vector": dict(affinity=NEEDED, solver="auto"),
}

BLOCKS: dict[type, dict[str, Any]] = {
    Windows: dict(mode="whole", crop_size=224, stride=112, window_batch=8, pad_multiple=None),
    Prior: dict(
        image_weight=NEEDED, mean_vector_weight=NEEDED, cluster_threshold=NEEDED, scope="image", linkage="complete"
    ),
    PAMR: dict(num_iter=10, dilations=(8, 16)),
    TextLaplacian: dict(
        grid=80, iterations=25, temperature=0.5, self_weight=10.0, edge_sharpness=5.0, confidence_floor=0.05
    ),
}

METHODS = [name.rpartition(".")[2] for name in ARGUMENTS if name.startswith("rfclip.methods.")]
BENCHMARKS = ["voc21", "voc20", "context60", "context59", "coco_object", "coco_stuff", "cityscapes", "ade20k"]


def found(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def assert_takes(taker: Callable[..., Any], listed: Mapping[str, Any]) -> None:
    parameters = inspect.signature(taker).parameters
    assert {name: parameters[name].default for name in listed if name in parameters} == dict(listed)
    further = [p for name, p in parameters.items() if name not in listed and p.kind is not p.VAR_KEYWORD]
    assert all(p.default is not NEEDED for p in further)


@pytest.mark.parametrize("path", ARGUMENTS)
def test_arguments(path: str) -> None:
    assert_takes(found(path), ARGUMENTS[path])


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
def test_entries_of_a_block(block: type) -> None:
    assert_takes(block, BLOCKS[block])


@pytest.mark.parametrize(
    ("path", "order"),
    [
        ("rfclip.segment.api.OpenVocabSegmenter", ["model", "pretrained", "device"]),
        ("rfclip.refocus.locate_distractors", ["patches", "dims", "tau"]),
        ("rfclip.refocus.redistribute_attention", ["attn", "distractors", "defocus", "beta"]),
        ("rfclip.refocus.redistribute_embedding", ["patches", "distractors", "dims", "grid"]),
    ],
)
def test_order_of_what_is_given_by_place(path: str, order: list[str]) -> None:
    assert list(inspect.signature(found(path)).parameters)[: len(order)] == order


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_in_the_registry_and_called_alike(name: str) -> None:
    method = MODELS.get(name)
    assert method is not None
    parameters = inspect.signature(method.__call__).parameters
    assert list(parameters)[1:4] == ["vit", "images", "record"]
    assert all(p.default is not NEEDED for p in list(parameters.values())[3:])


def test_names_of_the_package() -> None:
    expected = {"RFCLIP", "OpenVocabSegmenter", "Segmentation", "config", "encode_dense", "explain", "__version__"}
    assert expected <= set(rfclip.__all__)
    assert all(hasattr(rfclip, name) for name in expected)
    assert MODELS.get("RFCLIP") is rfclip.RFCLIP


def test_what_a_method_gives() -> None:
    assert {"patches", "image", "grid"} <= {field.name for field in fields(DenseOutput)}


def test_what_the_segmenter_gives() -> None:
    names = {*vars(rfclip.Segmentation), *getattr(rfclip.Segmentation, "__annotations__", {})}
    assert {"labels", "probs", "names", "overlay", "save"} <= names


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_configs_of_the_benchmarks(benchmark: str) -> None:
    model = rfclip.config(benchmark)
    assert {"type", "clip", "vocabulary", "method", "test_cfg"} <= set(model)
    assert (model["type"], model["keep_seg_logits"], model["method"]["distraction_dims"]) == ("RFCLIP", False, "auto")


def test_what_a_segmentor_shows(build: Callable[..., rfclip.RFCLIP], make_images: Callable[..., torch.Tensor]) -> None:
    model, images = build(), make_images(2, 64, 80)
    assert set(model.dataset_meta) == {"classes", "palette"}
    assert model.text_embeddings.dtype == torch.float32
    assert model.method.beta == 0.7
    assert model.clip.visual is not None
    assert model(images, mode="tensor").shape == (2, 5, 64, 80)
    sample = model.predict(images)[0]
    assert sample.pred_sem_seg.data.shape == (1, 64, 80)
    assert sample.seg_logits.data.shape == (3, 64, 80)
    dense = rfclip.encode_dense(model, images)
    assert (dense.patches.shape, dense.image.shape, dense.grid) == ((2, 20, 32), (2, 32), (4, 5))


def test_what_a_call_of_the_segmenter_gives() -> None:
    seg = rfclip.OpenVocabSegmenter(model="tiny", templates=["a {}."], method=dict(type="MeanKK"))
    out = seg(np.zeros((40, 50, 3), np.uint8), ["sky", ["temple", "pagoda"], "tree"])
    shown = SimpleNamespace(labels=out.labels.shape, probs=out.probs.shape, names=list(out.names))
    assert shown == SimpleNamespace(labels=(40, 50), probs=(3, 40, 50), names=["sky", "temple", "tree"])
