"""From cosines at the network's input size to labels at the original size, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from rfclip.checks import check_above_zero, check_choice, check_range, check_whole
from rfclip.refiners.base import Joint, Refine
from rfclip.refiners.base import resize as resize

Join = Callable[[Tensor, Tensor, int], None]
_CACHED = 2**18  # elements (1 MB): a tile of this size is worked on from the processor's cache


@dataclass(frozen=True, eq=False)
class LabelMap:
    """The result for one image.

    Attributes:
        labels: (H0, W0) int64, the class of each pixel.
        probs: (C, H0, W0) fp32, the probability of each class, or None. With 'max' it is that of the class's best name,
            a share of the softmax over all names, so over the classes they add up to at most one.
    """

    labels: Tensor
    probs: Tensor | None


def label(
    logits: Tensor,
    size: tuple[int, int],
    query_class: Sequence[int],
    num_classes: int,
    logit_scale: float,
    prob_thd: float = 0.0,
    background_index: int | None = None,
    refine: Refine | None = None,
    keep_probs: bool = False,
    max_elements: int = 2**24,
    alias_aggregation: str = "max",
    area_thd: float | None = None,
    join_first: bool = False,
) -> LabelMap:
    """Resize, refine, softmax over all names, join the names of each class, drop small classes, best class, threshold.

    Works through the names in chunks with a running maximum and a running sum of exponentials; the result is that
    of the plain formula. The class with the best score is the best class, so labels alone need no exponential.

    Args:
        logits: Cosines (Q, h, w); not modified.
        size: (H0, W0) of the result, pixels.
        query_class: Class of each of the Q names, 0..C-1, ascending.
        num_classes: C.
        logit_scale: Factor before the softmax, > 0.
        prob_thd: Where the winning probability is below it, the label becomes ``background_index``; 0..1.
        background_index: Needed if ``prob_thd`` > 0; with ``area_thd`` it must be 0.
        refine: Takes and gives (1, q, H0, W0), each channel by itself (PAMR), or a :class:`Joint` (TextLaplacian).
        keep_probs: Also return the probabilities of the classes.
        max_elements: Numbers (of 4 bytes) in a chunk of resized logits, at least one name's; bounds the memory.
        alias_aggregation: 'max', 'mean' or 'logsumexp': how the scaled logits z of a class's names become its own; its
            probability is exp of that over the sum of exp(z) of all names. 'logsumexp' adds up their probabilities.
        area_thd: Classes but the background that are the best one of no more than this share (0..1) of all pixels whose
            best class is not the background get probability 0 everywhere. None drops none. The scores of all classes,
            (C, H0, W0), are then held, as with ``keep_probs``.
        join_first: Join the names of each class before anything else, at (h, w). The softmax is then over the classes.

    Returns:
        Labels and, if asked for, probabilities. Of equal scores the first class wins.

    Raises:
        ValueError: Arguments that contradict each other.

    Example:
        >>> cosines = torch.tensor([[[0.30, 0.1]], [[0.2, 0.1]], [[0.1, 0.2]]])  # "cat", "kitten", "dog" on 1x2 patches
        >>> label(cosines, (1, 4), query_class=[0, 0, 1], num_classes=2, logit_scale=40.0).labels.tolist()
        [[0, 0, 1, 1]]

    Source: docs/METHOD.md section 5.
    """
    check_above_zero("logit_scale", logit_scale)
    check_choice("alias_aggregation", alias_aggregation, tuple(AGGREGATIONS))
    _check(logits, query_class, num_classes, prob_thd, background_index)
    check_area_thd(area_thd, background_index)
    join = partial(AGGREGATIONS[alias_aggregation], logit_scale)
    if join_first:
        logits, query_class = joined(logits, query_class, num_classes, join), range(num_classes)
    step = max(1, max_elements // (size[0] * size[1]))
    if isinstance(refine, Joint):
        pooled = torch.cat([refine.pool(maps[None]) for maps in _resized(logits, size, step)], 1)
        logits, refine = refine.solve(pooled)[0], None
    sums = _Sums(size, logits.device, logit_scale) if prob_thd > 0 or keep_probs else None
    held = num_classes if keep_probs or area_thd is not None else 0
    classes = _Classes(size, logits.device, query_class, join, held)
    for maps in _resized(logits, size, step):
        refined = maps if refine is None else refine(maps[None])[0]
        classes.add(refined)
        if sums is not None:
            sums.add(refined)
    classes.finish(area_thd)
    if sums is not None and prob_thd > 0 and background_index is not None:
        classes.labels.masked_fill_(sums.share(classes.best.clone()) < prob_thd, background_index)
    if sums is None or classes.scores is None or not keep_probs:
        return LabelMap(classes.labels, None)
    for scores in classes.scores:
        sums.share(scores)
    return LabelMap(classes.labels, classes.scores)


def joined(maps: Tensor, query_class: Sequence[int], num_classes: int, join: Join) -> Tensor:
    """The maps (C, h, w) of the classes, of those of their names (Q, h, w), joined as in :data:`AGGREGATIONS`."""
    classes = _Classes((maps.shape[1], maps.shape[2]), maps.device, query_class, join, num_classes)
    classes.add(maps.float())
    return classes.scores  # type: ignore[return-value]  # held, as there are classes


def check_area_thd(area_thd: float | None, background_index: int | None) -> None:
    """Raise ValueError for a share that is none, or one without a background in class 0, whose area does not count."""
    if area_thd is None:
        return
    check_range("area_thd", area_thd, 0, 1)
    if background_index != 0:
        raise ValueError(
            f"area_thd={area_thd} drops small classes in favour of the background, which must be class 0: give "
            f"background_index=0, got {background_index}; or leave area_thd out"
        )


def _resized(logits: Tensor, size: tuple[int, int], step: int) -> Iterator[Tensor]:
    """The maps (q, H0, W0) of `step` names at a time, in their order."""
    for chunk in logits.split(step):
        yield resize(chunk.float(), size)


def _join_max(scale: float, scores: Tensor, cosines: Tensor, count: int) -> None:
    torch.maximum(scores, cosines, out=scores)


def _join_mean(scale: float, scores: Tensor, cosines: Tensor, count: int) -> None:
    scores += (cosines - scores).div_(count)  # the mean of equal names is one of them to the last bit


def _join_sum(scale: float, scores: Tensor, cosines: Tensor, count: int) -> None:
    """log(exp(scale a) + exp(scale b)) / scale, from the larger one on."""
    apart = (scores - cosines).abs_().mul_(-scale)
    torch.maximum(scores, cosines, out=scores)
    scores += apart.exp_().log1p_().div_(scale)


# How the cosines of a class's next name are joined into its score, given the logit scale and how many names that makes.
# Scores are on the scale of cosines: a class's probability is exp(scale * score) over all names' sum of that.
AGGREGATIONS = {"max": _join_max, "mean": _join_mean, "logsumexp": _join_sum}


class _Classes:
    """What the names so far say about each pixel: the best class and its score.

    Args:
        size: (H0, W0).
        device: of all tensors.
        query_class: class of each name, ascending.
        join: joins the cosines of a class's next name, the n-th, into its score: ``join(scores, cosines, n)``.
        held: how many classes' scores are kept; 0: none are.
    """

    def __init__(
        self, size: tuple[int, int], device: torch.device, query_class: Sequence[int], join: Join, held: int
    ) -> None:
        self.best = torch.full(size, -torch.inf, device=device)
        self.labels = torch.zeros(size, dtype=torch.int64, device=device)
        self.scores = torch.full((held, *size), -torch.inf, device=device) if held else None
        self._join = join
        self._coming = iter(query_class)
        self._index: int | None = None  # the class whose names are coming
        self._count = 0  # of its names so far
        self._score = torch.empty(size, device=device)  # its score, of these names

    def add(self, maps: Tensor) -> None:
        """Take in cosines (q, H0, W0) of the names that come next."""
        for cosines in maps:
            index = next(self._coming)
            if index == self._index:
                self._count += 1
                self._join(self._score, cosines, self._count)
                continue
            self._close()
            self._index, self._count = index, 1
            if self.scores is not None:
                self._score = self.scores[index]
            self._score.copy_(cosines)

    def finish(self, area_thd: float | None) -> None:
        """Decide between the classes, now that all names have come, and again without those of a small area."""
        self._close()
        if area_thd is None or self.scores is None:
            return
        pixels = torch.bincount(self.labels.flatten(), minlength=len(self.scores)).tolist()[1:]
        self.best.copy_(self.scores[0])
        self.labels.zero_()
        for index, count in enumerate(pixels, 1):
            if count <= area_thd * sum(pixels):
                self.scores[index] = -torch.inf
            self._compete(index, self.scores[index])

    def _close(self) -> None:
        if self._index is not None:
            self._compete(self._index, self._score)

    def _compete(self, index: int, score: Tensor) -> None:
        """Let a class have the pixels where it is better than all before it."""
        self.labels.masked_fill_(score > self.best, index)
        torch.maximum(self.best, score, out=self.best)


class _Sums:
    """The softmax's denominator at each pixel: the sum over the names so far of exp(scale * (cosine - highest))."""

    def __init__(self, size: tuple[int, int], device: torch.device, logit_scale: float) -> None:
        self.logit_scale = logit_scale
        self.highest = torch.full(size, -torch.inf, device=device)
        self.total = torch.zeros(size, device=device)

    def add(self, maps: Tensor) -> None:
        """Take in cosines (q, H0, W0) of more names."""
        for rows in _strips(maps):
            tile, highest, total = maps[:, rows], self.highest[rows], self.total[rows]
            value = torch.maximum(tile.amax(0), highest)
            total *= ((highest - value) * self.logit_scale).exp_()
            total += (tile - value).mul_(self.logit_scale).exp_().sum(0)
            highest.copy_(value)

    def share(self, scores: Tensor) -> Tensor:
        """Turn scores (H0, W0) of a class into its probabilities, in place."""
        return scores.sub_(self.highest).mul_(self.logit_scale).exp_().div_(self.total)


