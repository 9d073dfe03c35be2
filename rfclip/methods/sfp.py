"""SFP: salient tokens found by the class token's attention, and purified (docs/METHODS.md, SFP).

The released code held several algorithms; `version` says which: 'v1' (to 2026-02), 'v2' (from 2026-03).
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
    check_choice,
    check_range,
    check_some_indices,
    check_whole,
    setting,
)
from rfclip.clip.towers import attention_output, blocks, num_layers, qkv, softmax_attention
from rfclip.methods.base import METHODS, DenseOutput, Recorder, Show, class_embedding, dense_output
from rfclip.methods.similar import contrasted, cosines, repair, spread
from rfclip.methods.stream import OnStream, check_block_outputs

FUSION = {"v1": (3, 4, 5, 6, 7, 8, 9, 10), "v2": (3, 4, 5, 6, 7, 8, 9)}


def _check_fusion(name: str, value: object) -> tuple[int, ...] | None:
    return None if value is None else check_some_indices(name, value)


@METHODS.register
@dataclass(frozen=True)
class SFP(Checked, OnStream):
    """Salient tokens repaired by their neighbours; kk and qq attention; several layers fused.

    Attributes:
        version: 'v2', or 'v1', which neither spreads by similarity nor has a mask attention.
        pre_layer: block output (from 0, at most L-2) whose similarities spread the input (v2).
        post_layer: block output whose similarities spread the result (v2).
        fusion_layers: block outputs that are summed to a second input; None: the version's own of a 12-block tower.
        class_weight: of the class token that is added to every patch, at least 0.
        salience: how much more than itself a token must be looked at, at least 0.
        max_tokens: most salient tokens of an image.
        similarity_threshold: cosines below it count as 0, in -1..1 (v2).
        contrast: of the mask attention, above 0 (v2).

    Raises:
        ValueError: a setting is out of its range; from `check_tower`, a layer that the tower does not have.
    """

    version: str = setting("v2", check_choice, tuple(FUSION))
    pre_layer: int = setting(8, check_whole, depth=12)
    post_layer: int = setting(3, check_whole, depth=12)
    fusion_layers: Sequence[int] = setting(None, _check_fusion, depth=12)
    class_weight: float = setting(0.3, check_at_least_zero)
    salience: float = setting(5.0, check_at_least_zero)
    max_tokens: int = setting(10, check_whole)
    similarity_threshold: float = setting(0.4, check_range, -1, 1)
    contrast: float = setting(3.0, check_above_zero)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fusion_layers is None:
            object.__setattr__(self, "fusion_layers", FUSION[self.version])

    def check_tower(self, vit: VisionTransformer) -> None:
        """Raise ValueError if a layer is no block output of the tower before the last block."""
        spreading = [self.pre_layer, self.post_layer] if self.version == "v2" else []
        check_block_outputs([*spreading, *self.fusion_layers], num_layers(vit))

    @torch.no_grad()
    def __call__(self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None) -> DenseOutput:
        """Encode normalised images (B, 3, H, W)."""
        self.check_tower(vit)
        show = Show(record)
        outputs: list[Tensor] = []
        inputs: list[Tensor] = []
        tokens, grid = self.stream(vit, images, show, outputs=outputs, inputs=inputs)
        *_, before, last = blocks(vit)
        damaged = self.salient(softmax_attention(*qkv(before, inputs[-1])[:2]).mean(1))
        fused = torch.stack([outputs[layer] for layer in self.fusion_layers]).sum(0)
        if self.version == "v1":
            dense = self._attended(last, repair(tokens[:, 1:], damaged, grid, "zero"), tokens[:, :1])
            dense = dense + self._attended(last, fused[:, 1:], fused[:, :1])
        else:
            pre = cosines(repair(outputs[self.pre_layer][:, 1:], damaged, grid))
            pre = pre.masked_fill(pre < self.similarity_threshold, 0)
            show("similarity", None, pre)
            mask = contrasted(pre, self.contrast)[:, None]  # (B, 1, N, N)
            x = spread(pre, repair(tokens[:, 1:], damaged, grid), self.similarity_threshold).to(tokens.dtype)
            dense = self._attended(last, x, tokens[:, :1], mask)
            v = qkv(last, fused[:, 1:])[2]
            dense = dense + attention_output(last, mask.to(v.dtype) @ v) + self.class_weight * fused[:, :1]
            dense = spread(cosines(outputs[self.post_layer][:, 1:]), dense, self.similarity_threshold)
        return dense_output(vit, dense, class_embedding(vit, tokens, *qkv(last, tokens)), grid, show)

    def salient(self, attention: Tensor) -> Tensor:
        """Which patches the class token looks at more than they at themselves, (B, N) bool; at most `max_tokens`.

        Args:
            attention: mean over heads of a block's attention (B, 1+N, 1+N).
        """
        looked_at = self.class_weight * self.salience * attention[:, 0, 1:]  # (B, N)
        candidates = looked_at > attention.diagonal(dim1=1, dim2=2)[:, 1:]
        ranked = looked_at.masked_fill(~candidates, -torch.inf)
        most = ranked.topk(min(self.max_tokens, ranked.shape[1]), dim=1).indices
        return torch.zeros_like(candidates).scatter(1, most, True) & candidates

    def _attended(
        self, last: torch.nn.Module, patches: Tensor, class_token: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """The last block's kk and qq attention, with the mask's if there is one, over patches (B, N, d) alone."""
        q, k, v = qkv(last, patches)
        terms = [softmax_attention(k, k), softmax_attention(q, q), *([] if mask is None else [mask])]
        attention = sum(terms[1:], terms[0]) / len(terms)
        return attention_output(last, attention.to(v.dtype) @ v) + self.class_weight * class_token
