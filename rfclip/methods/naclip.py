"""NACLIP: key-key attention that favours the neighbourhood, in the last block (docs/METHOD.md section 9).

Hajimiri, Ben Ayed and Dolz, "Pay Attention to Your Neighbours: Training-Free Open-Vocabulary Semantic
Segmentation", WACV 2025.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from open_clip.transformer import VisionTransformer
from torch import Tensor

from rfclip.checks import check_above_zero
from rfclip.clip.towers import attention_output, blocks, qkv
from rfclip.methods.base import (
    DenseOutput,
    OrdinaryImage,
    Recorder,
    class_embedding,
    dense_output,
    ordinary_blocks,
)


@MODELS.register_module()
@dataclass(frozen=True)
class NACLIP(OrdinaryImage):
    """softmax(scale kk + omega), omega a Gaussian of the patches' distance; no residual, no MLP.

    Attributes:
        sigma: standard deviation of the Gaussian in patches, above 0.

    Raises:
        ValueError: sigma is not above 0.
    """

    sigma: float = 5.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", check_above_zero("sigma", self.sigma))

    @torch.no_grad()
    def __call__(self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None) -> DenseOutput:
        """Encode normalised images (B, 3, H, W)."""
        tokens, grid = ordinary_blocks(vit, images, record)
        last = blocks(vit)[-1]
        q, k, v = qkv(last, tokens)  # (B, H, 1+N, d/H)
        omega = F.pad(neighbourhood(grid, self.sigma, tokens.device), (1, 0, 1, 0))  # 0 for the class token
        if record is not None:
            scores = k.double() @ k.double().transpose(-1, -2) * k.shape[-1] ** -0.5
            record.record("attn_dense", None, (scores + omega).softmax(-1).to(k.dtype))
        heads = F.scaled_dot_product_attention(k, k, v, attn_mask=omega.to(k.dtype))
        patches = attention_output(last, heads[:, :, 1:])
        return dense_output(vit, patches, class_embedding(vit, tokens, q, k, v), grid, record)


def neighbourhood(grid: tuple[int, int], sigma: float, device: torch.device | None = None) -> Tensor:
    """Return exp(-dist^2 / (2 sigma^2)) between the patches of a grid (h, w), in patches: (N, N), fp64."""
    rows, columns = torch.meshgrid(*(torch.arange(side, device=device) for side in grid), indexing="ij")
    positions = torch.stack([rows.flatten(), columns.flatten()], dim=1)  # (N, 2)
    squared = (positions[:, None] - positions[None]).square().sum(-1)
    return torch.exp(-squared.double() / (2 * sigma**2))
