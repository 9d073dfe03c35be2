"""PEARL's propagation: logits flow between pixels that look alike and mean alike (docs/METHODS.md, TextLaplacian)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from rfclip.checks import Checked, check_above_zero, check_range, check_whole, setting
from rfclip.clip.precision import at_least_fp32
from rfclip.refiners.base import REFINERS, Joint


@REFINERS.register
@dataclass(frozen=True)
class TextLaplacian(Checked):
    """Settings of the propagation.

    Attributes:
        grid: cells that a side is pooled to, about: each is a mean over a whole number of pixels, and there are at most
            1.5 times as many (a side shorter than that is not pooled).
        iterations: steps of the solver; they do not converge, their number is part of the method.
        temperature: of the softmax over the names that are like a name.
        self_weight: what a name counts for itself beside that softmax, 0..1e6.
        edge_sharpness: how fast neighbours part where the grey value changes, 0..1e6.
        confidence_floor: the least that the best probability of a pixel counts, 0..1.

    All Q queries are held on the pooled grid alone, at most 1.5 `grid` cells a side, about ten times in fp64, beside
    a (Q, Q) matrix; at the original size, where the caller goes by the stages of :class:`Joint`, only a chunk of them.

    Raises:
        ValueError: a setting is out of its range.
    """

    block: ClassVar[str] = "TextLaplacian "

    grid: int = setting(80, check_whole, 1)
    iterations: int = setting(25, check_whole)
    temperature: float = setting(0.5, check_above_zero)
    self_weight: float = setting(10.0, check_range, 0, 1e6)
    edge_sharpness: float = setting(5.0, check_range, 0, 1e6)
    confidence_floor: float = setting(0.05, check_range, 0, 1)

    def prepare(self, image: Tensor, text: Tensor | None = None) -> Joint:
        """Pool images (B, 3, H, W), or one of (3, H, W), and weigh the queries (Q, E), normalised.

        Returns:
            What refines logits (B, Q, H, W), cosines before any scale, of all queries.

        Raises:
            ValueError: no text; later, logits of another size or number of queries.
        """
        if text is None:
            raise ValueError("TextLaplacian looks at the words: give prepare(image, text) their embeddings (Q, E)")
        size = (image.shape[-2], image.shape[-1])
        pool = partial(pooled, factors=pool_factors(size, self.grid))
        red, green, blue = pool(image.reshape(-1, *image.shape[-3:])).unbind(1)
        grey = 0.299 * red + 0.587 * green + 0.114 * blue  # of normalised values
        weights = query_weights(text, self.temperature, self.self_weight)

        def checked_pool(logits: Tensor) -> Tensor:
            if logits.shape[-2:] != size:
                raise ValueError(
                    f"logits {tuple(logits.shape)} are not of the image's size {size}: resize one of the two"
                )
            return pool(logits)

        def solve(logits: Tensor) -> Tensor:
            if logits.shape[1] != len(weights):
                raise ValueError(
                    f"logits of {logits.shape[1]} queries and embeddings of {len(weights)}: give all at once"
                )
            return torch.stack([self._solved(*pair, weights) for pair in zip(logits, grey, strict=True)])

        return Joint(checked_pool, solve)

    def _solved(self, pooled_logits: Tensor, grey: Tensor, weights: Tensor) -> Tensor:
        """Propagate the pooled logits (Q, h, w) of one image, given its grey values (h, w).

        In fp64: the directions of conjugate gradients lose each other in fp32, and the result with them, by up to a
        percent on a small grid (tests/refiners/test_text_laplacian.py shows it).
        """
        logits, grey, weights = pooled_logits.double(), grey.double(), weights.double()
        probs = logits.softmax(0)
        trust = confidence(probs, weights, self.confidence_floor)
        edges = edge_weights(grey, probs, weights, self.edge_sharpness)

        def system(values: Tensor) -> Tensor:
            return trust * values + laplacian(values, *edges)

        return conjugate_gradient(system, logits, trust * logits, self.iterations).to(pooled_logits.dtype)


def pool_factors(size: tuple[int, int], grid: int) -> tuple[int, int]:
    """How many pixels of a side make a cell: the whole number next to side / grid, halves to the even one, at least 1.

    Example:
        >>> pool_factors((100, 140), 40)
        (2, 4)
    """
    height, width = (max(1, round(side / grid)) for side in size)
    return height, width


def pooled(maps: Tensor, factors: tuple[int, int]) -> Tensor:
    """Means of maps (B, q, H, W), at least fp32, over blocks of pixels; pixels that fill none are left out."""
    return F.avg_pool2d(maps.to(at_least_fp32(maps)), factors)


def query_weights(text: Tensor, temperature: float, self_weight: float) -> Tensor:
    """How much each of the queries (Q, E), normalised, counts: (Q,), below 1.

    The diagonal of softmax(text text^T / temperature) + `self_weight` I, whose rows are divided by (their sum + 1e-6).
    The paper mixes the queries by the whole matrix; the released code takes the diagonal.
    """
    text = text.to(at_least_fp32(text))
    with torch.autocast(text.device.type, enabled=False):
        cosines = text @ text.T
    own = ((cosines - cosines.amax(1, keepdim=True)) / temperature).softmax(1).diagonal()
    return (own + self_weight) / (1 + self_weight + 1e-6)


def confidence(probs: Tensor, weights: Tensor, floor: float) -> Tensor:
    """How fast each pixel holds on to its logits: (h, w), of probabilities (Q, h, w) and the queries' weights (Q,)."""
    return probs.amax(0).clamp_min(floor).square() * (1 + agreement(probs, probs, weights))