def _strips(maps: Tensor) -> list[slice]:
    """Rows of (q, H0, W0) in pieces that fit the processor's cache; all of them at once on a GPU."""
    count, height, width = maps.shape
    rows = height if maps.is_cuda else max(1, _CACHED // (count * width))
    return [slice(top, top + rows) for top in range(0, height, rows)]


def _check(
    logits: Tensor,
    query_class: Sequence[int],
    num_classes: int,
    prob_thd: float,
    background_index: int | None,
) -> None:
    check_range("prob_thd", prob_thd, 0, 1)
    if logits.ndim != 3 or len(logits) != len(query_class) or not len(logits):
        raise ValueError(f"logits must be (Q, h, w) for {len(query_class)} names, got {tuple(logits.shape)}")
    ordered = [*query_class, num_classes - 1]
    if ordered != sorted(ordered) or ordered[0] < 0:
        raise ValueError(f"query_class must ascend within 0..{num_classes - 1}, got {list(query_class)}")
    if background_index is not None:
        check_whole("background_index", background_index)
    if prob_thd > 0 and (background_index is None or background_index >= num_classes):
        raise ValueError(
            f"prob_thd={prob_thd} needs the class that pixels below it become: background_index in "
            f"0..{num_classes - 1}, got {background_index}; or set prob_thd=0"
        )
