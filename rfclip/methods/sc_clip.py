"""SC-CLIP: CLIP calibrated by itself (docs/METHODS.md, SC-CLIP).

Bai et al., "Self-Calibrated CLIP for Training-Free Open-Vocabulary Segmentation", 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from rfclip.checks import (
    Checked,
    check_above_zero,
    check_at_least_zero,
    check_range,
    check_some_indices,
    check_whole,
    setting,
)
from rfclip.clip.towers import attention_output, blocks, kv, num_layers, qkv, softmax_attention
from rfclip.methods.base import METHODS, DenseOutput, Recorder, Show, class_embedding, dense_output
from rfclip.methods.similar import contrasted, cosines, repair, spread
from rfclip.methods.stream import OnStream, check_block_outputs


@METHODS.register
@dataclass(frozen=True)
class SCCLIP(Checked, OnStream):
    """Anomalous tokens repaired, features spread by mid-layer similarity, and fused from several layers.

    Attributes:
        pre_layer: block output (from 0, at most L-2) whose similarities make the mask and spread the input.
        post_layer: block output whose similarities spread the result.
        fusion_layers: block outputs that are summed to a second input.
        class_weight: of the class token that is added to every patch, at least 0.
        similarity_threshold: cosines below it do not spread, in -1..1.
        lof_neighbors: nearest tokens that decide whether a token is anomalous, at least 1.
        contamination: share of the tokens that are anomalous, in 0..1.
        contrast: of the mask attention, above 0.

    Raises:
        ValueError: a setting is out of its range; from `check_tower`, a layer that the tower does not have.
    """

    pre_layer: int = setting(8, check_whole, depth=12)
    post_layer: int = setting(3, check_whole, depth=12)
    fusion_layers: Sequence[int] = setting((3, 4, 5, 6, 7, 8, 9), check_some_indices, depth=12)
    class_weight: float = setting(0.3, check_at_least_zero)
    similarity_threshold: float = setting(0.4, check_range, -1, 1)
    lof_neighbors: int = setting(30, check_whole, 1)
    contamination: float = setting(0.05, check_range, 0, 1)
    contrast: float = setting(3.0, check_above_zero)

    def check_tower(self, vit: VisionTransformer) -> None:
        """Raise ValueError if a layer is no block output of the tower before the last block."""
        check_block_outputs([self.pre_layer, self.post_layer, *self.fusion_layers], num_layers(vit))

    @torch.no_grad()
    def __call__(self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None) -> DenseOutput:
        """Encode normalised images (B, 3, H, W)."""
        self.check_tower(vit)
        show = Show(record)
        outputs: list[Tensor] = []
        tokens, grid = self.stream(vit, images, show, outputs=outputs)  # F_l and c_l: outputs[l], (B, 1+N, d)
        last, x = blocks(vit)[-1], tokens[:, 1:]

        damaged = anomalous(x, self.lof_neighbors, self.contamination)
        similarity = cosines(repair(outputs[self.pre_layer][:, 1:], damaged, grid))
        mask = contrasted(similarity, self.contrast)[:, None]  # (B, 1, N, N)
        show("similarity", None, similarity)

        def attend(patches: Tensor, class_token: Tensor) -> Tensor:
            k, v = kv(last, patches.to(tokens.dtype))
            attention = (softmax_attention(k, k) + mask) / 2
            return attention_output(last, (attention.to(v.dtype) @ v)) + self.class_weight * class_token

        enhanced = spread(similarity, repair(x, damaged, grid), self.similarity_threshold)
        fused = torch.stack([outputs[layer] for layer in self.fusion_layers]).sum(0)
        after = cosines(outputs[self.post_layer][:, 1:])
        calibrated = attend(enhanced, tokens[:, :1]) + attend(fused[:, 1:], fused[:, :1])
        dense = spread(after, calibrated, self.similarity_threshold)
        return dense_output(vit, dense, class_embedding(vit, tokens, *qkv(last, tokens)), grid, show)


def anomalous(patches: Tensor, neighbours: int, contamination: float) -> Tensor:
    """Find the tokens that lie far from their neighbourhood, by a local outlier factor.

    Args:
        patches: (B, N, d).
        neighbours: nearest tokens looked at, at most N-1 are.
        contamination: a token is anomalous above the 1 - contamination quantile of its image.

    Returns:
        (B, N) bool. With r the squared distance to the last of the neighbours K, the factor is r times the mean
        over K of 1 / r; a plain local outlier factor is another number. Where K is all other tokens, the two that lie
        farthest from each other have the same factor but for rounding, which does not count: of up to 21 tokens none
        is among the 5 % then.
    """
    count = min(neighbours, patches.shape[1] - 1)
    if count < 1:
        return torch.zeros(patches.shape[:2], dtype=torch.bool, device=patches.device)
    with torch.autocast(patches.device.type, enabled=False):
        centred = patches.float() - patches.float().mean(1, keepdim=True)
        squares = centred.square().sum(-1)
        products = centred @ centred.transpose(1, 2)
        distances = squares[:, :, None] + squares[:, None] - (products + products.transpose(1, 2))  # symmetric
    distances.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    near, index = distances.clamp_min(0).topk(count, largest=False)  # (B, N, n)
    reach = near[..., -1].clamp_min(torch.finfo(near.dtype).tiny)  # (B, N)
    inverse = (1 / reach)[:, None].expand(-1, len(reach[0]), -1).gather(2, index)
    factor = reach * inverse.mean(-1)
    rounding = 1 + 8 * torch.finfo(factor.dtype).eps
    return factor > factor.quantile(1 - contamination, dim=1, keepdim=True) * rounding
