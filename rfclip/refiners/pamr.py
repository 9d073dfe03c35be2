"""PAMR, pixel-adaptive mask refinement (Araslanov and Roth, CVPR 2020): logits follow the image's edges.

Source: docs/METHOD.md section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from rfclip.checks import Checked, check_indices, check_whole, setting
from rfclip.clip.precision import at_least_fp32
from rfclip.refiners.base import REFINERS

_RING = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
_CACHED = 2**19  # elements (2 MB): a strip of this size is worked on from the processor's cache


@REFINERS.register
@dataclass(frozen=True)
class PAMR(Checked):
    """Settings of the refinement.

    Attributes:
        num_iter: Iterations, >= 0.
        dilations: Distances of the 3 x 3 rings of neighbours, pixels, each >= 1.

    Raises:
        ValueError: Not whole numbers in these ranges.
    """

    block: ClassVar[str] = "PAMR "

    num_iter: int = setting(10, check_whole)
    dilations: tuple[int, ...] = setting((8, 16), check_indices)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dilations or min(self.dilations) < 1:
            raise ValueError(f"PAMR dilations must be at least one distance >= 1, got {self.dilations!r}")

    def prepare(self, image: Tensor, text: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """Compute the affinity of images (B, 3, H, W) once; the text has no part in it.

        Returns:
            A function that refines logits (B, q, H, W) and does not modify them. Each channel is refined by
            itself, so chunks of the channels may be passed one after the other.
        """
        weights = affinity(image, self.dilations)
        neighbours = _neighbours(image.shape, self.dilations, image.device)
        return lambda logits: _refine(weights, neighbours, logits, self.num_iter)


def affinity(image: Tensor, dilations: Sequence[int] = (8, 16)) -> Tensor:
    """How much each neighbour counts for each pixel.

    ``softmax over the neighbours n of mean over channels of -|x_i - x_n| / (1e-8 + 0.1 std)``; std (unbiased) is
    per channel over the 9 values of every dilation together, and the softmax over the 8 neighbours of all of them.
    Beyond the border the nearest pixel inside stands for a neighbour.

    Args:
        image: Normalised images (B, C, H, W).
        dilations: D distances of neighbours, pixels.

    Returns:
        Weights (B, 8 D, H, W), at least fp32, that sum to one over the neighbours; dilation by dilation, the
        neighbours in raster order. The neighbours of a pixel lie together in memory.
    """
    batch, _, height, width = image.shape
    dilations = [min(dilation, max(height, width)) for dilation in dilations]  # farther on it is the border still
    reach = max(dilations)
    padded = F.pad(image.to(at_least_fp32(image)), (reach,) * 4, mode="replicate")
    weights = padded.new_empty(batch, height, width, 8 * len(dilations))
    rows = max(1, _CACHED // (width * weights.shape[-1]))
    for top in range(0, height, rows):
        strip = padded[:, :, top : min(top + rows, height) + 2 * reach]
        weights[:, top : top + rows] = _strip_affinity(strip, dilations).permute(0, 2, 3, 1)
    return weights.permute(0, 3, 1, 2)


def refine(affinity: Tensor, logits: Tensor, num_iter: int = 10, dilations: Sequence[int] = (8, 16)) -> Tensor:
    """Replace logits by the affinity-weighted sum of their neighbours, ``num_iter`` times.

    Args:
        affinity: Weights (B, 8 D, H, W) of :func:`affinity`.
        logits: (B, q, H, W); not modified.
        num_iter: Iterations, >= 0.
        dilations: The D dilations of the affinity.

    Returns:
        Logits (B, q, H, W), of the affinity's dtype.
    """
    neighbours = _neighbours(logits.shape, dilations, logits.device)
    return _refine(affinity, neighbours, logits, num_iter)


def pamr(image: Tensor, logits: Tensor, num_iter: int = 10, dilations: Sequence[int] = (8, 16)) -> Tensor:
    """Refine logits (B, q, H, W) by images (B, C, H, W): :func:`affinity`, then :func:`refine`."""
    return refine(affinity(image, dilations), logits, num_iter, dilations)


def _strip_affinity(padded: Tensor, dilations: Sequence[int]) -> Tensor:
    """Affinity (B, 8 D, r, W) of r rows, from the image (B, C, r + 2 reach, W + 2 reach) around them."""
    reach = max(dilations)
    height, width = (side - 2 * reach for side in padded.shape[-2:])

    def seen(dy: int, dx: int) -> Tensor:
        return padded[..., reach + dy : reach + dy + height, reach + dx : reach + dx + width]

    centre = seen(0, 0)
    around = [seen(dy * dilation, dx * dilation) for dilation in dilations for dy, dx in _RING]
    values = [*around, *[centre] * len(dilations)]
    mean = _total(values) / len(values)
    variance = _total([(value - mean).square_() for value in values]) / (len(values) - 1)
    scale = -1 / (1e-8 + 0.1 * variance.sqrt_())
    return torch.stack([((value - centre).abs_() * scale).mean(1) for value in around], 1).softmax(1)


def _total(values: Sequence[Tensor]) -> Tensor:
    total = torch.zeros_like(values[0])
    for value in values:
        total += value
    return total


def _neighbours(shape: Sequence[int], dilations: Sequence[int], device: torch.device) -> Tensor:
    """Raster indices (H*W, 8 D), int32, of each pixel's neighbours in (..., H, W); outside, of the border's."""
    height, width = shape[-2:]
    ring = torch.tensor([(dy * dilation, dx * dilation) for dilation in dilations for dy, dx in _RING], device=device)
    rows = (torch.arange(height, device=device)[:, None] + ring[:, 0]).clamp_(0, height - 1)  # (H, 8 D)
    columns = (torch.arange(width, device=device)[:, None] + ring[:, 1]).clamp_(0, width - 1)
    rows, columns = (rows * width).int(), columns.int()
    return (rows[:, None] + columns).flatten(0, 1)


def _refine(affinity: Tensor, neighbours: Tensor, logits: Tensor, num_iter: int) -> Tensor:
    """Iterate over the channels of all pixels side by side: those of one pixel together in memory."""
    refined = logits.new_empty(logits.shape, dtype=affinity.dtype)
    for weights, maps, result in zip(affinity, logits, refined, strict=True):
        weights = weights.permute(1, 2, 0).reshape(neighbours.shape)  # (H*W, 8 D)
        pixels, averaged = refined.new_empty(2, len(neighbours), len(maps))  # (H*W, q) each
        pixels.copy_(maps.flatten(1).T)
        for _ in range(num_iter):
            _average(neighbours, weights, pixels, averaged)
            pixels, averaged = averaged, pixels
        result.flatten(1).copy_(pixels.T)
    return refined


def _average(neighbours: Tensor, weights: Tensor, pixels: Tensor, out: Tensor) -> None:
    """Write the weighted sum of each pixel's neighbours to ``out`` (H*W, q): a bag of 8 D rows per pixel."""
    size = len(pixels) if pixels.is_cuda else max(1, _CACHED // pixels.shape[1])
    for first in range(0, len(pixels), size):
        strip = slice(first, first + size)
        out[strip] = F.embedding_bag(neighbours[strip], pixels, mode="sum", per_sample_weights=weights[strip])
