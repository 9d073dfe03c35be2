"""ProxyCLIP: a vision model says which patches belong together, CLIP what they are (docs/METHODS.md, ProxyCLIP)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from rfclip.checks import Checked, check_above_zero, check_range, setting
from rfclip.clip.towers import attention_output, blocks, qkv
from rfclip.methods.base import METHODS, DenseOutput, Recorder, Show, class_embedding, dense_output
from rfclip.methods.similar import contrasted
from rfclip.methods.vision import SightedMethod, on_grid, vfm_setting


@METHODS.register
@dataclass(frozen=True)
class ProxyCLIP(Checked, SightedMethod):
    """Softmax of gamma (S - beta mean S) where that is not negative, S the cosines of the vision model's patches.

    The dense output stands on the vision model's grid.

    Attributes:
        vfm: the vision model, dict(type='DINO', pretrained=NAME|FILE|'auto', heads=None).
        beta: how many times the mean cosine a cosine must reach to count.
        gamma: sharpness of the softmax.

    Raises:
        ValueError: a setting is out of its range, or the vision model cannot be used.
        TypeError: `vfm` is no dict, or has an unknown entry.
    """

    vfm: Mapping[str, Any] = vfm_setting()
    beta: float = setting(1.2, check_range, 0, 1000)
    gamma: float = setting(3.0, check_above_zero)

    @torch.no_grad()
    def __call__(self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None) -> DenseOutput:
        """Encode normalised images (B, 3, H, W)."""
        show = Show(record)
        unit, fine = self.sight.unit_patches(images)  # (B, N', d'), the vision model's grid
        tokens, grid = self.stream(vit, images, show)
        last = blocks(vit)[-1]
        q, k, v = qkv(last, tokens)  # (B, H, 1+N, d/H)
        image = class_embedding(vit, tokens, q, k, v)
        values = on_grid(v[:, :, 1:], grid, fine)  # (B, H, N', d/H)
        with torch.autocast(images.device.type, enabled=False):
            similarity = unit @ unit.transpose(-1, -2)
            show("vision_similarity", None, similarity)
            attention = contrasted(similarity, self.gamma, self.beta)[:, None]  # the same for all heads
            show("attn_dense", None, attention)
            heads = attention @ values.to(attention.dtype)
        return dense_output(vit, attention_output(last, heads.to(v.dtype)), image, fine, show)
