"""ProxyCLIP and CASS against their rendering as loops, and what methods with a vision model share."""

import copy
import dataclasses
import itertools
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rfclip.methods import CASS, METHODS, ProxyCLIP
from rfclip.methods.base import describe
from rfclip.methods.cass import eigen, low_rank, most_different, rescaled, spectral_distance, square
from rfclip.methods.similar import contrasted
from rfclip.methods.vision import on_grid
from tests.support import vision_loops as loops
from tests.support.kept import Kept
from tests.support.loops import Tower
from tests.support.vision import dino_state, pictures, sight

VFM = {"type": "DINO", "pretrained": "of a test.pth"}
FINE = {"width": 96, "heads": 3, "patch": 8}
PAIRED = {"width": 64, "heads": 4, "patch": 8}  # the heads of conftest's CLIP
CASES = {
    "ProxyCLIP": (ProxyCLIP(VFM), FINE),
    "ProxyCLIP on coarse patches": (ProxyCLIP(VFM, beta=1.05, gamma=5.0), {**FINE, "patch": 16}),
    "CASS": (CASS(VFM), PAIRED),
    "CASS unstretched": (CASS(VFM, 3.0, rank=4, spectrum_size=7, balance=2.0, stretch_spectrum=False), PAIRED),
}


def seeing(name, **changes):
    method, sizes = CASES[name]
    return dataclasses.replace(method, **changes).with_sight(sight(**sizes))


def rendering(method, tower, dino, image):
    if isinstance(method, ProxyCLIP):
        return loops.proxy_clip(tower, dino, image, method.beta, method.gamma)
    settings = (method.gaussian_std, method.rank, method.spectrum_size, method.balance, method.stretch_spectrum)
    return loops.cass(tower, dino, image, *settings)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [(80, 112), (70, 51), (45, 90)])
def test_equals_loops(planted, name, size):
    method, sizes = seeing(name), CASES[name][1]
    method.sight.model.tower.double()
    images = pictures(2, *size, seed=1)
    output = method(planted.vit.double(), images.double())
    for i, image in enumerate(images):
        dino = loops.Dino(dino_state(**sizes), sizes["heads"])
        wanted, grid = rendering(method, Tower(planted.vit), dino, image.double().numpy())
        error = np.abs(output.patches[i].numpy() - wanted).max() / np.abs(wanted).max()
        assert output.grid == grid
        assert error < 1e-6, error


@pytest.mark.parametrize("name", CASES)
def test_images_of_a_batch_do_not_know_each_other(planted, name):
    method, images = seeing(name), pictures(3, 80, 112, seed=4)
    together, record = method(planted.vit, images), Kept()
    for i in range(3):
        torch.testing.assert_close(
            together.patches[i], method(planted.vit, images[i : i + 1]).patches[0], rtol=1e-4, atol=1e-4
        )
    torch.testing.assert_close(together.image, planted.vit(images), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(method.image_embedding(planted.vit, images), together.image)
    assert torch.equal(method(planted.vit, images, record=record).patches, together.patches)
    assert {"attn_dense", "vision_similarity", "dense", "image"} <= {what for what, _ in record.seen}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(planted, name, dtype):
    method, images = seeing(name), pictures(1, 80, 112)
    with torch.autocast("cpu", dtype):
        rounded = method(planted.vit, images).patches
    assert rounded.dtype == torch.float32
    assert torch.cosine_similarity(rounded, method(planted.vit, images).patches, dim=-1).mean() > 0.97


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [(16, 16), (16, 48), (33, 16)])
def test_few_patches(planted, name, size):
    output = seeing(name)(planted.vit, pictures(1, *size))
    assert output.patches.isfinite().all() and output.patches.shape[1] == output.grid[0] * output.grid[1]


@pytest.mark.parametrize("name", CASES)
def test_an_even_picture_is_no_obstacle(planted, name):
    assert seeing(name)(planted.vit, torch.zeros(1, 3, 48, 64)).patches.isfinite().all()


@pytest.mark.parametrize("name", ["ProxyCLIP", "CASS"])
def test_a_window_below_a_patch_is_one_sentence(planted, name):
    with pytest.raises(ValueError, match=r"a window of \d+ x \d+ pixels fills no patch of the vision model.* 8 x 8"):
        seeing(name)(planted.vit, pictures(1, 7, 40))


