"""SCLIP: correlative self-attention in the last block (docs/METHOD.md section 9).

Wang, Mei and Yuille, "SCLIP: Rethinking Self-Attention for Dense Vision-Language Inference", ECCV 2024.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mmseg.registry import MODELS
from open_clip.transformer import VisionTransformer
from torch import Tensor

from rfclip.clip.towers import add_mlp, blocks, fused_attention, qkv, softmax_attention
from rfclip.methods.base import (
    DenseOutput,
    OrdinaryImage,
    Recorder,
    attention_branch,
    class_embedding,
    dense_output,
    ordinary_blocks,
)


@MODELS.register_module()
@dataclass(frozen=True)
class SCLIP(OrdinaryImage):
    """(softmax qq + softmax kk) v, a sum and not a mean, residual and MLP kept; no settings."""

    @torch.no_grad()
    def __call__(self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None) -> DenseOutput:
        """Encode normalised images (B, 3, H, W)."""
        tokens, grid = ordinary_blocks(vit, images, record)
        last = blocks(vit)[-1]
        q, k, v = qkv(last, tokens)  # (B, H, 1+N, d/H)
        if record is not None:
            record.record("attn_dense", None, softmax_attention(q, q) + softmax_attention(k, k))
        heads = fused_attention(q, q, v) + fused_attention(k, k, v)
        image = class_embedding(vit, tokens, q, k, v)
        tokens = add_mlp(last, tokens + attention_branch(last, heads))
        return dense_output(vit, tokens[:, 1:], image, grid, record)
