"""ClearCLIP: query-query attention, nothing added to it, in the last block (docs/METHOD.md section 9).

Lan et al., "ClearCLIP: Decomposing CLIP Representations for Dense Vision-Language Inference", ECCV 2024.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mmseg.registry import MODELS
from open_clip.transformer import VisionTransformer
from torch import Tensor

from rfclip.clip.towers import attention_output, blocks, fused_attention, qkv, softmax_attention
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
class ClearCLIP(OrdinaryImage):
    """softmax qq, no residual, no MLP; no settings."""

    @torch.no_grad()
    def __call__(self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None) -> DenseOutput:
        """Encode normalised images (B, 3, H, W)."""
        tokens, grid = ordinary_blocks(vit, images, record)
        last = blocks(vit)[-1]
        q, k, v = qkv(last, tokens)  # (B, H, 1+N, d/H)
        if record is not None:
            record.record("attn_dense", None, softmax_attention(q, q))
        patches = attention_output(last, fused_attention(q, q, v)[:, :, 1:])
        return dense_output(vit, patches, class_embedding(vit, tokens, q, k, v), grid, record)
