"""RF-CLIP as its authors' code computes it, which is not the paper's algorithm (docs/METHOD.md section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor

from rfclip.checks import Checked, check_at_least_zero, check_grid, check_range, setting
from rfclip.clip.precision import at_least_fp32
from rfclip.clip.towers import add_mlp, attention_output, blocks, embed, fused_attention, kv, project, qkv, run_block
from rfclip.methods.attention import KeyAttention
from rfclip.methods.base import (
    METHODS,
    DenseOutput,
    Recorder,
    Show,
    attention_branch,
    check_words_or_indices,
    class_embedding,
    dense_output,
    resolve_dims,
    show_attention,
    show_attention_of,
    show_boundary,
)
from rfclip.refocus import locate_distractors


@METHODS.register
@dataclass(frozen=True)
class RefocusCLIPRelease(Checked):
    """Smoothed distractors, key-key attention averaged over layers, and patches enhanced by their like.

    Attributes:
        distraction_dims: channels in which distractors are over-activated, each in 0..d-1; empty: no token is
            a distractor; 'auto': those of the weights, filled in by the RFCLIP segmentor.
        tau: threshold of the distraction score in units of 1/d, at least 0.
        alpha: weight of the neighbourhood's mean in a smoothed token, in 0..1.
        similarity_threshold: cosines below it do not enhance, in -1..1.

    Raises:
        ValueError: a setting is out of its range.
    """

    distraction_dims: str | Sequence[int] = setting("auto", check_words_or_indices, "auto")
    tau: float = setting(5.0, check_at_least_zero)
    alpha: float = setting(0.4, check_range, 0, 1)
    similarity_threshold: float = setting(0.4, check_range, -1, 1)

    @torch.no_grad()
    def __call__(self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None) -> DenseOutput:
        """Encode normalised images (B, 3, H, W)."""
        dims = resolve_dims(self.distraction_dims, vit)
        *earlier, last = blocks(vit)
        keys = KeyAttention()

        tokens, grid = embed(vit, images)  # (B, 1+N, d)
        show = Show(record)
        show_boundary(show, 0, tokens, dims, locate_distractors(tokens[:, 1:], dims, self.tau))
        guide = torch.zeros_like(tokens)
        for layer, block in enumerate(earlier):
            q, k, v = qkv(block, tokens)  # (B, H, 1+N, d/H)
            keys.add(k)
            tokens = add_mlp(block, tokens + attention_branch(block, fused_attention(q, k, v)))
            show_attention(show, layer, q, k)
            tokens = self._smoothed(tokens, dims, grid, layer + 1, show)
            guide += tokens
        final = self._smoothed(run_block(last, tokens), dims, grid, len(earlier) + 1, show)
        guide = (guide + final) / (len(earlier) + 1)

        similarity = patch_similarity(guide[:, 1:], self.similarity_threshold)  # (B, N, N)
        heads = [_heads(keys, last, enhance(stream, similarity)) for stream in (tokens, guide)]
        patches = attention_output(last, (heads[0] + heads[1]) / 2)  # no residual, no MLP
        show_attention_of(show, len(earlier), last, tokens)
        show("guide", None, guide)
        show("similarity", None, similarity)
        return dense_output(vit, patches, project(vit, final[:, 0]), grid, show)

    @torch.no_grad()
    def image_embedding(self, vit: VisionTransformer, images: Tensor) -> Tensor:
        """Return DenseOutput.image (B, E) of images (B, 3, H, W), without the rest."""
        dims = resolve_dims(self.distraction_dims, vit)
        *earlier, last = blocks(vit)
        tokens, grid = embed(vit, images)
        for layer, block in enumerate(earlier):
            tokens = self._smoothed(run_block(block, tokens), dims, grid, layer + 1, Show())
        return class_embedding(vit, tokens, *qkv(last, tokens))  # smoothing leaves the class token alone

    def _smoothed(
        self,
        tokens: Tensor,
        dims: tuple[int, ...],
        grid: tuple[int, int],
        layer: int,
        show: Show,
    ) -> Tensor:
        """Smooth the distractors of a block's output (B, 1+N, d)."""
        distractors = locate_distractors(tokens[:, 1:], dims, self.tau)
        smoothed = torch.cat([tokens[:, :1], smooth(tokens[:, 1:], distractors, grid, self.alpha)], dim=1)
        show_boundary(show, layer, tokens, dims, distractors)
        show("residual_refocused", layer, smoothed)
        return smoothed


def smooth(patches: Tensor, distractors: Tensor, grid: tuple[int, int], alpha: float) -> Tensor:
    """Blend distractors with the mean of their 3 x 3 neighbourhood, in all channels.

    x_i becomes (1 - alpha) x_i + alpha mean9(x)_i, mean9 = box sum / 9 with zeros outside the grid, the centre
    included, of the values before any smoothing.

    Args:
        patches: x (B, N, d), not modified.
        distractors: (B, N) bool; all other tokens are kept.
        grid: (h, w), h*w = N.
        alpha: in 0..1.

    Returns:
        (B, N, d).

    Source: docs/METHOD.md section 4.1.
    """
    check_grid(patches.shape, grid)
    if not distractors.any():
        return patches
    smoothed = patches.clone()
    smoothed[distractors] = (1 - alpha) * patches[distractors] + alpha * _mean9(patches, distractors, grid)
    return smoothed


def _mean9(patches: Tensor, chosen: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the 3 x 3 box sum / 9 of patches (B, N, d), zero-padded, at the M chosen (B, N) ones: (M, d)."""
    numbers = torch.arange(1.0, patches.shape[1] + 1, device=patches.device).reshape(1, 1, *grid)
    windows = F.unfold(numbers, 3, padding=1)[0].T.long()  # (N, 9) patches counted from 1; 0: outside
    images, centres = chosen.nonzero(as_tuple=True)
    around = windows[centres]  # (M, 9)
    rows = (around - 1).clamp_min(0) + images[:, None] * patches.shape[1]
    weights = (around > 0).to(patches.dtype) / 9
    return F.embedding_bag(rows, patches.flatten(0, 1), mode="sum", per_sample_weights=weights)


def patch_similarity(patches: Tensor, threshold: float) -> Tensor:
    """Return the cosines between patches (B, N, d), those below the threshold set to 0: (B, N, N), fp32.

    Source: docs/METHOD.md section 4.4.
    """
    with torch.autocast(patches.device.type, enabled=False):
        unit = F.normalize(patches.to(at_least_fp32(patches)), dim=-1)
        cosines = unit @ unit.transpose(1, 2)
    return cosines.masked_fill_(cosines < threshold, 0)


def enhance(tokens: Tensor, similarity: Tensor) -> Tensor:
    """Replace each patch token by the sum of all, weighted by similarity (B, N, N); the class token stays.

    Args:
        tokens: (B, 1+N, d), class token first, not modified.
        similarity: (B, N, N).

    Source: docs/METHOD.md section 4.4.
    """
    with torch.autocast(tokens.device.type, enabled=False):
        patches = similarity @ tokens[:, 1:].to(similarity.dtype)
    return torch.cat([tokens[:, :1], patches.to(tokens.dtype)], dim=1)


def _heads(keys: KeyAttention, last: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    """Attend in the last block by the layers' mean key-key attention, tokens (B, 1+N, d) being its input."""
    k, v = kv(last, tokens)
    return keys.attend_with(k, v[:, :, 1:])
