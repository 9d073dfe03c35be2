"""MeanKK: the key-key attention of all layers, averaged, in the last block (docs/METHOD.md section 9).

The baseline that RF-CLIP builds on: `RefocusCLIP` without its three steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mmseg.registry import MODELS
from open_clip.transformer import VisionTransformer
from torch import Tensor

from rfclip.clip.towers import attention_output, blocks, qkv
from rfclip.methods.attention import KeyAttention
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
class MeanKK(OrdinaryImage):
    """mean over layers of softmax kk, its patch-patch block; no residual, no MLP; no settings."""

    @torch.no_grad()
    def __call__(self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None) -> DenseOutput:
        """Encode normalised images (B, 3, H, W)."""
        keys = KeyAttention()
        tokens, grid = ordinary_blocks(vit, images, record, keys)
        last = blocks(vit)[-1]
        q, k, v = qkv(last, tokens)  # (B, H, 1+N, d/H)
        keys.add(k)
        if record is not None:
            record.record("attn_dense", None, keys.mean())
        patches = attention_output(last, keys.attend(v[:, :, 1:]))
        return dense_output(vit, patches, class_embedding(vit, tokens, q, k, v), grid, record)
