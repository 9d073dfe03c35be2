"""CLIP as it is: the patch tokens of the unchanged last block (docs/METHOD.md section 9)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mmseg.registry import MODELS
from open_clip.transformer import VisionTransformer
from torch import Tensor

from rfclip.clip.towers import blocks, project, run_block
from rfclip.methods.base import DenseOutput, OrdinaryImage, Recorder, dense_output, ordinary_blocks


@MODELS.register_module()
@dataclass(frozen=True)
class VanillaCLIP(OrdinaryImage):
    """The baseline without any change; it has no settings."""

    @torch.no_grad()
    def __call__(self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None) -> DenseOutput:
        """Encode normalised images (B, 3, H, W)."""
        tokens, grid = ordinary_blocks(vit, images, record)
        last = blocks(vit)[-1]
        tokens = run_block(last, tokens)
        return dense_output(vit, tokens[:, 1:], project(vit, tokens[:, 0]), grid, record)
