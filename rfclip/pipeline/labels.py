"""From cosines at the network's input size to labels at the original size, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rfclip.checks import check_above_zero, check_range, check_whole

Refine = Callable[[Tensor], Tensor]
_CACHED = 2**18  # elements (1 MB): a tile of this size is worked on from the processor's cache


@dataclass(frozen=True, eq=False)
class LabelMap:
    """The result for one image.

    Attributes:
        labels: (H0, W0) int64, the class of each pixel.
        probs: (C, H0, W0) fp32, per class the probability of its best name, or None. Each is a share of the
            softmax over all names, so over the classes they add up to at most one.
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
) -> LabelMap:
    """Resize, refine, softmax over all names, best name of each class, best class, threshold.

    Works through the names in chunks with a running maximum and a running sum of exponentials; the result is that
    of the plain formula. The class of the best name is the best class, so labels alone need no exponential.

    Args:
        logits: Cosines (Q, h, w); not modified.
        size: (H0, W0) of the result, pixels.
        query_class: Class of each of the Q names, 0..C-1, ascending.
        num_classes: C.
        logit_scale: Factor before the softmax, > 0.
        prob_thd: Where the winning probability is below it, the label becomes ``background_index``; 0..1.
        background_index: Needed if ``prob_thd`` > 0.
        refine: Takes and gives (1, q, H0, W0), each channel by itself (PAMR).
        keep_probs: Also return the probabilities of the classes.
        max_elements: Numbers (of 4 bytes) in a chunk of resized logits, at least one name's; bounds the memory.

    Returns:
        Labels and, if asked for, probabilities. Of equal probabilities the first class wins.

    Raises:
        ValueError: Arguments that contradict each other.

    Example:
        >>> cosines = torch.tensor([[[0.30, 0.1]], [[0.2, 0.1]], [[0.1, 0.2]]])  # "cat", "kitten", "dog" on 1x2 patches
        >>> label(cosines, (1, 4), query_class=[0, 0, 1], num_classes=2, logit_scale=40.0).labels.tolist()
        [[0, 0, 1, 1]]

    Source: docs/METHOD.md section 5.
    """
    check_above_zero("logit_scale", logit_scale)
    _check(logits, query_class, num_classes, prob_thd, background_index)
    height, width = size
    sums = prob_thd > 0 or keep_probs
    running = _Running(size, logits.device, query_class, logit_scale, sums, num_classes if keep_probs else 0)
    step = max(1, max_elements // (height * width))
    for first in range(0, len(logits), step):
        maps = resize(logits[first : first + step].float(), size)
        running.add(maps if refine is None else refine(maps[None])[0], first)
    return running.result(prob_thd, background_index)


class _Running:
    """What the names so far say about each pixel: the best cosine, its name, the softmax's denominator."""

    def __init__(
        self,
        size: tuple[int, int],
        device: torch.device,
        query_class: Sequence[int],
        logit_scale: float,
        sums: bool,
        kept_classes: int,
    ) -> None:
        self.query_class = torch.tensor(query_class, device=device)
        self.logit_scale = logit_scale
        self.best = torch.full(size, -torch.inf, device=device)
        self.query = torch.zeros(size, dtype=torch.int64, device=device)
        # sum over names of exp(scale * (cosine - best)), so the winner's probability is its inverse
        self.total = torch.zeros(size, device=device) if sums else None
        self.per_class = torch.full((kept_classes, *size), -torch.inf, device=device) if kept_classes else None

    def add(self, maps: Tensor, first: int) -> None:
        """Take in cosines (q, H0, W0) of the names from number ``first`` on."""
        for rows in _strips(maps):
            tile, best, query = maps[:, rows], self.best[rows], self.query[rows]
            value, index = tile.max(0)  # of equal values the first
            query.copy_(torch.where(value > best, index + first, query))
            value = torch.maximum(value, best)
            if self.total is not None:
                self.total[rows] *= ((best - value) * self.logit_scale).exp_()
                self.total[rows] += (tile - value).mul_(self.logit_scale).exp_().sum(0)
            best.copy_(value)
        if self.per_class is not None:
            for cosines, index in zip(maps, self.query_class[first:].tolist(), strict=False):
                torch.maximum(self.per_class[index], cosines, out=self.per_class[index])

    def result(self, prob_thd: float, background_index: int | None) -> LabelMap:
        """Labels and probabilities from all names."""
        labels = self.query_class[self.query]
        if background_index is not None and self.total is not None:
            labels.masked_fill_(self.total.reciprocal() < prob_thd, background_index)
        if self.per_class is not None:
            for cosines in self.per_class:
                cosines.sub_(self.best).mul_(self.logit_scale).exp_().div_(self.total)
        return LabelMap(labels, self.per_class)


def _strips(maps: Tensor) -> list[slice]:
    """Rows of (q, H0, W0) in pieces that fit the processor's cache; all of them at once on a GPU."""
    count, height, width = maps.shape
    rows = height if maps.is_cuda else max(1, _CACHED // (count * width))
    return [slice(top, top + rows) for top in range(0, height, rows)]


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps (..., h, w) to (..., H0, W0), bilinear, corners not aligned.

    Each map is resized by itself, so that equal maps stay equal to the last bit: resized as channels of one
    picture, their rounding would depend on their place among the channels.

    Example:
        >>> resize(torch.tensor([[[0.0, 1.0]]]), (1, 4)).tolist()
        [[[0.0, 0.25, 0.75, 1.0]]]
    """
    if maps.shape[-2:] == tuple(size):
        return maps
    single = maps.reshape(-1, 1, *maps.shape[-2:])
    return F.interpolate(single, size, mode="bilinear", align_corners=False).view(*maps.shape[:-2], *size)


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
