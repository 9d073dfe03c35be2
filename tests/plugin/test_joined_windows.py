"""Segmentors whose method looks at all windows of an image at once."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample

import rfclip
from rfclip import OpenVocabSegmenter
from rfclip.analysis.audit import Labelled, audit
from rfclip.explain import examine
from rfclip.explain.explanation import regridded
from rfclip.pipeline.engine import DenseEngine
from rfclip.pipeline.windows import Windows
from rfclip.words.vocabulary import load_vocabulary
from tests.support.vision import dino_state, pictures

SLIDE = {"mode": "slide", "crop_size": 64, "stride": 32}
METHODS = {"gla": ("GLACLIP", 8, {}), "lposs": ("LPOSS", 16, {}), "lposs+": ("LPOSS", 16, {"plus": True, "reach": 2})}


@pytest.fixture
def block(tmp_path):
    def of(name):
        kind, patch, more = METHODS[name]
        torch.save(dino_state(patch=patch), tmp_path / f"dino{patch}.pth")
        vfm = {"type": "DINO", "pretrained": str(tmp_path / f"dino{patch}.pth"), "heads": 3}
        return {"type": kind, "vfm": vfm, **more}

    return of


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("size", [(80, 112), (40, 100), (48, 48)])  # the last two are smaller than a window
def test_batches_are_their_images_whatever_window_batch_is(build, block, name, size):
    images = pictures(2, *size)
    one, eight = (build(method=block(name), test_cfg={**SLIDE, "window_batch": batch}) for batch in (1, 8))
    found = one(images, mode="tensor")
    assert found.shape == (2, len(one.text_embeddings), *size) and found.isfinite().all()
    atol = 2e-3 * found.abs().max() if name == "lposs+" else 1e-4 * found.abs().max()  # its tau amplifies rounding
    torch.testing.assert_close(found, eight(images, mode="tensor"), rtol=0, atol=float(atol))
    for i in range(2):
        torch.testing.assert_close(found[i : i + 1], one(images[i : i + 1], mode="tensor"), rtol=0, atol=float(atol))


@pytest.mark.parametrize("fit", ["crop", "pad_black"])
def test_scores_of_a_whole_image_go_straight_to_the_original_size(build, block, fit):
    image = pictures(1, 70, 90)
    model = build(method=block("lposs"), patch_fit=fit)
    scores = model.encode(fitted(model, image, fit)).scores
    assert scores.shape[-2:] == ((4, 5) if fit == "crop" else (5, 6))
    (result,) = model.predict(image, [SegDataSample(metainfo={"ori_shape": (131, 101)})])
    assert torch.equal(rfclip.encode_dense(model, image).patches, model.encode(fitted(model, image, fit)).patches)
    index = query_class(model)  # the best name of each class is found before anything is resized
    classes = torch.stack([scores[0, index == each].amax(0) for each in range(int(index.max()) + 1)])
    large = F.interpolate(classes[None], (131, 101), mode="bilinear", align_corners=False)[0]
    assert torch.equal(result.pred_sem_seg.data[0], large.argmax(0))
    tensor = model(image, mode="tensor")
    torch.testing.assert_close(tensor, F.interpolate(scores, (70, 90), mode="bilinear", align_corners=False))


def fitted(model, image, fit):
    if fit == "crop":
        return image
    padded = torch.tensor(model.engine.black).view(1, 3, 1, 1).repeat(1, 1, 80, 96)
    padded[..., :70, :90] = image
    return padded


def query_class(model):
    return torch.tensor(model.vocabulary.query_class)


@pytest.mark.parametrize("name", METHODS)
def test_flipped_views_come_back_upright(build, block, name):
    image = pictures(1, 80, 112)
    for test_cfg in (SLIDE, {"mode": "whole"}):
        model = build(method=block(name), test_cfg=test_cfg)
        upright = model.predict(image)[0].pred_sem_seg.data
        flipped = SegDataSample(metainfo={"ori_shape": (80, 112), "flip": True, "flip_direction": "horizontal"})
        assert torch.equal(model.predict(image, [flipped])[0].pred_sem_seg.data, upright.flip(-1))


def test_equal_names_tie_exactly(build, block):
    model = build(method=block("lposs"), vocabulary=["cat", "dog", "Cat", "dog", "cat"], test_cfg=SLIDE)
    scores = model(pictures(1, 80, 112), mode="tensor")[0]
    assert torch.equal(scores[0], scores[2]) and torch.equal(scores[0], scores[4]) and torch.equal(scores[1], scores[3])
    plus = build(method=block("lposs+"), vocabulary=["cat", "dog", "Cat", "dog", "cat"], test_cfg=SLIDE)
    scores = plus(pictures(1, 80, 112), mode="tensor")[0]
    assert torch.equal(scores[0], scores[2]) and torch.equal(scores[1], scores[3])


def test_the_prior_stands_beside_gla_and_is_refused_beside_lposs(build, block):
    prior = {"image_weight": 0.5, "mean_vector_weight": 0.03, "cluster_threshold": 0.1}
    image = pictures(1, 80, 112)
    plain, primed = (build(method=block("gla"), prior=chosen, test_cfg=SLIDE) for chosen in (None, prior))
    assert (plain(image, mode="tensor") - primed(image, mode="tensor")).abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"LPOSS gives scores of its own.*set prior=None"):
        build(method=block("lposs"), prior=prior)


@pytest.mark.parametrize("name", METHODS)
def test_dense_embeddings_can_be_had(build, block, name):
    model = build(method=block(name))
    dense = rfclip.encode_dense(model, pictures(2, 64, 96))
    assert dense.grid == ((8, 12) if name == "gla" else (4, 6))
    assert model.extract_feat(pictures(2, 64, 96)).shape[-2:] == dense.grid
    assert model.state_dict() == {}


@pytest.mark.parametrize("name", METHODS)
def test_audit_encodes_a_picture_once_where_the_words_have_no_part_in_it(build, block, name, monkeypatch):
    model = build(method=block(name), test_cfg=SLIDE)
    kind, joined, calls = type(model.method), type(model.method).joined, []
    monkeypatch.setattr(kind, "joined", lambda *a, **k: calls.append(1) or joined(*a, **k))
    picture = Labelled("a", pictures(1, 80, 112), torch.zeros(80, 112, dtype=torch.int64))
    words, other = load_vocabulary([["cat", "kitten"], ["dog"]]), load_vocabulary([["horse"], ["dog"]])
    found = audit(model.engine, [picture], {"words": words, "other": other})
    assert found.won.sum() == 80 * 112 and len(calls) == (1 if name == "gla" else 4)
    alone = audit(model.engine, [picture], {"other": other}, leave_out=False)
    np.testing.assert_allclose(found.iou["other"], alone.iou["other"])


@pytest.mark.parametrize("name", METHODS)
def test_a_picture_is_explained_on_the_towers_grid(block, name):
    segmenter = OpenVocabSegmenter("tiny", None, "cpu", method=block(name), short_side=72, patch_fit="pad_black")
    picture = (torch.rand(9, 12, 3).repeat_interleave(8, 0).repeat_interleave(8, 1) * 255).byte().numpy()
    found = examine(segmenter, picture, ["sky", "tree"])
    assert found.grid == (4, 6) and found.similarity.shape == (2, 4, 6) and found.before.shape[1:] == (24, 24)
    assert np.isfinite(found.before).all() and found.padding
    whole = DenseEngine(segmenter.loaded, segmenter.method, found_settings(segmenter), segmenter.engine.templates)
    inputs, queries = segmenter.preprocess(picture), whole.queries(load_vocabulary(["sky", "tree"]))
    labels = whole.label_image(whole.cosine_maps(inputs, queries, on_grid=True)[0], inputs[0], (72, 96), queries).labels
    assert np.array_equal(found.labels, labels.numpy())


def found_settings(segmenter):
    return dataclasses.replace(segmenter.settings, windows=Windows("whole"))


def test_attention_is_brought_to_another_grid():
    attention = torch.rand(48, 48, generator=torch.Generator().manual_seed(0)).softmax(-1)
    there = regridded(attention, (6, 8), (3, 4))
    rows = [[(2 * y + a) * 8 + 2 * x + b for a in (0, 1) for b in (0, 1)] for y in range(3) for x in range(4)]
    wanted = torch.stack([torch.stack([attention[i][:, j].sum() / 4 for j in rows]) for i in rows])
    torch.testing.assert_close(there, wanted)
    torch.testing.assert_close(there.sum(-1), torch.ones(12))
