"""SC-CLIP, SFP and PEARL against their rendering as loops, and what holds for all three."""

import numpy as np
import pytest
import torch

from rfclip.methods import METHODS, PEARL, SCCLIP, SFP, DenseOutput
from rfclip.methods.pearl import polar_factor
from rfclip.methods.sc_clip import anomalous
from rfclip.methods.similar import contrasted, repair, spread
from tests.support import family_loops as loops
from tests.support.kept import Kept
from tests.support.loops import Tower

LAYERS = {"pre_layer": 2, "post_layer": 1, "fusion_layers": (1, 2)}
SC = {"class_weight": 0.3, "similarity_threshold": 0.4, "lof_neighbors": 6, "contamination": 0.1, "contrast": 3.0}
SF = {"class_weight": 0.3, "salience": 9.0, "max_tokens": 4, "similarity_threshold": 0.4, "contrast": 3.0}
CASES = {
    "SCCLIP": (SCCLIP(**LAYERS, **SC), lambda t, i: loops.sc_clip(t, i, 2, 1, (1, 2), SC)),
    "SFP v1": (SFP("v1", **LAYERS, **SF), lambda t, i: loops.sfp(t, i, "v1", 2, 1, (1, 2), SF)),
    "SFP v2": (SFP("v2", **LAYERS, **SF), lambda t, i: loops.sfp(t, i, "v2", 2, 1, (1, 2), SF)),
    "PEARL": (PEARL(alpha=0.3), lambda t, i: loops.pearl(t, i, 0.3, 5)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [(80, 112), (112, 64), (48, 100)])
def test_equals_loops(planted, make_images, name, size):
    method, rendering = CASES[name]
    images = make_images(2, *size, seed=1)
    output = method(planted.vit.double(), images.double())
    for i, image in enumerate(images):
        wanted = rendering(Tower(planted.vit), image.double().numpy())
        error = np.abs(output.patches[i].numpy() - wanted).max() / np.abs(wanted).max()
        assert error < 1e-5, error  # distances and cosines are taken in fp32 at least


@pytest.mark.parametrize("name", CASES)
def test_images_of_a_batch_do_not_know_each_other(planted, make_images, name):
    method, images = CASES[name][0], make_images(3, 80, 112, seed=4)
    together, record = method(planted.vit, images), Kept()
    assert isinstance(together, DenseOutput)
    assert together.grid == (5, 7) and together.patches.shape == (3, 35, 32)
    for i in range(3):
        torch.testing.assert_close(together.patches[i], method(planted.vit, images[i : i + 1]).patches[0])
    torch.testing.assert_close(together.image, planted.vit(images), rtol=1e-4, atol=1e-5)
    assert torch.equal(method(planted.vit, images, record=record).patches, together.patches)
    assert {layer for what, layer in record.seen if what == "residual"} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("name", CASES)
def test_half_precision_stays_near(planted, make_images, name):
    method, images = CASES[name][0], make_images(1, 80, 112)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = method(planted.vit, images).patches.float()
    assert torch.cosine_similarity(rounded, method(planted.vit, images).patches, dim=-1).mean() > 0.97


@pytest.mark.parametrize("size", [(16, 16), (16, 48), (32, 16)])
@pytest.mark.parametrize("name", CASES)
def test_few_patches(planted, make_images, name, size):
    assert CASES[name][0](planted.vit, make_images(1, *size)).patches.isfinite().all()


@pytest.mark.parametrize("name", ["SCCLIP", "SFP"])
def test_layers_that_the_tower_has_not_are_one_sentence(planted, make_images, name):
    with pytest.raises(ValueError, match=r"layers \[3.* are no outputs of blocks before the last: this tower has 4"):
        METHODS.build({"type": name})(planted.vit, make_images(1, 80, 112))


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"type": "SCCLIP", "contamination": 1.5}, "contamination must be a number in 0..1"),
        ({"type": "SCCLIP", "fusion_layers": ()}, "fusion_layers must name at least one, counted from 0, got none"),
        ({"type": "SFP", "fusion_layers": []}, "fusion_layers must name at least one, counted from 0, got none"),
        ({"type": "SCCLIP", "fusion_layers": "all"}, "fusion_layers must be a list of integers"),
        ({"type": "SFP", "version": "v3"}, "version must be one of 'v1', 'v2'"),
        ({"type": "SFP", "max_tokens": 2.5}, "max_tokens must be a whole number"),
        ({"type": "PEARL", "alpha": -1}, "alpha must be a number, at least 0"),
        ({"type": "PEARL", "polar_steps": True}, "polar_steps must be a whole number"),
    ],
)
def test_wrong_settings_are_one_sentence(block, says):
    with pytest.raises(ValueError, match=says):
        METHODS.build(block)


def test_repair_of_a_corner_without_sound_neighbours():
    patches = torch.arange(12.0).view(1, 6, 2)  # a grid of 2 x 3
    damaged = torch.tensor([[True, True, False, True, True, False]])
    kept, zeroed = repair(patches, damaged, (2, 3)), repair(patches, damaged, (2, 3), "zero")
    assert torch.equal(kept[0, 0], patches[0, 0]) and torch.equal(zeroed[0, 0], torch.zeros(2))
    assert torch.equal(kept[0, 1], (patches[0, 2] + patches[0, 5]) / 2)
    assert torch.equal(kept[0, 2], patches[0, 2])


@pytest.mark.parametrize("count", [2, 9, 16, 18, 21])
def test_the_two_farthest_tokens_tie_where_all_others_are_neighbours(count):
    tokens = torch.randn(200, count, 128, generator=torch.Generator().manual_seed(0)) + 2
    assert not anomalous(tokens, 30, 0.05).any()


def test_equal_tokens_have_a_mask_attention():
    similarity = torch.ones(2, 4, 4)
    similarity.diagonal(dim1=1, dim2=2).sub_(1e-7)  # as rounding leaves it
    assert torch.equal(contrasted(similarity, 3.0).sum(-1), torch.ones(2, 4))


def test_pieces_equal_loops():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 12, 5, generator=generator, dtype=torch.float64)
    similarity = torch.rand(2, 12, 12, generator=generator, dtype=torch.float64)
    for i in range(2):
        found = anomalous(tokens, 4, 0.2)[i].tolist()
        assert found == loops.anomalous(tokens[i].numpy(), 4, 0.2) and any(found)
        wanted = loops.spread(similarity[i].numpy(), tokens[i].numpy(), 0.3)
        np.testing.assert_allclose(spread(similarity, tokens, 0.3)[i], wanted)
        wanted = loops.contrasted(similarity[i].numpy(), 2.0)
        np.testing.assert_allclose(contrasted(similarity, 2.0)[i], wanted)
        wanted = loops.polar(tokens[i, :5].numpy(), 5)
        np.testing.assert_allclose(polar_factor(tokens[i, :5], 5), wanted, atol=1e-12)


def test_many_polar_steps_give_an_orthogonal_matrix():
    matrix = torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    factor = polar_factor(matrix, 60)
    torch.testing.assert_close(factor @ factor.T, torch.eye(6, dtype=torch.float64), atol=1e-3, rtol=0)
