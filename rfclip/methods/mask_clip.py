"""MaskCLIP: the last block's values instead of what it attends to (docs/METHOD.md section 9).

Zhou, Loy and Dai, "Extract Free Dense Labels from CLIP", ECCV 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mmseg.registry import MODELS
from open_clip.transformer import VisionTransformer
from torch import Tensor

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
class MaskCLIP(OrdinaryImage):
    """out_proj(v), no residual, no MLP; no settings."""

    @torch.no_grad()
    def __call__(self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None) -> DenseOutput:
        """Encode normalised images (B, 3, H, W)."""
        tokens, grid = ordinary_blocks(vit, images, record)
        last = blocks(vit)[-1]
        q, k, v = qkv(last, tokens)  # (B, H, 1+N, d/H)
        patches = attention_output(last, v[:, :, 1:])
        return dense_output(vit, patches, class_embedding(vit, tokens, q, k, v), grid, record)
