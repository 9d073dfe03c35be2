"""The stream of RF-CLIP: distractors moderated, their attention redistributed (docs/METHOD.md section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from rfclip.checks import Checked, check_at_least_zero, check_choice, check_range, setting
from rfclip.clip.towers import num_layers, softmax_attention
from rfclip.methods.attention import KeyAttention, redistributed_attention, redistributed_matrix
from rfclip.methods.base import Show, check_words_or_indices, resolve_dims, show_boundary
from rfclip.methods.stream import OrdinarySteps
from rfclip.normalized_cut import SOLVERS
from rfclip.refocus import cut_vector, defocused_side, locate_distractors, redistribute_embedding


@dataclass(frozen=True)
class Refocusing(Checked):
    """Settings of the stream; `RefocusCLIP` and `Refocused` say what they mean to them."""

    distraction_dims: str | Sequence[int] = setting("auto", check_words_or_indices, "auto")
    tau: float = setting(5.0, check_at_least_zero)
    beta: float = setting(0.7, check_range, 0, 1)
    layers: str | Sequence[int] = setting("all", check_words_or_indices, "all", "last")
    solver: str = setting("auto", check_choice, tuple(SOLVERS))


class RefocusedSteps(OrdinarySteps):
    """Moderates the distractors between the blocks and redistributes the attention on them, in the chosen blocks.

    The normalised cuts of a call start from one another. Images without distractors are not cut, since nothing of
    theirs is moved: only who listens wants them all.

    Attributes:
        distractors: (B, N) bool of the last boundary, as they were before they were moderated.
    """

    def __init__(self, settings: Refocusing, vit: VisionTransformer, show: Show, keys: KeyAttention | None) -> None:
        super().__init__(show, keys)
        self._settings = settings
        self._dims = resolve_dims(settings.distraction_dims, vit)
        self._chosen = chosen_layers(settings.layers, num_layers(vit))
        self._y: Tensor | None = None  # (B, N)
        self.distractors = torch.empty(0, dtype=torch.bool)

    def boundary(self, layer: int, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Locate the distractors in what reaches a block, then moderate them if the block before is chosen."""
        patches = tokens[:, 1:]
        self.distractors = locate_distractors(patches, self._dims, self._settings.tau)
        show_boundary(self.show, layer, tokens, self._dims, self.distractors)
        if layer - 1 in self._chosen:
            patches = redistribute_embedding(patches, self.distractors, self._dims, grid)
            tokens = torch.cat([tokens[:, :1], patches], dim=1)
            self.show("residual_refocused", layer, tokens)
        return tokens

    def heads(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend with the distractors' share redistributed, if the block is chosen."""
        if not self.moves(layer):
            return super().heads(layer, q, k, v)
        defocus = self.locate_defocus(layer, self.keys.add_and_look(k))
        moved = self.distractors, defocus, self._settings.beta
        self.show("attn_refocused", layer, lambda: redistributed_matrix(softmax_attention(q, k), *moved))
        return redistributed_attention(q, k, v, *moved)

    def moves(self, layer: int) -> bool:
        """Tell whether a block is chosen and any image has to be cut."""
        return layer in self._chosen and (self.show.listened or bool(self.distractors.any()))

    def locate_defocus(self, layer: int, attn_kk: Tensor) -> Tensor:
        """As `rfclip.refocus.locate_defocus`; of no meaning for an image that is not cut."""
        images = torch.ones_like(self.distractors[:, 0]) if self.show.listened else self.distractors.any(-1)
        start = torch.zeros_like(attn_kk[:, 0], dtype=torch.float64) if self._y is None else self._y
        self._y = start.clone()
        self._y[images] = cut_vector(attn_kk[images], self._settings.solver, start[images])
        defocus = defocused_side(self._y, self.distractors)
        self.show("fiedler", layer, self._y)
        self.show("defocus", layer, defocus)
        return defocus


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
