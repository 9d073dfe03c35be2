"""RF-CLIP as the paper has it: refocusing at every layer (docs/METHOD.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from rfclip.clip.towers import attention_output, blocks, num_layers, qkv
from rfclip.methods.attention import KeyAttention
from rfclip.methods.base import METHODS, DenseOutput, Recorder, Show, class_embedding, dense_output
from rfclip.methods.refocusing import RefocusedSteps, Refocusing, chosen_layers
from rfclip.methods.stream import run_blocks
from rfclip.refocus import redistribute_attention


@METHODS.register
@dataclass(frozen=True)
class RefocusCLIP(Refocusing):
    """Target refocusing: distractors are moderated, and their attention goes to the defocused tokens.

    Attributes:
        distraction_dims: channels in which distractors are over-activated, each in 0..d-1; empty: no token is
            a distractor; 'auto': those of the weights, filled in by the RFCLIP segmentor.
        tau: threshold of the distraction score in units of 1/d, at least 0.
        beta: share of a distractor's attention that is moved, in 0..1.
        layers: blocks to refocus: 'all'; 'last'; or a list of indices, counted from 0. A chosen block has its
            attention redistributed and, unless it is the last one, the embeddings that it puts out.
        solver: of the normalised cut, see `rfclip.normalized_cut.fiedler_vector`.

    Raises:
        ValueError: a setting is out of its range.
    """

    def check_tower(self, vit: VisionTransformer) -> None:
        """Raise ValueError if `layers` names a block that the tower does not have."""
        chosen_layers(self.layers, num_layers(vit))

    @torch.no_grad()
    def __call__(self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None) -> DenseOutput:
        """Encode normalised images (B, 3, H, W)."""
        *earlier, last = blocks(vit)
        show, keys = Show(record), KeyAttention()
        steps = RefocusedSteps(self, vit, show, keys)
        tokens, grid = run_blocks(vit, images, steps)
        q, k, v = qkv(last, tokens)  # (B, H, 1+N, d/H)
        keys.add(k)
        show("attn_dense", None, keys.mean)
        if steps.moves(len(earlier)):
            moved = steps.distractors, steps.locate_defocus(len(earlier), keys.mean_over_heads()), self.beta
            show("attn_dense_refocused", None, lambda: redistribute_attention(keys.mean(), *moved))
            heads = keys.attend_redistributed(v[:, :, 1:], *moved)
        else:
            heads = keys.attend(v[:, :, 1:])
        patches = attention_output(last, heads)  # no residual, no MLP
        return dense_output(vit, patches, class_embedding(vit, tokens, q, k, v), grid, show)

    @torch.no_grad()
    def image_embedding(self, vit: VisionTransformer, images: Tensor) -> Tensor:
        """Return DenseOutput.image (B, E) of images (B, 3, H, W), without the rest."""
        tokens, _ = run_blocks(vit, images, RefocusedSteps(self, vit, Show(), None))
        return class_embedding(vit, tokens, *qkv(blocks(vit)[-1], tokens))
