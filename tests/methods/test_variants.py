"""The variants of the analyses: with every step on they are the method; filters against plain loops."""

import dataclasses

import pytest
import torch
from mmseg.registry import MODELS

from rfclip.methods.variants import (
    FilteredMeanKK,
    RefocusVariant,
    average_neighbours,
    filter_tokens,
    give_to_class_token,
    low_pass,
    random_tokens,
)
from rfclip.refocus import redistribute_embedding

DIMS = (5, 23, 42)  # of the fixture `planted`
GRID = (3, 5)
PATCHES = torch.randn(2, 15, 4, generator=torch.Generator().manual_seed(0))
MASKED = torch.zeros(2, 15, dtype=torch.bool)
MASKED[0, [0, 1, 7]] = True
MASKED[1, 14] = True


def neighbours(token):
    row, column = divmod(token, GRID[1])
    around = [(row + a, column + b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)]
    return [r * GRID[1] + c for r, c in around if 0 <= r < GRID[0] and 0 <= c < GRID[1]]


def middle(values):
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


@pytest.mark.parametrize("name, statistic", [("mean", lambda v: sum(v) / len(v)), ("median", middle)])
def test_filters_against_a_loop(name, statistic):
    filtered = filter_tokens(PATCHES, MASKED, GRID, name)
    for image in range(2):
        for token in range(15):
            for channel in range(4):
                value = PATCHES[image, token, channel].item()
                if MASKED[image, token]:
                    value = statistic([PATCHES[image, other, channel].item() for other in neighbours(token)])
                assert filtered[image, token, channel].item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("name", ["none", "-inf"])
def test_filters_that_change_no_token(name):
    assert torch.equal(filter_tokens(PATCHES, MASKED, GRID, name), PATCHES)


@pytest.mark.parametrize("name", ["mean", "median", "low-pass"])
def test_a_grid_of_one_patch_keeps_its_value(name):
    single = PATCHES[:, :1]
    torch.testing.assert_close(filter_tokens(single, torch.ones(2, 1, dtype=torch.bool), (1, 1), name), single)


def test_low_pass_keeps_what_is_slow_and_drops_what_is_fast():
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(24.0), indexing="ij")
    turn = 2 * torch.pi
    slow = 1 + torch.sin(turn * x / 24) + torch.cos(turn * y / 8)  # 1/8 of the sampling rate: a quarter of Nyquist
    fast = torch.sin(turn * 4 * x / 24) + torch.cos(turn * 3 * y / 16)
    values = (slow + fast).flatten()[None, :, None]
    torch.testing.assert_close(low_pass(values, (16, 24))[0, :, 0], slow.flatten(), atol=1e-5, rtol=0)


def test_random_tokens_are_as_many_and_seeded():
    first, second = (random_tokens(MASKED, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.sum(1).tolist() == [3, 1]
    assert not torch.equal(first, random_tokens(MASKED, torch.Generator().manual_seed(2)))


def test_random_tokens_do_not_hang_on_the_batch(planted, make_images):
    method, images = FilteredMeanKK("mean", "random", distraction_dims=DIMS), make_images(3, 80, 112)
    together = method(planted.vit, images).patches
    alone = torch.cat([method(planted.vit, image[None]).patches for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_a_window_of_three_is_the_methods_own():
    expected = redistribute_embedding(PATCHES, MASKED, [0, 2], GRID)
    torch.testing.assert_close(average_neighbours(PATCHES, MASKED, [0, 2], GRID, 3), expected)


def test_a_window_of_five_against_a_loop():
    found = average_neighbours(PATCHES, MASKED, [3], GRID, 5)
    values = [PATCHES[0, r * 5 + c, 3] for r in range(3) for c in range(5) if abs(r - 1) < 3 and abs(c - 2) < 3]
    expected = (sum(values) - PATCHES[0, 7, 3]) / (len(values) - 1)
    assert found[0, 7, 3].item() == pytest.approx(expected.item(), abs=1e-6)
    assert torch.equal(found[..., :3], PATCHES[..., :3])


def test_the_class_token_receives_the_budget():
    attn = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).softmax(-1)
    moved = give_to_class_token(attn, MASKED, 0.7)
    columns = MASKED[:, None, None].expand(2, 3, 15, 15)
    torch.testing.assert_close(moved[..., 1:, 1:][columns], 0.3 * attn[..., 1:, 1:][columns])
    torch.testing.assert_close(moved.sum(-1), attn.sum(-1))
    assert torch.equal(moved[..., 0, :], attn[..., 0, :])
    assert torch.equal(moved[..., 1:, 1:][~columns], attn[..., 1:, 1:][~columns])


def outputs(planted, make_images, *methods):
    images = make_images(2, 80, 112)
    return [method(planted.vit, images) for method in methods]


def test_with_all_steps_it_is_the_method(planted, make_images):
    method = MODELS.build({"type": "RefocusCLIP", "distraction_dims": DIMS, "solver": "eigh"})
    expected, found = outputs(planted, make_images, method, RefocusVariant(distraction_dims=DIMS))
    torch.testing.assert_close(found.patches, expected.patches, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.image, expected.image, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "method",
    [
        RefocusVariant(attention=False, embedding=False, distraction_dims=DIMS),
        RefocusVariant(distraction_dims=[]),
        FilteredMeanKK(filter="none", distraction_dims=DIMS),
        FilteredMeanKK(filter="-inf", distraction_dims=[]),
    ],
)
def test_with_no_step_it_is_the_baseline(planted, make_images, method):
    expected, found = outputs(planted, make_images, MODELS.build({"type": "MeanKK"}), method)
    torch.testing.assert_close(found.patches, expected.patches, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.image, expected.image, rtol=1e-3, atol=1e-4)


def test_every_step_changes_the_result(planted, make_images):
    steps = [
        RefocusVariant(distraction_dims=DIMS),
        RefocusVariant(distraction_dims=DIMS, embedding=False),
        RefocusVariant(distraction_dims=DIMS, attention=False),
        RefocusVariant(distraction_dims=DIMS, target="others"),
        RefocusVariant(distraction_dims=DIMS, target="class"),
        RefocusVariant(distraction_dims=DIMS, neighbourhood=5),
        *(FilteredMeanKK(name, distraction_dims=DIMS) for name in ("none", "mean", "median", "low-pass", "-inf")),
        FilteredMeanKK("mean", "random", distraction_dims=DIMS),
    ]
    found = [output.patches for output in outputs(planted, make_images, *steps)]
    for i, one in enumerate(found):
        assert one.isfinite().all()
        assert not any(torch.allclose(one, other, atol=1e-5) for other in found[:i]), steps[i]


@pytest.mark.parametrize(
    "kind, settings, message",
    [
        (FilteredMeanKK, {"filter": "blur"}, "filter must be one of 'none', 'mean'"),
        (FilteredMeanKK, {"tokens": "all"}, "tokens must be one of"),
        (RefocusVariant, {"target": "all"}, "target must be one of"),
        (RefocusVariant, {"neighbourhood": 4}, "odd, at least 3, got 4"),
        (RefocusVariant, {"neighbourhood": "3"}, "neighbourhood must be a whole number of at least 3, got '3'"),
        (RefocusVariant, {"attention": "no"}, "attention must be True or False, got 'no'"),
        (FilteredMeanKK, {"seed": 0.5}, "seed must be a whole number"),
        (RefocusVariant, {"beta": 2}, "beta"),
    ],
)
def test_wrong_settings(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)


def test_settings_are_fixed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RefocusVariant().beta = 0.1
