from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rfclip.pipeline import labels
from rfclip.pipeline.labels import label
from rfclip.refiners import PAMR

QUERY_CLASS = (0, 0, 0, 1, 2, 2, 3)
SIZE = (19, 26)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "_CACHED", 300)  # so that images of a test have several strips


def _logits(h: int = 11, w: int = 15, seed: int = 0) -> Tensor:
    return 0.2 + 0.05 * torch.randn(len(QUERY_CLASS), h, w, generator=torch.Generator().manual_seed(seed))


def _plain(logits: Tensor, size: tuple[int, int], scale: float, threshold: float = 0.0) -> tuple[Tensor, Tensor]:
    """The formula, pixel by pixel."""
    maps = F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]
    found = torch.zeros(size, dtype=torch.int64)
    probs = torch.zeros(max(QUERY_CLASS) + 1, *size)
    for y in range(size[0]):
        for x in range(size[1]):
            softmax = (scale * maps[:, y, x].double()).softmax(0)
            for query, index in enumerate(QUERY_CLASS):
                probs[index, y, x] = max(float(probs[index, y, x]), float(softmax[query]))
            best = int(probs[:, y, x].argmax())
            found[y, x] = 0 if probs[best, y, x] < threshold else best
    return found, probs


@pytest.mark.parametrize("max_elements", [1, 2 * 19 * 26, 5 * 19 * 26 + 3, 2**24])
@pytest.mark.parametrize("size", [SIZE, (11, 15), (40, 5), (1, 1)])
@pytest.mark.parametrize("threshold", [0.0, 0.35])
def test_equals_the_plain_formula(size: tuple[int, int], threshold: float, max_elements: int) -> None:
    logits = _logits()
    before = logits.clone()
    want, probs = _plain(logits, size, 40.0, threshold)
    settings = dict(prob_thd=threshold, background_index=0, max_elements=max_elements)
    got = label(logits, size, QUERY_CLASS, 4, 40.0, keep_probs=True, **settings)
    assert got.labels.dtype == torch.int64 and got.labels.shape == size
    assert torch.equal(got.labels, want)
    torch.testing.assert_close(got.probs, probs, rtol=1e-5, atol=1e-7)
    alone = label(logits, size, QUERY_CLASS, 4, 40.0, **settings)
    assert alone.probs is None
    assert torch.equal(alone.labels, want)
    assert torch.equal(logits, before)


def test_chunks_do_not_change_a_bit_of_the_labels() -> None:
    logits = _logits(seed=3)
    for threshold in (0.0, 0.3):
        maps = [
            label(logits, SIZE, QUERY_CLASS, 4, 40.0, threshold, 0, max_elements=elements).labels
            for elements in (1, 1500, 2**24)
        ]
        assert torch.equal(maps[0], maps[1]) and torch.equal(maps[0], maps[2])


def test_threshold_gives_the_background_class() -> None:
    logits = torch.zeros(4, 3, 5)
    logits[3, 1] = 1.0
    got = label(logits, (3, 5), range(4), 4, 40.0, prob_thd=0.5, background_index=2)
    assert got.labels.tolist() == [[2] * 5, [3] * 5, [2] * 5]


@pytest.mark.parametrize("max_elements", [1, 2**24])
def test_of_equal_names_the_first_class_wins(max_elements: int) -> None:
    logits = _logits()
    logits[4:] = logits[:3]
    got = label(logits, SIZE, QUERY_CLASS, 4, 40.0, keep_probs=True, max_elements=max_elements)
    assert got.labels.max() == 1
    torch.testing.assert_close(got.probs[0], got.probs[2:].amax(0))


def test_large_scale_stays_finite() -> None:
    got = label(_logits(), SIZE, QUERY_CLASS, 4, 1e5, 0.1, 0, keep_probs=True)
    assert got.probs.isfinite().all()
    assert got.probs.amax(0).min() > 0.1


@pytest.mark.parametrize("max_elements", [1, 3 * 19 * 26, 2**24])
def test_refines_chunks_of_resized_names(max_elements: int) -> None:
    image = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    refine = PAMR(num_iter=2, dilations=(1, 3)).prepare(image)
    logits = _logits()
    resized = F.interpolate(logits[None], SIZE, mode="bilinear", align_corners=False)
    want, probs = _plain(refine(resized)[0], SIZE, 40.0, 0.3)
    got = label(logits, SIZE, QUERY_CLASS, 4, 40.0, 0.3, 0, refine=refine, keep_probs=True, max_elements=max_elements)
    assert torch.equal(got.labels, want)
    torch.testing.assert_close(got.probs, probs, rtol=1e-5, atol=1e-7)


def test_memory_is_bounded_by_the_chunk() -> None:
    seen = []

    def refine(maps: Tensor) -> Tensor:
        seen.append(maps.numel())
        return maps

    label(_logits(), SIZE, QUERY_CLASS, 4, 40.0, refine=refine, max_elements=1100)
    assert max(seen) <= 1100 and sum(seen) == 7 * 19 * 26


def test_half_precision_comes_out_as_fp32() -> None:
    got = label(_logits().bfloat16(), SIZE, QUERY_CLASS, 4, 40.0, keep_probs=True)
    want = label(_logits().bfloat16().float(), SIZE, QUERY_CLASS, 4, 40.0, keep_probs=True)
    assert got.probs.dtype == torch.float32
    assert torch.equal(got.labels, want.labels)


def test_class_without_names_never_wins() -> None:
    got = label(_logits(), SIZE, QUERY_CLASS, 6, 40.0, keep_probs=True)
    assert got.probs.shape == (6, *SIZE)
    assert (got.probs[4:] == 0).all() and got.labels.max() <= 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(prob_thd=0.1), "background_index"),
        (dict(prob_thd=0.1, background_index=4), "background_index"),
        (dict(prob_thd=1.1, background_index=0), "prob_thd"),
        (dict(query_class=(0, 1)), "2 names"),
        (dict(query_class=(0, 0, 1, 0, 2, 2, 3)), "ascend"),
        (dict(num_classes=3), "ascend"),
        (dict(logits=torch.zeros(7, 3)), r"\(Q, h, w\)"),
    ],
)
def test_contradictions_get_a_sentence(changes: dict[str, object], said: str) -> None:
    arguments = dict(logits=_logits(), size=SIZE, query_class=QUERY_CLASS, num_classes=4, logit_scale=40.0)
    with pytest.raises(ValueError, match=said):
        label(**{**arguments, **changes})
