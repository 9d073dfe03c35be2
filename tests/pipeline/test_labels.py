from __future__ import annotations

import math
import subprocess
import sys

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


@pytest.mark.parametrize("aggregation", ["max", "mean", "logsumexp"])
def test_names_can_be_joined_before_they_are_resized(aggregation: str) -> None:
    logits, scale = _logits(), 40.0
    joins = {
        "max": lambda names: names.amax(0),
        "mean": lambda names: names.mean(0),
        "logsumexp": lambda names: (scale * names).logsumexp(0) / scale,
    }
    index = torch.tensor(QUERY_CLASS)
    classes = torch.stack([joins[aggregation](logits[index == each]) for each in range(4)])
    settings = dict(alias_aggregation=aggregation, keep_probs=True)
    got = label(logits, SIZE, QUERY_CLASS, 4, scale, join_first=True, **settings)
    want = label(classes, SIZE, range(4), 4, scale, keep_probs=True)
    torch.testing.assert_close(got.probs, want.probs, rtol=1e-4, atol=1e-6)
    assert torch.equal(got.labels, want.labels)
    later = label(logits, SIZE, QUERY_CLASS, 4, scale, **settings)
    assert aggregation == "mean" or (later.labels != got.labels).any()


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


def _joined(logits: Tensor, how: str, scale: float) -> tuple[Tensor, Tensor]:
    """Score of each class, on the scale of the logits, and its probability, pixel by pixel from the definition."""
    classes = max(QUERY_CLASS) + 1
    scores, probs = torch.zeros(2, classes, *logits.shape[1:], dtype=torch.float64)
    for y in range(logits.shape[1]):
        for x in range(logits.shape[2]):
            z = [scale * float(value) for value in logits[:, y, x].double()]
            everything = sum(math.exp(value) for value in z)
            for index in range(classes):
                own = [value for value, at in zip(z, QUERY_CLASS, strict=True) if at == index]
                score = {
                    "max": max(own),
                    "mean": sum(own) / len(own),
                    "logsumexp": math.log(sum(math.exp(value) for value in own)),
                }[how]
                scores[index, y, x], probs[index, y, x] = score, math.exp(score) / everything
    return scores, probs


@pytest.mark.parametrize("how", labels.AGGREGATIONS)
@pytest.mark.parametrize("max_elements", [1, 2 * 11 * 15, 2**24])
def test_names_of_a_class_are_joined_as_defined(how: str, max_elements: int) -> None:
    logits = _logits(seed=5)
    _, probs = _joined(logits, how, 40.0)
    want = probs.argmax(0)
    best = probs.amax(0)
    settings = dict(prob_thd=0.3, background_index=1, alias_aggregation=how, max_elements=max_elements)
    got = label(logits, (11, 15), QUERY_CLASS, 4, 40.0, keep_probs=True, **settings)
    torch.testing.assert_close(got.probs, probs.float(), rtol=2e-5, atol=1e-7)
    assert torch.equal(got.labels, torch.where(best < 0.3, 1, want))
    alone = label(logits, (11, 15), QUERY_CLASS, 4, 40.0, **settings)
    assert torch.equal(alone.labels, got.labels)
    plain = label(logits, (11, 15), QUERY_CLASS, 4, 40.0, alias_aggregation=how, max_elements=max_elements)
    assert plain.probs is None and torch.equal(plain.labels, want)
    if how == "logsumexp":
        torch.testing.assert_close(got.probs.sum(0), torch.ones(11, 15))