@pytest.mark.parametrize("kind", ["ProxyCLIP", "CASS"])
@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"vfm": None}, TypeError, "vfm must be a dict, got None"),
        ({"vfm": {"type": "DINO"}}, TypeError, "vfm lacks pretrained"),
        ({"vfm": {**VFM, "head": 3}}, TypeError, r"unknown entry 'head' \(did you mean 'heads'"),
        ({"vfm": {**VFM, "heads": 0}}, ValueError, r"vfm\.heads must be a whole number of at least 1, got 0"),
        ({"vfm": {**VFM, "pretrained": ""}}, ValueError, r"vfm\.pretrained must be a name or the path of a file"),
        ({"vfm": {**VFM, "type": "DINOv2"}}, ValueError, r"vfm\.type 'DINOv2' cannot be used: its register tokens"),
        ({"vfm": {**VFM, "type": "dino"}}, ValueError, r"vfm\.type 'dino' .*did you mean 'DINO'"),
        ({"vfm": {**VFM, "type": 3}}, ValueError, r"vfm\.type 3 cannot be used"),
    ],
)
def test_a_wrong_vision_model_is_one_sentence(kind, changes, error, says):
    with pytest.raises(error, match=says):
        METHODS.build({"type": kind, "vfm": VFM, **changes})


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"type": "ProxyCLIP", "beta": -1}, "beta must be a number in 0..1000"),
        ({"type": "ProxyCLIP", "gamma": 0}, "gamma must be a number above 0"),
        ({"type": "CASS", "rank": 0}, "rank must be a whole number of at least 1"),
        ({"type": "CASS", "spectrum_size": 2.5}, "spectrum_size must be a whole number"),
        ({"type": "CASS", "balance": float("nan")}, "balance must be a number in 0..1e"),
        ({"type": "CASS", "stretch_spectrum": 1}, "stretch_spectrum must be True or False"),
        ({"type": "CASS", "gaussian_std": 0}, "gaussian_std must be a number above 0"),
    ],
)
def test_wrong_settings_are_one_sentence(block, says):
    with pytest.raises(ValueError, match=says):
        METHODS.build({"vfm": VFM, **block})


def test_the_vision_model_is_required_and_its_absence_is_one_sentence(tiny_vit):
    with pytest.raises(TypeError, match="method ProxyCLIP lacks vfm: give vfm=dict"):
        METHODS.build({"type": "ProxyCLIP"})
    with pytest.raises(ValueError, match="ProxyCLIP has no vision model yet: build it through RFCLIP"):
        ProxyCLIP(VFM)(tiny_vit, pictures(1, 32, 32))


def test_cass_refuses_other_heads(tiny_vit):
    with pytest.raises(
        ValueError, match="this one has 3 of 32 channels, the CLIP 4 of 16; for a ViT-B take dino_vitb8"
    ):
        CASS(VFM).with_sight(sight(**FINE)).check_tower(tiny_vit)
    assert CASS(VFM).with_sight(sight(**PAIRED)).check_tower(tiny_vit) is None


def test_a_method_is_its_settings():
    given = dict(VFM)
    method = ProxyCLIP(given).with_sight(sight(**FINE))
    shown = {"type": "ProxyCLIP", "vfm": {**VFM, "heads": None}, "beta": 1.2, "gamma": 3.0}
    assert describe(method) == shown and given == VFM
    assert method == ProxyCLIP(VFM) and hash(method) == hash(ProxyCLIP(VFM)) and "Sight" not in repr(method)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.beta = 2
    assert copy.deepcopy(method).sight.model is method.sight.model
    images = pictures(1, 32, 40)
    again = pickle.loads(pickle.dumps(method.sight.model))
    torch.testing.assert_close(again.final_patches(images)[0], method.sight.model.final_patches(images)[0])


def test_a_row_that_would_be_empty_keeps_its_own_token():
    similarity = torch.full((2, 3, 3), 0.97) + 0.03 * torch.eye(3)
    similarity[1] = torch.tensor([[1, 0.9, 0], [0.9, 1, 0.1], [0, 0.1, 1]])
    attention = contrasted(similarity, 3.0, 1.2)
    assert torch.equal(attention[0], torch.eye(3))  # the mean is above 1 / beta
    for i in range(2):
        np.testing.assert_allclose(attention[i], loops.proxy_attention(similarity[i].double().numpy(), 1.2, 3.0), 1e-5)


