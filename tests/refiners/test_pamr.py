from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from mmseg.registry import MODELS
from torch import Tensor

from rfclip.refiners import pamr as module
from rfclip.refiners.pamr import PAMR, affinity, pamr, refine

RING = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CACHED", 700)  # so that images of a test have several strips


def _image(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _inside(image: Tensor, y: int, x: int) -> Tensor:
    return image[..., min(max(y, 0), image.shape[-2] - 1), min(max(x, 0), image.shape[-1] - 1)]


def _weights_of_pixel(image: Tensor, y: int, x: int, dilations: tuple[int, ...]) -> list[float]:
    channels = [[float(v) for v in channel.flatten()] for channel in image]
    width = image.shape[-1]

    def at(channel: list[float], dy: int, dx: int) -> float:
        row = min(max(y + dy, 0), image.shape[-2] - 1)
        return channel[row * width + min(max(x + dx, 0), width - 1)]

    offsets = [(dy * d, dx * d) for d in dilations for dy, dx in RING]
    scores = [0.0] * len(offsets)
    for channel in channels:
        centre = at(channel, 0, 0)
        around = [at(channel, dy, dx) for dy, dx in offsets]
        values = around + [centre] * len(dilations)
        mean = sum(values) / len(values)
        std = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
        for n, value in enumerate(around):
            scores[n] -= abs(centre - value) / (1e-8 + 0.1 * std) / len(channels)
    total = sum(math.exp(score - max(scores)) for score in scores)
    return [math.exp(score - max(scores)) / total for score in scores]


def _loops(image: Tensor, logits: Tensor, num_iter: int, dilations: tuple[int, ...]) -> Tensor:
    height, width = image.shape[-2:]
    offsets = [(dy * d, dx * d) for d in dilations for dy, dx in RING]
    weights = {(y, x): _weights_of_pixel(image, y, x, dilations) for y in range(height) for x in range(width)}
    for _ in range(num_iter):
        new = torch.zeros_like(logits)
        for (y, x), own in weights.items():
            for weight, (dy, dx) in zip(own, offsets, strict=True):
                new[:, y, x] += weight * _inside(logits, y + dy, x + dx)
        logits = new
    return logits


@pytest.mark.parametrize("dilations", [(1,), (2, 4), (1, 3, 20)])
@pytest.mark.parametrize("size", [(9, 13), (1, 6), (1, 1)])
def test_equals_loops(size: tuple[int, int], dilations: tuple[int, ...]) -> None:
    image, logits = _image(2, 3, *size), _image(2, 4, *size, seed=1)
    before = image.clone(), logits.clone()
    got = pamr(image, logits, 3, dilations)
    for b in range(2):
        want = _loops(image[b].double(), logits[b].double(), 3, dilations).float()
        torch.testing.assert_close(got[b], want, rtol=1e-5, atol=1e-5)
    assert torch.equal(image, before[0]) and torch.equal(logits, before[1])


def test_affinity_of_every_pixel() -> None:
    image = _image(2, 3, 8, 11)
    got = affinity(image, (2, 5))
    assert got.shape == (2, 16, 8, 11) and got.dtype == torch.float32
    torch.testing.assert_close(got.sum(1), torch.ones(2, 8, 11))
    for y in range(8):
        for x in range(11):
            want = torch.tensor(_weights_of_pixel(image[1], y, x, (2, 5)))
            torch.testing.assert_close(got[1, :, y, x], want, rtol=1e-4, atol=1e-6)


def test_flat_images_average_evenly_and_constants_stay() -> None:
    weights = affinity(torch.full((1, 3, 6, 7), 0.3), (1, 2))
    torch.testing.assert_close(weights, torch.full((1, 16, 6, 7), 1 / 16))
    constant = torch.full((1, 2, 12, 9), 0.7)
    torch.testing.assert_close(pamr(_image(1, 3, 12, 9), constant, 10, (8, 16)), constant)


def test_edges_hold_logits_apart() -> None:
    image = torch.zeros(1, 3, 12, 40)
    image[..., 20:] = 1.0
    logits = torch.zeros(1, 1, 12, 40)
    logits[..., 20:] = 1.0
    got = pamr(image, logits, 10, (1, 2))
    assert got[..., :20].max() < 0.05 and got[..., 20:].min() > 0.95


def test_channels_are_refined_by_themselves() -> None:
    image, logits = _image(2, 3, 20, 31), _image(2, 9, 20, 31, seed=1)
    run = PAMR().prepare(image)
    whole = run(logits)
    chunks = torch.cat([run(logits[:, i : i + 2]) for i in range(0, 9, 2)], 1)
    torch.testing.assert_close(whole, chunks, rtol=0, atol=1e-6)  # the last bit depends on the chunk
    torch.testing.assert_close(whole, refine(affinity(image), logits))
    torch.testing.assert_close(whole[1:], pamr(image[1:], logits[1:]))


def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    image = _image(1, 3, 37, 23)
    strips = affinity(image)
    monkeypatch.setattr(module, "_CACHED", 2**20)
    torch.testing.assert_close(strips, affinity(image), rtol=1e-5, atol=1e-7)


def test_no_iteration_is_the_identity_and_any_layout_is_taken() -> None:
    image, logits = _image(2, 3, 6, 7), _image(2, 4, 6, 7, seed=1)
    assert torch.equal(pamr(image, logits, 0), logits)
    last = logits.contiguous(memory_format=torch.channels_last)
    assert torch.equal(pamr(image, last, 2), pamr(image, logits, 2))
    assert pamr(image.bfloat16(), logits.bfloat16(), 2).dtype == torch.float32


def test_registered_frozen_and_checked() -> None:
    built = MODELS.build(dict(type="PAMR", num_iter=4, dilations=[2, 3]))
    assert built == PAMR(4, (2, 3))
    assert PAMR() == PAMR(10, (8, 16))
    with pytest.raises(dataclasses.FrozenInstanceError):
        built.num_iter = 5
    for wrong in (dict(num_iter=-1), dict(num_iter=1.5), dict(dilations=()), dict(dilations=(0,)), dict(dilations=8)):
        with pytest.raises(ValueError, match="PAMR"):
            PAMR(**wrong)


def test_a_neighbour_far_outside_is_the_border_and_needs_no_memory() -> None:
    image, logits = torch.rand(1, 3, 9, 14), torch.rand(1, 2, 9, 14)
    assert torch.equal(pamr(image, logits, 2, (3, 10**9)), pamr(image, logits, 2, (3, 14)))