def test_aggregations_decide_differently_and_agree_on_single_names() -> None:
    logits = _logits(seed=5)
    found = [label(logits, SIZE, QUERY_CLASS, 4, 40.0, alias_aggregation=how).labels for how in labels.AGGREGATIONS]
    assert not any(torch.equal(found[i], found[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    single = [label(logits, SIZE, range(7), 7, 40.0, alias_aggregation=how) for how in labels.AGGREGATIONS]
    assert torch.equal(single[0].labels, single[1].labels) and torch.equal(single[0].labels, single[2].labels)


@pytest.mark.parametrize("how", labels.AGGREGATIONS)
def test_of_classes_with_equal_names_the_first_wins(how: str) -> None:
    logits = _logits()
    logits[1:3] = logits[0]  # class 0: thrice the same name
    logits[3] = logits[0]  # class 1: the same name once
    got = label(logits, SIZE, QUERY_CLASS, 4, 40.0, alias_aggregation=how).labels
    assert (got != 1).all() and (got == 0).any()


@pytest.mark.parametrize("how", labels.AGGREGATIONS)
def test_aggregations_stay_finite_at_large_scales(how: str) -> None:
    got = label(_logits(), SIZE, QUERY_CLASS, 4, 1e5, alias_aggregation=how, keep_probs=True)
    assert got.probs.isfinite().all() and got.probs.min() >= 0


def _filtered(probs: Tensor, area_thd: float, prob_thd: float) -> tuple[Tensor, Tensor]:
    """The area filter from its definition, in plain loops."""
    probs = probs.clone()
    classes, height, width = probs.shape

    def decide(y: int, x: int) -> int:
        best = 0
        for index in range(classes):
            if probs[index, y, x] > probs[best, y, x]:
                best = index
        return best

    counts = [0] * classes
    for y in range(height):
        for x in range(width):
            counts[decide(y, x)] += 1
    for index in range(1, classes):
        if counts[index] <= area_thd * sum(counts[1:]):
            probs[index] = 0
    found = torch.zeros(height, width, dtype=torch.int64)
    for y in range(height):
        for x in range(width):
            best = decide(y, x)
            found[y, x] = best if probs[best, y, x] >= prob_thd else 0
    return found, probs


@pytest.mark.parametrize("area_thd", [0.0, 0.2, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("prob_thd", [0.0, 0.35])
@pytest.mark.parametrize("how", ["max", "mean"])
def test_small_classes_are_dropped(area_thd: float, prob_thd: float, how: str) -> None:
    logits = _logits(seed=2)
    logits[6] += 0.06  # so that the areas differ
    arguments = (logits, SIZE, QUERY_CLASS, 6, 40.0, prob_thd, 0)  # two classes have no names
    plain = label(*arguments[:5], keep_probs=True, alias_aggregation=how)
    want, probs = _filtered(plain.probs, area_thd, prob_thd)
    settings = dict(area_thd=area_thd, alias_aggregation=how)
    for max_elements in (1, 2**24):
        got = label(*arguments, keep_probs=True, max_elements=max_elements, **settings)
        assert torch.equal(got.labels, want)
        torch.testing.assert_close(got.probs, probs, rtol=1e-5, atol=1e-7)
        assert torch.equal(label(*arguments, max_elements=max_elements, **settings).labels, want)
    dropped = [index for index in range(6) if (got.probs[index] == 0).all()]
    assert {4, 5} <= set(dropped) and 0 not in dropped
    if area_thd == 1.0:
        assert dropped == [1, 2, 3, 4, 5] and (got.labels == 0).all()
    if area_thd == 0.3:
        assert 2 < len(dropped) < 5  # the case drops some of those that have pixels, and not all


def test_a_share_equal_to_the_threshold_is_dropped() -> None:
    logits = torch.zeros(3, 1, 4)
    logits[1, 0, :1] = logits[2, 0, 1:] = 1.0  # one pixel of four against three
    settings = dict(background_index=0, query_class=range(3), num_classes=3, logit_scale=40.0)
    assert label(logits, (1, 4), area_thd=0.25, **settings).labels.tolist() == [[0, 2, 2, 2]]
    assert label(logits, (1, 4), area_thd=0.2499, **settings).labels.tolist() == [[1, 2, 2, 2]]


def test_the_filter_does_not_count_the_background() -> None:
    logits = torch.zeros(3, 1, 100)
    logits[0, 0, :90] = logits[1, 0, 90:94] = logits[2, 0, 94:] = 1.0
    got = label(logits, (1, 100), range(3), 3, 40.0, 0.0, 0, area_thd=0.3)  # 4 of 10, and of 100
    assert got.labels[0].bincount().tolist() == [90, 4, 6]
    none = label(logits[:, :, :90], (1, 90), range(3), 3, 40.0, 0.0, 0, area_thd=0.3, keep_probs=True)
    assert (none.labels == 0).all() and (none.probs[1:] == 0).all()


def test_the_filter_holds_a_map_of_each_class_and_not_of_each_name() -> None:
    """400 names of 4 classes at 256 x 512 pixels, 210 MB if all were held, within 60 MB above the start."""
    program = """
import resource, torch
from rfclip.pipeline.labels import label
names = sorted(list(range(4)) * 100)
logits, settings = torch.randn(400, 4, 8), dict(query_class=names, num_classes=4, logit_scale=40.0)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
label(logits, (16, 16), background_index=0, area_thd=0.1, **settings)
before = peak()
label(logits, (256, 512), background_index=0, area_thd=0.1, prob_thd=0.1, max_elements=2**20, **settings)
print(peak() - before)
"""
    grown = float(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)
    assert grown < 60


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(area_thd=0.1), "area_thd=0.1 drops small classes.*background_index=0, got None; or leave area_thd out"),
        (dict(area_thd=0.1, background_index=1), "background_index=0, got 1"),
        (dict(area_thd=1.1, background_index=0), "area_thd must be a number in 0..1, got 1.1"),
        (dict(area_thd="0.1", background_index=0), "area_thd must be a number"),
        (dict(alias_aggregation="sum"), "alias_aggregation must be one of 'max', 'mean', 'logsumexp', got 'sum'"),
    ],
)
def test_bad_filters_and_aggregations_get_a_sentence(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        label(_logits(), SIZE, QUERY_CLASS, 4, 40.0, **changes)