def test_on_grid_equals_loops():
    heads = torch.randn(2, 3, 12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for other in ((6, 8), (5, 3), (3, 4)):
        for i in range(2):
            np.testing.assert_allclose(on_grid(heads, (3, 4), other)[i], loops.on_grid(heads[i].numpy(), (3, 4), other))


def keys(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("count", [30, 9, 4, 2])  # more and fewer tokens than channels, and than eigenvalues asked for
@pytest.mark.parametrize("stretch", [False, True])
def test_low_rank_is_exact(count, stretch):
    k = keys(2, 3, count, 8)
    vectors, values = eigen(k)
    made = low_rank(vectors, values, 10, stretch)
    for i in range(2):
        for h in range(3):
            graph = (8**-0.5 * k[i, h] @ k[i, h].T).numpy()
            np.testing.assert_allclose(made[i, h], loops.low_rank(graph, 10, stretch), atol=1e-9)


def test_spectra_and_pairs_equal_loops():
    one, other = keys(2, 4, 15, 8), 0.3 * keys(2, 4, 15, 8, seed=1) ** 3
    for size in (3, 20):
        found = spectral_distance(eigen(one)[1], eigen(other)[1], size)
        for i in range(2):
            graphs = [[8**-0.5 * (head @ head.T).numpy() for head in heads[i]] for heads in (one, other)]
            wanted, partner = loops.pairing(*graphs, size)
            np.testing.assert_allclose(found[i], wanted, atol=1e-9)
            assert most_different(found)[i].tolist() == partner.tolist()


def test_pairs_are_the_best_and_hang_on_six_decimals():
    difference = torch.rand(5, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for matrix, pairs in zip(difference, most_different(difference), strict=True):
        totals = [sum(matrix[a, b] for a, b in enumerate(order)) for order in itertools.permutations(range(4))]
        torch.testing.assert_close(matrix[range(4), pairs].sum(), max(totals))
    tied = torch.tensor([[3.0, 2.0, 1.0]]).T - torch.tensor([[3.0, 2.0, 1.0]])  # a_i - b_j: all pairings are as good
    noise = 1e-9 * torch.randn(20, 3, 3, generator=torch.Generator().manual_seed(3))
    assert len({tuple(pairs.tolist()) for pairs in most_different(tied.double() + noise)}) == 1


def test_rescaled_takes_the_bounds_of_others():
    values = rescaled(keys(2, 4, 5), torch.tensor([-1.0]), torch.tensor([2.0]), dims=(1, 2))
    torch.testing.assert_close(values.amin((1, 2)), torch.full((2,), -1.0).double())
    torch.testing.assert_close(values.amax((1, 2)), torch.full((2,), 2.0).double())
    assert torch.equal(
        rescaled(torch.ones(1, 3), torch.tensor([[4.0]]), torch.tensor([[9.0]]), (1,)), torch.full((1, 3), 4.0)
    )


def test_pictures_that_are_no_squares_become_some():
    pixels = torch.randint(0, 256, (2, 3, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert square(pixels).shape == (2, 3, 20, 20) and square(pixels).dtype == torch.uint8
    assert square(pixels[..., :20]) is not None and torch.equal(square(pixels[..., :20]), pixels[..., :20])


def test_the_pictures_of_cass_are_whole_pixel_values():
    images = torch.cat([pictures(1, 24, 24), 9 * torch.ones(1, 3, 24, 24), -9 * torch.ones(1, 3, 24, 24)])
    method = CASS(VFM).with_sight(sight(**PAIRED))
    found = method._picture(images)
    for image, shown in zip(images, found, strict=True):
        np.testing.assert_allclose(shown, loops.cass_picture(image.double().numpy()), atol=1e-5)


def test_the_picture_of_proxy_clip_is_the_original_one():
    images = pictures(1, 24, 40)
    seen = sight(**FINE)
    shown = seen.picture(images)
    undone = shown * torch.tensor(loops.STD).view(3, 1, 1) + torch.tensor(loops.MEAN).view(3, 1, 1)
    torch.testing.assert_close((undone * 255).round() / 255, undone, atol=1e-5, rtol=0)
    unit, grid = seen.unit_patches(images)
    assert grid == (3, 5)
    torch.testing.assert_close(unit, F.normalize(unit, dim=-1))
