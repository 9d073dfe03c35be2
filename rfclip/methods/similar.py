"""What SC-CLIP and SFP share: tokens repaired by their neighbours, features spread by similarity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rfclip.checks import check_grid
from rfclip.clip.precision import at_least_fp32


def repair(patches: Tensor, damaged: Tensor, grid: tuple[int, int], isolated: str = "keep") -> Tensor:
    """Replace damaged tokens by the plain mean of their neighbours that are sound.

    Args:
        patches: (B, N, d), not modified.
        damaged: (B, N) bool.
        grid: (h, w), h*w = N.
        isolated: what becomes of a damaged token without a sound neighbour: 'keep' its value, or 'zero'.

    Returns:
        (B, N, d). Neighbours are the up to 8 around a token on the grid, with the values from before any repair.
    """
    check_grid(patches.shape, grid)
    if not damaged.any():
        return patches
    sound = (~damaged).to(patches.dtype)[..., None]  # (B, N, 1)
    total, count = (_around(maps, grid) for maps in (patches * sound, sound))
    mean = total / count.clamp_min(1)
    if isolated == "keep":
        mean = torch.where(count > 0, mean, patches)
    return torch.where(damaged[..., None], mean, patches)


def _around(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Sums (B, N, c) over the 8 cells around each of the grid; zeros outside it."""
    maps = F.pad(patches.unflatten(1, grid), (0, 0, 1, 1, 1, 1))  # (B, h+2, w+2, c)
    h, w = grid
    cells = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]
    return torch.stack([maps[:, y : y + h, x : x + w] for y, x in cells]).sum(0).flatten(1, 2)


def cosines(patches: Tensor) -> Tensor:
    """Cosines (B, N, N), fp32, of the tokens (B, N, d) of each image."""
    with torch.autocast(patches.device.type, enabled=False):
        unit = F.normalize(patches.to(at_least_fp32(patches)), dim=-1)
        return unit @ unit.transpose(1, 2)


def spread(similarity: Tensor, values: Tensor, threshold: float) -> Tensor:
    """Each token becomes the mean of the values of those that are alike.

    Args:
        similarity: S (B, N, N); entries below `threshold` count as 0, and each row is divided by (its sum + 1e-6).
        values: (B, N, d).
        threshold: on the scale of the similarity.
    """
    kept = similarity.masked_fill(similarity < threshold, 0)
    with torch.autocast(values.device.type, enabled=False):
        return (kept / (kept.sum(-1, keepdim=True) + 1e-6)) @ values.to(kept.dtype)


def contrasted(similarity: Tensor, contrast: float, times: float = 1.0) -> Tensor:
    """Row softmax (B, N, N) of contrast * (S - times * mean of all entries of an image's S), negative ones left out.

    A row that this would leave empty (at times = 1 none but for rounding, as a token's similarity to itself is 1) keeps
    its own token alone.

    Args:
        similarity: S (B, N, N), not modified.
        contrast: above 0.
        times: how many times the mean an entry must reach to count.
    """
    centred = contrast * (similarity - times * similarity.mean((-1, -2), keepdim=True))
    empty = (centred < 0).all(-1)
    centred = centred.masked_fill(centred < 0, -torch.inf)
    centred.diagonal(dim1=-2, dim2=-1).masked_fill_(empty, 0)
    return centred.softmax(-1)
