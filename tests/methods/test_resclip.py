"""ResCLIP against its rendering as loops, and how the engine hands it the words."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rfclip.methods import METHODS, ResCLIP
from rfclip.methods.feedback import semantic_feedback, window_labels
from rfclip.methods.needs import Given
from tests.support import family_loops as loops
from tests.support.kept import Kept
from tests.support.loops import Tower

SETTINGS = {
    "rcs_layers": (1, 2),
    "rcs_scale": 2.0,
    "rcs_weight": 0.4,
    "sfr_scale": 2.1,
    "sfr_weight": 0.6,
    "gaussian_std": 3.0,
}


def given(queries=5, seed=0, scale=40.0, dtype=torch.float32):
    text = torch.randn(queries, 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Given(F.normalize(text, dim=-1).to(dtype), scale)


@pytest.mark.parametrize("rcs", [True, False])
@pytest.mark.parametrize("base", ["naclip", "sclip", "clearclip", "vanilla"])
def test_the_first_pass_equals_loops(planted, make_images, base, rcs):
    images = make_images(2, 80, 112, seed=2)
    method = ResCLIP(base, rcs=rcs, sfr=False, **SETTINGS)
    output = method(planted.vit, images, given=given())
    for i, image in enumerate(images):
        wanted = loops.resclip(Tower(planted.vit), image.double().numpy(), None, (5, 7), base, {**SETTINGS, "rcs": rcs})
        assert np.abs(output.patches[i].numpy() - wanted).max() < 2e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("base", ["naclip", "sclip", "clearclip", "vanilla"])
def test_the_second_pass_equals_loops(planted, make_images, base):
    images, words = make_images(2, 112, 64, seed=3).double(), given(seed=1)
    planted.vit.double()
    method = ResCLIP(base, label_threshold=0.25, **SETTINGS)
    first = dataclasses.replace(method, sfr=False)(planted.vit, images, given=words)
    labels = window_labels(first.patches, images, first.grid, 16, words, 0.25)
    assert len(labels.unique()) > 1
    output = method(planted.vit, images, given=words)
    for i, image in enumerate(images):
        settings = {**SETTINGS, "rcs": True}
        wanted = loops.resclip(Tower(planted.vit), image.double().numpy(), labels[i].tolist(), (7, 4), base, settings)
        assert np.abs(output.patches[i].numpy() - wanted).max() < 2e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("grid", [(3, 5), (6, 4), (1, 7), (1, 1)])
def test_feedback_equals_loops(grid):
    labels = torch.randint(0, 3, (2, grid[0] * grid[1]), generator=torch.Generator().manual_seed(5))
    found = semantic_feedback(labels, grid, 2.0)
    for i in range(2):
        np.testing.assert_allclose(found[i], loops.feedback(labels[i].tolist(), grid, 2.0), rtol=1e-4, atol=1e-6)


def test_patch_labels_are_the_most_frequent_ones():
    """Without refinement's reach: a flat image, whose refined maps are those that were resized."""
    patches = torch.eye(4)[None]  # a grid of 2 x 2, each patch like one of four words
    labels = window_labels(patches, torch.zeros(1, 3, 32, 32), (2, 2), 16, Given(torch.eye(4), 100.0), 0.0)
    assert labels.tolist() == [[0, 1, 2, 3]]
    unsure = window_labels(patches, torch.zeros(1, 3, 32, 32), (2, 2), 16, Given(torch.eye(4), 1e-3), 0.5)
    assert unsure.tolist() == [[0, 0, 0, 0]]
    cut = window_labels(patches, torch.zeros(1, 3, 35, 39), (2, 2), 16, Given(torch.eye(4), 100.0), 0.0)
    assert cut.tolist() == [[0, 1, 2, 3]]


def test_images_of_a_batch_do_not_know_each_other(planted, make_images):
    method, images, words, record = ResCLIP(**SETTINGS), make_images(2, 80, 112), given(), Kept()
    together = method(planted.vit, images, record, given=words)
    for i in range(2):
        alone = method(planted.vit, images[i : i + 1], given=words)
        torch.testing.assert_close(together.patches[i], alone.patches[0], rtol=1e-4, atol=1e-5)
    assert record.seen["attn_dense", None].shape == (2, 4, 36, 36)
    torch.testing.assert_close(together.image, planted.vit(images), rtol=1e-4, atol=1e-5)


def test_it_says_that_it_needs_the_words(planted, make_images):
    with pytest.raises(ValueError, match="ResCLIP looks at the words while it encodes"):
        ResCLIP(**SETTINGS)(planted.vit, make_images(1, 80, 112))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"base": "best"}, "base must be one of 'naclip', 'sclip', 'clearclip', 'vanilla'"),
        ({"rcs": "no"}, "rcs must be True or False"),
        ({"rcs_layers": ()}, "rcs_layers must name a block while rcs is on"),
        ({"label_threshold": 2}, "label_threshold must be a number in 0..1"),
    ],
)
def test_wrong_settings_are_one_sentence(settings, says):
    with pytest.raises(ValueError, match=says):
        METHODS.build({"type": "ResCLIP", **settings})


def test_layers_that_the_tower_has_not(planted, make_images):
    with pytest.raises(ValueError, match=r"layers \[5, 6, 7, 8\] are no outputs of blocks before the last"):
        ResCLIP()(planted.vit, make_images(1, 80, 112), given=given())


def test_both_faces_hand_over_the_words(clip_files, tmp_path, monkeypatch):
    from mmseg.registry import MODELS

    from rfclip import OpenVocabSegmenter, encode_dense
    from rfclip.explain import examine

    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "cache"))
    block = {"type": "ResCLIP", "rcs_layers": [0, 1], "label_threshold": 0.1}
    picture = np.random.default_rng(0).integers(0, 255, (70, 100, 3), np.uint8)
    seen = []
    call = ResCLIP.__call__
    monkeypatch.setattr(
        ResCLIP, "__call__", lambda self, *a, given=None: seen.append(given) or call(self, *a, given=given)
    )
    segmenter = OpenVocabSegmenter(**clip_files, device="cpu", templates=["a {}."], method=block, short_side=64)
    out = segmenter(picture, ["cat", ["dog", "hound"], "sky"])
    assert out.labels.shape == (70, 100) and seen[0].text.shape == (3 + 1, 32) and seen[0].logit_scale == 40
    assert examine(segmenter, picture, ["cat", "sky"]).labels.shape == (70, 100)
    model = MODELS.build({"type": "RFCLIP", "clip": clip_files, "vocabulary": ["cat", "sky"], "method": block})
    assert encode_dense(model, torch.randn(1, 3, 64, 80)).grid == (4, 5)
    assert all(words is not None for words in seen if words is not None) and seen[-1].text.shape == (2, 32)