def edge_weights(grey: Tensor, probs: Tensor, weights: Tensor, sharpness: float) -> tuple[Tensor, Tensor]:
    """How much flows between neighbours, 0..1.

    Args:
        grey: (h, w) of the pooled image, normalised values.
        probs: (Q, h, w).
        weights: of the queries (Q,).
        sharpness: of edges.

    Returns:
        Of horizontal pairs (h, w-1), of vertical pairs (h-1, w).
    """

    def between(dim: int) -> Tensor:
        """Of the pairs along the last dimension but `dim`: their own mean is what a step of grey is measured by."""
        count = grey.shape[dim] - 1
        step = (grey.narrow(dim, 0, count) - grey.narrow(dim, 1, count)).abs()
        alike = (-sharpness * step / (step.mean() + 1e-6)).exp()
        return (alike * (1 + agreement(probs.narrow(dim, 0, count), probs.narrow(dim, 1, count), weights))).clamp(0, 1)

    return between(-1), between(-2)


def agreement(first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    """Weighted products of probabilities (Q, ...) summed over the queries, clamped to 0..1."""
    return (weights[:, None, None] * first * second).sum(0).clamp(0, 1)


def laplacian(values: Tensor, horizontal: Tensor, vertical: Tensor) -> Tensor:
    """Sum over the neighbours j of each pixel i of W_ij (x_i - x_j).

    Args:
        values: x (Q, h, w).
        horizontal: W of horizontal pairs (h, w-1).
        vertical: W of vertical pairs (h-1, w).

    Example:
        >>> laplacian(torch.tensor([[[1.0, 3.0, 3.0]]]), torch.tensor([[0.5, 1.0]]), torch.ones(0, 3)).tolist()
        [[[-1.0, 1.0, 0.0]]]
    """
    result = torch.zeros_like(values)
    across = horizontal * (values[..., :-1] - values[..., 1:])
    result[..., :-1] += across
    result[..., 1:] -= across
    down = vertical * (values[..., :-1, :] - values[..., 1:, :])
    result[..., :-1, :] += down
    result[..., 1:, :] -= down
    return result


def conjugate_gradient(system: Callable[[Tensor], Tensor], start: Tensor, right: Tensor, steps: int) -> Tensor:
    """Take exactly `steps` steps from `start` towards x with system(x) = right; scalar products run over all entries.

    Args:
        system: a symmetric, positive linear map.
        start: not modified.
        right: of the same shape.
        steps: at least 0; there is no stopping rule, and 1e-12 in the denominators keeps a solved system solved.
    """
    solution, residual = start, right - system(start)
    direction, squared = residual, (residual * residual).sum()
    for _ in range(steps):
        moved = system(direction)
        length = squared / ((direction * moved).sum() + 1e-12)
        solution = solution + length * direction
        residual = residual - length * moved
        before, squared = squared, (residual * residual).sum()
        direction = residual + squared / (before + 1e-12) * direction
    return solution
