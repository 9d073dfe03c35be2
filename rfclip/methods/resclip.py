"""ResCLIP: the last block's attention mixed with that of earlier blocks and with its own labels (docs/METHODS.md).

Yang et al., "ResCLIP: Residual Attention for Training-free Dense Vision-language Inference", CVPR 2025.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor

from rfclip.checks import (
    Checked,
    check_above_zero,
    check_at_least_zero,
    check_choice,
    check_indices,
    check_range,
    check_switch,
    setting,
)
from rfclip.clip.precision import at_least_fp32
from rfclip.clip.towers import (
    add_mlp,
    attention_output,
    blocks,
    num_layers,
    patch_size,
    project,
    qkv,
    softmax_attention,
)
from rfclip.methods.base import METHODS, DenseOutput, Recorder, Show, attention_branch, class_embedding, dense_output
from rfclip.methods.baselines import neighbourhood
from rfclip.methods.feedback import semantic_feedback, window_labels
from rfclip.methods.needs import Given
from rfclip.methods.stream import OnStream, check_block_outputs

BASES = ("naclip", "sclip", "clearclip", "vanilla")


@METHODS.register
@dataclass(frozen=True)
class ResCLIP(Checked, OnStream):
    """Residual attention from earlier blocks (rcs), and a second pass that follows the first one's labels (sfr).

    Attributes:
        base: whose attention the last block has: 'naclip', 'sclip', 'clearclip' or 'vanilla'.
        rcs: whether attention of earlier blocks is mixed in.
        sfr: whether there is a second pass.
        rcs_layers: blocks (from 0, at most L-2) whose attention is averaged.
        rcs_scale, rcs_weight: of the mix, (1 - weight) own + weight theirs, times scale.
        sfr_scale, sfr_weight: of the mix of scores and labels, likewise.
        label_threshold: pixels less sure than it become query 0, 0..1.
        gaussian_std: of the neighbourhood of 'naclip', in patches, and of the blur of the labels' matrix.

    Raises:
        ValueError: a setting is out of its range; from `check_tower`, a layer that the tower does not have.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"text"})

    base: str = setting("naclip", check_choice, BASES)
    rcs: bool = setting(True, check_switch)
    sfr: bool = setting(True, check_switch)
    rcs_layers: Sequence[int] = setting((5, 6, 7, 8), check_indices, depth=12)
    rcs_scale: float = setting(2.0, check_at_least_zero)
    rcs_weight: float = setting(0.3, check_range, 0, 1)
    sfr_scale: float = setting(2.2, check_at_least_zero)
    sfr_weight: float = setting(0.7, check_range, 0, 1)
    label_threshold: float = setting(0.5, check_range, 0, 1)
    gaussian_std: float = setting(5.0, check_above_zero)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rcs and not self.rcs_layers:
            raise ValueError("rcs_layers must name a block while rcs is on, got none: give some, or rcs=False")

    def check_tower(self, vit: VisionTransformer) -> None:
        """Raise ValueError if a layer is no block of the tower before the last one."""
        check_block_outputs(self.rcs_layers if self.rcs else (), num_layers(vit))

    @torch.no_grad()
    def __call__(
        self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None, given: Given | None = None
    ) -> DenseOutput:
        """Encode normalised images (B, 3, H, W), for the queries that are given."""
        if given is None:
            raise ValueError("ResCLIP looks at the words while it encodes: it is run by RFCLIP or OpenVocabSegmenter")
        self.check_tower(vit)
        show = Show(record)
        read: list[Tensor] = []
        tokens, grid = self.stream(vit, images, show, inputs=read)
        last = blocks(vit)[-1]
        earlier = [
            softmax_attention(*qkv(blocks(vit)[layer], read[layer])[:2]) for layer in self.rcs_layers if self.rcs
        ]
        theirs = torch.stack(earlier).mean(0) if earlier else None  # (B, H, 1+N, 1+N)

        def attended(feedback: Tensor | None) -> Tensor:
            attention = self._attention(last, tokens, grid, feedback)
            if theirs is not None:
                attention = self.rcs_scale * ((1 - self.rcs_weight) * attention + self.rcs_weight * theirs)
            if feedback is not None or not self.sfr:
                show("attn_dense", None, attention)
            v = qkv(last, tokens)[2]
            heads = attention.to(v.dtype) @ v
            if self.base in ("sclip", "vanilla"):
                return add_mlp(last, tokens + attention_branch(last, heads))[:, 1:]
            return attention_output(last, heads[:, :, 1:])

        patches = attended(None)
        if self.sfr:
            embedded, side = project(vit, patches), patch_size(vit)
            labels = window_labels(embedded, images, grid, side, given, self.label_threshold)
            patches = attended(F.pad(semantic_feedback(labels, grid, self.gaussian_std), (1, 0, 1, 0))[:, None])
        return dense_output(vit, patches, class_embedding(vit, tokens, *qkv(last, tokens)), grid, show)

    def _attention(
        self, last: ResidualAttentionBlock, tokens: Tensor, grid: tuple[int, int], feedback: Tensor | None
    ) -> Tensor:
        """The base's attention (B, H, 1+N, 1+N); its scores mixed with the feedback (B, 1, 1+N, 1+N), if any."""
        q, k, _ = (heads.to(at_least_fp32(heads)) for heads in qkv(last, tokens))
        with torch.autocast(tokens.device.type, enabled=False):

            def attend(left: Tensor, right: Tensor, omega: Tensor | float = 0.0) -> Tensor:
                scores = left @ right.transpose(-1, -2) * left.shape[-1] ** -0.5
                if feedback is not None:
                    scores = self.sfr_scale * ((1 - self.sfr_weight) * scores + self.sfr_weight * feedback)
                return (scores + omega).softmax(-1)

            if self.base == "naclip":
                omega = F.pad(neighbourhood(grid, self.gaussian_std, k.device), (1, 0, 1, 0))
                return attend(k, k, omega.to(k.dtype))
            if self.base == "sclip":
                return attend(q, q) + attend(k, k)
            return attend(q, q) if self.base == "clearclip" else attend(q, k)
