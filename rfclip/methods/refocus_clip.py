"""RF-CLIP as the paper has it: refocusing at every layer (docs/METHOD.md section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from rfclip.checks import Checked, check_at_least_zero, check_choice, check_range, setting
from rfclip.clip.towers import (
    add_mlp,
    attention_output,
    blocks,
    embed,
    fused_attention,
    num_layers,
    qkv,
    run_block,
    softmax_attention,
)
from rfclip.methods.attention import KeyAttention, redistributed_attention, redistributed_matrix
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
    show_boundary,
)
from rfclip.normalized_cut import SOLVERS
from rfclip.refocus import (
    cut_vector,
    defocused_side,
    locate_distractors,
    redistribute_attention,
    redistribute_embedding,
)


@METHODS.register
@dataclass(frozen=True)
class RefocusCLIP(Checked):
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

    distraction_dims: str | Sequence[int] = setting("auto", check_words_or_indices, "auto")
    tau: float = setting(5.0, check_at_least_zero)
    beta: float = setting(0.7, check_range, 0, 1)
    layers: str | Sequence[int] = setting("all", check_words_or_indices, "all", "last")
    solver: str = setting("auto", check_choice, tuple(SOLVERS))

    def check_tower(self, vit: VisionTransformer) -> None:
        """Raise ValueError if `layers` names a block that the tower does not have."""
        chosen_layers(self.layers, num_layers(vit))

    @torch.no_grad()
    def __call__(self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None) -> DenseOutput:
        """Encode normalised images (B, 3, H, W)."""
        *earlier, last = blocks(vit)
        end = len(earlier)
        show = Show(record)
        keys, cuts = KeyAttention(), _Cuts(self.solver, show)
        tokens, distractors, grid = self._refocused_blocks(vit, images, keys, cuts, show)
        q, k, v = qkv(last, tokens)
        keys.add(k)
        if end in chosen_layers(self.layers, num_layers(vit)) and cuts.needed(distractors):
            defocus = cuts.locate_defocus(keys.mean_over_heads(), distractors, end)
            heads = keys.attend_redistributed(v[:, :, 1:], distractors, defocus, self.beta)
            show(
                "attn_dense_refocused",
                None,
                lambda: redistribute_attention(keys.mean(), distractors, defocus, self.beta),
            )
        else:
            heads = keys.attend(v[:, :, 1:])
        show_attention(show, end, q, k)
        show("attn_dense", None, keys.mean)
        show("residual", end + 1, run_block, last, tokens)
        patches = attention_output(last, heads)  # no residual, no MLP
        return dense_output(vit, patches, class_embedding(vit, tokens, q, k, v), grid, show)

    @torch.no_grad()
    def image_embedding(self, vit: VisionTransformer, images: Tensor) -> Tensor:
        """Return DenseOutput.image (B, E) of images (B, 3, H, W), without the rest."""
        silent, keys = Show(), KeyAttention(sum_up=False)
        tokens, _, _ = self._refocused_blocks(vit, images, keys, _Cuts(self.solver, silent), silent)
        return class_embedding(vit, tokens, *qkv(blocks(vit)[-1], tokens))

    def _refocused_blocks(
        self,
        vit: VisionTransformer,
        images: Tensor,
        keys: KeyAttention,
        cuts: _Cuts,
        show: Show,
    ) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Run all blocks but the last, refocused, and add their key-key attention to `keys`.

        Returns:
            The tokens (B, 1+N, d) that the last block reads, the distractors (B, N) among them before these were
            moderated, and the grid (h, w).
        """
        dims = resolve_dims(self.distraction_dims, vit)
        chosen = chosen_layers(self.layers, num_layers(vit))
        *earlier, _ = blocks(vit)
        tokens, grid = embed(vit, images)  # (B, 1+N, d)
        boundary = partial(self._boundary, dims=dims, chosen=chosen, grid=grid, show=show)
        for layer, block in enumerate(earlier):
            tokens, distractors = boundary(layer, tokens)
            q, k, v = qkv(block, tokens)  # (B, H, 1+N, d/H)
            if layer in chosen and cuts.needed(distractors):
                defocus = cuts.locate_defocus(keys.add_and_look(k), distractors, layer)  # (B, N)
                heads = redistributed_attention(q, k, v, distractors, defocus, self.beta)
                show("attn_refocused", layer, _refocused, q, k, distractors, defocus, self.beta)
            else:
                keys.add(k)
                heads = fused_attention(q, k, v)
            show_attention(show, layer, q, k)
            tokens = add_mlp(block, tokens + attention_branch(block, heads))
        tokens, distractors = boundary(len(earlier), tokens)
        return tokens, distractors, grid

    def _boundary(
        self,
        layer: int,
        tokens: Tensor,
        dims: tuple[int, ...],
        chosen: frozenset[int],
        grid: tuple[int, int],
        show: Show,
    ) -> tuple[Tensor, Tensor]:
        """Locate the distractors in what reaches a block, then moderate them if the block before is chosen.

        Returns:
            The tokens (B, 1+N, d) for the block, and the distractors (B, N) as they were before moderation.
        """
        patches = tokens[:, 1:]
        distractors = locate_distractors(patches, dims, self.tau)
        show_boundary(show, layer, tokens, dims, distractors)
        if layer - 1 in chosen:
            patches = redistribute_embedding(patches, distractors, dims, grid)
            tokens = torch.cat([tokens[:, :1], patches], dim=1)
            show("residual_refocused", layer, tokens)
        return tokens, distractors


def chosen_layers(layers: str | Sequence[int], count: int) -> frozenset[int]:
    """Return the indices of the blocks to refocus, of a tower of `count` blocks.

    Raises:
        ValueError: an index is no block of the tower.
    """
    if isinstance(layers, str):
        return frozenset(range(count) if layers == "all" else [count - 1])
    outside = [layer for layer in layers if layer >= count]
    if outside:
        raise ValueError(f"layers {outside} do not exist: this tower has the blocks 0..{count - 1}")
    return frozenset(layers)


def _refocused(q: Tensor, k: Tensor, distractors: Tensor, defocus: Tensor, beta: float) -> Tensor:
    """A block's redistributed attention as a matrix to look at, (B, H, 1+N, 1+N)."""
    return redistributed_matrix(softmax_attention(q, k), distractors, defocus, beta)


class _Cuts:
    """The normalised cuts of one call, each started from the one before.

    Images without distractors are not cut, since nothing of theirs is moved: only who listens wants them all.
    """

    def __init__(self, solver: str, show: Show) -> None:
        self._solver = solver
        self._show = show
        self._y: Tensor | None = None  # (B, N)

    def needed(self, distractors: Tensor) -> bool:
        """Tell whether any image has to be cut, given the distractors (B, N)."""
        return self._show.listened or bool(distractors.any())

    def locate_defocus(self, attn_kk: Tensor, distractors: Tensor, layer: int) -> Tensor:
        """As `rfclip.refocus.locate_defocus`; of no meaning for an image that is not cut."""
        images = torch.ones_like(distractors[:, 0]) if self._show.listened else distractors.any(-1)
        start = torch.zeros_like(attn_kk[:, 0], dtype=torch.float64) if self._y is None else self._y
        self._y = start.clone()
        self._y[images] = cut_vector(attn_kk[images], self._solver, start[images])
        defocus = defocused_side(self._y, distractors)
        self._show("fiedler", layer, self._y)
        self._show("defocus", layer, defocus)
        return defocus
