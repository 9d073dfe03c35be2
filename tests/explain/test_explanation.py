"""The arrays of an explanation, against the segmenter and against the method's own functions."""

import dataclasses

import numpy as np
import pytest
import torch

from rfclip.explain import examine
from rfclip.explain.figures import PLOTS, busiest_layer, draw, likeliest_classes
from rfclip.explain.report import facts_of
from rfclip.io.images import resize_short_side
from rfclip.pipeline.windows import Windows
from rfclip.segment.api import OpenVocabSegmenter
from tests.support.vision import dino_state


def test_shapes(explanation):
    e, layers, count = explanation, 3, 4 * 6
    assert e.grid == (4, 6) and e.layers == (0, 1, 2)
    assert e.before.shape == e.after.shape == (layers, count, count)
    assert e.ratio.shape == (layers + 1, count)
    assert e.distractors.shape == e.defocus.shape == (layers, count)
    assert e.similarity.shape == (3, 4, 6)
    assert e.labels.shape == e.without.shape == (100, 150)
    assert e.seen.shape == (64, 96, 3)
    assert e.point == (0, 5)
    assert e.methods == ("MeanKK", "RefocusCLIP")


def test_labels_are_those_of_the_segmenter(segmenter, photo, explanation, classes):
    settings = dataclasses.replace(segmenter.settings, windows=Windows("whole"))
    segmenter.engine = dataclasses.replace(segmenter.engine, settings=settings)
    assert (segmenter(photo, classes).labels == explanation.labels).all()


def test_distractors_are_above_the_threshold_and_keep_one_minus_beta(explanation):
    e = explanation
    assert e.distractors.any()
    assert (e.distractors == (e.ratio[:-1] > 1)).all()
    given, kept = e.received()
    np.testing.assert_allclose(kept[e.distractors], 0.3 * given[e.distractors], rtol=1e-4)
    before, after = e.on_distractors()
    np.testing.assert_allclose(after, 0.3 * before, rtol=1e-4)
    np.testing.assert_allclose(e.before.sum(-1), e.after.sum(-1), rtol=1e-4)
    assert not (e.defocus & e.distractors).any()


def test_the_similarity_of_a_class_is_that_of_its_best_name(segmenter, photo, classes):
    both = examine(segmenter, photo, classes).similarity
    single = examine(segmenter, photo, ["sky", "temple", "pagoda"]).similarity
    np.testing.assert_allclose(both[1], single[1:].max(0), atol=1e-6)


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_patches_that_are_not_whole_are_not_shown(segmenter, photo, fit, classes):
    settings = dataclasses.replace(segmenter.settings, windows=Windows("whole"), patch_fit=fit)
    segmenter.engine = dataclasses.replace(segmenter.engine, settings=settings)
    e = examine(segmenter, photo[:, :135], classes, point=(134, 99))  # 64 x 86 pixels for the network
    assert e.grid == (4, 5) and e.seen.shape == (64, 80, 3)
    assert e.point == (3, 4)
    assert e.before.shape == (3, 20, 20) and e.similarity.shape == (3, 4, 5)
    assert (segmenter(photo[:, :135], classes).labels == e.labels).all()
    assert e.padding == ("without the last column, which padding fills in part" if fit == "pad" else "")
    assert e.padding in facts_of(segmenter, e)["Picture"]


