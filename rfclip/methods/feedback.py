"""ResCLIP's semantic feedback: which patches a first labelling puts together, and how near they are."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from rfclip.methods.needs import Given
from rfclip.refiners import PAMR


def window_labels(
    patches: Tensor,
    images: Tensor,
    grid: tuple[int, int],
    side: int,
    given: Given,
    threshold: float,
) -> Tensor:
    """Label each patch by the queries, aliases apart.

    Args:
        patches: dense embeddings (B, N, E), not normalised.
        images: (B, 3, H, W) normalised.
        grid: (h, w), h*w = N.
        side: P of a patch in pixels.
        given: embeddings of the queries, and the factor of the cosines before the softmax.
        threshold: pixels whose best probability is below it become query 0.

    Returns:
        (B, N) int64: the most frequent label of a patch's pixels, of equally frequent ones the smallest.
    """
    with torch.autocast(patches.device.type, enabled=False):
        cosines = given.text @ F.normalize(patches.float(), dim=-1).transpose(1, 2)  # (B, Q, N)
        maps = F.interpolate(cosines.unflatten(-1, grid), images.shape[-2:], mode="bilinear", align_corners=False)
        refined = PAMR().prepare(images.float())(maps)
        best, labels = (given.logit_scale * refined).softmax(1).max(1)  # (B, H, W)
    labels = labels.masked_fill(best < threshold, 0)
    height, width = (cells * side for cells in grid)
    rows, columns = (
        torch.arange(length, device=labels.device).clamp_max(there - 1)
        for length, there in zip((height, width), labels.shape[1:], strict=True)
    )
    pixels = labels[:, rows][:, :, columns].unflatten(1, (grid[0], side)).unflatten(3, (grid[1], side))
    cells = pixels.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)  # (B, N, P*P)
    counts = torch.zeros(*cells.shape[:2], len(given.text), dtype=torch.int32, device=cells.device)
    return counts.scatter_add_(2, cells, torch.ones_like(cells, dtype=torch.int32)).argmax(-1)


def semantic_feedback(labels: Tensor, grid: tuple[int, int], std: float) -> Tensor:
    """Turn patch labels into scores between patches.

    Args:
        labels: (B, N).
        grid: (h, w), h*w = N.
        std: of the blur along the raster.

    Returns:
        (B, N, N) fp32, greatest entry 1: patches of one label, less where the first steps towards each other leave
        the label, blurred along each row (neighbours wrap from one row of the grid to the next).
    """
    alike = (labels[:, :, None] == labels[:, None]).float()
    rows, columns = torch.meshgrid(*(torch.arange(n, device=labels.device) for n in grid), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], -1).float()  # (N, 2)
    steps = (places[:, None] - places[None]).abs().amax(-1)  # (N, N), Chebyshev
    most = max(grid) - 1
    if most > 0:
        left = torch.zeros_like(alike, dtype=torch.bool)
        for step in range(most + 1):
            t = torch.tensor(step, dtype=torch.float32, device=labels.device) / most
            cell = (places[:, None] * (1 - t) + places[None] * t).round().long()  # half to even
            there = labels[:, cell[..., 0] * grid[1] + cell[..., 1]]  # (B, N, N)
            left |= (step <= steps) & (there != labels[:, :, None])
        alike = torch.where(left, alike * torch.exp(-steps / most), alike)
    blurred = F.conv1d(alike.flatten(0, 1)[:, None], _kernel(len(places), std).to(alike)[None, None], padding="same")
    blurred = blurred[:, 0].unflatten(0, alike.shape[:2])
    blurred = blurred / (blurred.sum(-1, keepdim=True) + 1e-8)
    return blurred / blurred.amax((1, 2), keepdim=True)


def _kernel(count: int, std: float) -> Tensor:
    """A Gaussian of odd length, at most 6 std + 1 or the number of patches (one more if that is even), sum 1."""
    length = min(count, int(6 * std + 1))
    length += 1 - length % 2
    weights = torch.tensor([math.exp(-((i - length // 2) ** 2) / (2 * std**2)) for i in range(length)])
    return weights / weights.sum()
