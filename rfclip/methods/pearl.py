"""PEARL's attention: queries and keys aligned by a rotation before they meet (docs/METHODS.md, PEARL)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rfclip.checks import Checked, check_at_least_zero, check_whole, setting
from rfclip.clip.precision import at_least_fp32
from rfclip.methods.base import METHODS, Show
from rfclip.methods.baselines import LastBlock


@METHODS.register
@dataclass(frozen=True)
class PEARL(Checked, LastBlock):
    """softmax(scale q (k R)^T + alpha scale kc kc^T), R the polar factor of the centred keys and queries.

    Attributes:
        alpha: weight of the centred keys' own products, at least 0.
        polar_steps: Newton-Schulz steps towards the polar factor; they do not converge, their number is part of
            the method.

    Raises:
        ValueError: a setting is out of its range.
    """

    alpha: float = setting(0.08, check_at_least_zero)
    polar_steps: int = setting(5, check_whole)

    def heads(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int], show: Show) -> Tensor:
        """Rotate the keys towards the queries; the class token has no weight in the centre."""
        with torch.autocast(q.device.type, enabled=False):
            q, k = (tensor.to(at_least_fp32(tensor)) for tensor in (q, k))
            weight = torch.cat([torch.zeros_like(q[..., :1, :1]), q[:, :, 1:].norm(dim=-1, keepdim=True)], dim=2)
            weight = weight / (weight.sum(2, keepdim=True) + 1e-6)
            qc, kc = (tensor - (weight * tensor).sum(2, keepdim=True) for tensor in (q, k))
            rotated = k @ polar_factor(kc.transpose(-1, -2) @ qc, self.polar_steps)
            scale = q.shape[-1] ** -0.5
            scores = scale * (q @ rotated.transpose(-1, -2) + self.alpha * kc @ kc.transpose(-1, -2))
            attention = scores.softmax(-1)
        show("attn_dense", None, attention)
        return attention.to(v.dtype) @ v


def polar_factor(matrix: Tensor, steps: int) -> Tensor:
    """Take Newton-Schulz steps towards the orthogonal polar factor of square matrices (..., n, n).

    Args:
        matrix: M, not modified.
        steps: how many; small singular values need more than a few.
    """
    product = matrix.transpose(-1, -2) @ matrix
    norm = product.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-6)
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    y, z = product / norm + 1e-6 * identity, identity
    for _ in range(steps):
        step = (3 * identity - z @ y) / 2
        y, z = y @ step, step @ z
    return matrix @ z / norm.sqrt()