@pytest.mark.parametrize("turned", [False, True])
def test_distraction_that_padding_made_is_not_the_pictures(segmenter, photo, turned, classes):
    picture = photo[:, :135].swapaxes(0, 1) if turned else photo[:, :135]
    e = examine(segmenter, picture, classes)
    resized = resize_short_side(picture, 64)
    sides = [-(-side // 16) for side in resized.shape[:2]]
    padded = np.pad(
        resized, [(0, 16 * there - side) for there, side in zip(sides, resized.shape, strict=False)] + [(0, 0)], "edge"
    )
    whole = examine(segmenter, padded, classes)  # the same for the network, as if the picture had it all
    inside = np.zeros(sides, bool)
    inside[: e.grid[0], : e.grid[1]] = True
    inside = inside.ravel()
    assert whole.grid == tuple(sides) and inside.sum() == np.prod(e.grid) == inside.size - 4
    np.testing.assert_allclose(e.before, whole.before[:, inside][:, :, inside], atol=1e-6)
    np.testing.assert_array_equal(e.distractors, whole.distractors[:, inside])
    np.testing.assert_allclose(e.ratio, whole.ratio[:, inside], rtol=1e-4)


def test_a_picture_slimmer_than_a_patch_is_said_to_be(segmenter, photo, classes, monkeypatch):
    monkeypatch.setattr("rfclip.io.images.LONG_SIDE", 150)
    e = examine(segmenter, photo[:5], classes)
    assert e.grid == (1, 9)
    assert e.padding.startswith("the picture, 150 x 5 pixels for the network, is slimmer than a patch")
    assert set(draw(e)) == set(PLOTS) - {"vision"}


@pytest.mark.parametrize("name", ["VanillaCLIP", "SCLIP", "RefocusCLIPRelease"])
def test_every_method_can_be_explained(clip_files, segmenter, photo, name, classes, monkeypatch):
    monkeypatch.setattr("rfclip.methods.distraction.SCENES", 4)
    other = OpenVocabSegmenter(**clip_files, device="cpu", templates=["a {}."], method={"type": name}, short_side=64)
    e = examine(other, photo, classes, baseline={"type": "ClearCLIP"})
    assert e.methods == ("ClearCLIP", name)
    assert e.defocus is None and e.after is None
    assert e.distractors.any()  # the planted channels, found by calibration where the method has none
    assert "partition" not in draw(e)


@pytest.mark.parametrize("kind", ["ProxyCLIP", "CASS"])
def test_what_the_vision_model_sees_is_a_figure(clip_files, photo, kind, classes, tmp_path, monkeypatch):
    monkeypatch.setattr("rfclip.methods.distraction.SCENES", 4)
    torch.save(dino_state(width=128, heads=2), tmp_path / "dino.pth")
    method = {"type": kind, "vfm": {"type": "DINO", "pretrained": str(tmp_path / "dino.pth")}}
    other = OpenVocabSegmenter(**clip_files, device="cpu", templates=["a {}."], method=method, short_side=64)
    e = examine(other, photo, classes)
    assert e.vision.shape == (e.grid[0] * e.grid[1],) * 2 and (np.abs(e.vision) <= 1 + 1e-5).all()
    np.testing.assert_allclose(e.vision, e.vision.T, atol=1e-5)
    assert e.vision.diagonal().mean() > e.vision.mean()
    assert "vision" in draw(e) and "vision" not in draw(dataclasses.replace(e, vision=None))
    with pytest.raises(ValueError, match=f"{kind} shows no similarities of a vision model"):
        PLOTS["vision"].draw(dataclasses.replace(e, vision=None))


def test_layers_can_be_chosen(segmenter, photo, explanation, classes):
    e = examine(segmenter, photo, classes, layers=[2, 0])
    assert e.layers == (0, 2)
    assert torch.equal(torch.from_numpy(e.before), torch.from_numpy(explanation.before[[0, 2]]))
    np.testing.assert_array_equal(e.ratio, explanation.ratio[[0, 2, 3]])


def test_a_large_picture_is_seen_smaller(segmenter, photo, monkeypatch, classes):
    monkeypatch.setattr("rfclip.explain.explanation.MOST_PATCHES", 12)
    assert np.prod(examine(segmenter, photo, classes).grid) <= 15


@pytest.mark.parametrize("point", [(150, 0), (0, 100), (-1, 5), (float("nan"), 1)])
def test_points_outside(segmenter, photo, point, classes):
    with pytest.raises(ValueError, match=r"is not in the picture: x is in 0\.\.149, y in 0\.\.99"):
        examine(segmenter, photo, classes, point=point)


@pytest.mark.parametrize("layers", [[3], [], [-1], ["a"]])
def test_layers_that_do_not_exist(segmenter, photo, layers, classes):
    with pytest.raises(ValueError, match="layers"):
        examine(segmenter, photo, classes, layers=layers)


def test_choice_of_what_is_shown(explanation):
    assert busiest_layer(explanation) == int(np.argmax(explanation.on_distractors()[0]))
    best = explanation.similarity.reshape(3, -1).max(1)
    assert likeliest_classes(explanation, 2) == sorted(np.argsort(-best)[:2])


def test_unknown_plots(explanation):
    with pytest.raises(ValueError, match=f"no plot 'stripe'; there are {', '.join(PLOTS)}"):
        draw(explanation, ["stripe"])


def test_a_picture_of_one_patch(segmenter, photo, classes):
    segmenter.short_side = 16
    e = examine(segmenter, photo[:20, :20], classes)
    assert e.grid == (1, 1) and e.before.shape == (3, 1, 1) and e.labels.shape == (20, 20)
    assert set(draw(e)) == set(PLOTS) - {"vision"}
