"""Refocusing in the earlier blocks, another method's last block behind them (docs/METHODS.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from rfclip.checks import setting, shown
from rfclip.clip.towers import num_layers
from rfclip.methods.attention import KeyAttention
from rfclip.methods.base import METHODS, DenseOutput, Given, Recorder, Show, check_words_or_indices
from rfclip.methods.refocusing import RefocusedSteps, Refocusing, chosen_layers
from rfclip.methods.stream import OnStream, run_blocks


def check_head(name: str, value: object) -> OnStream:
    """Return a method that takes its stream from others, given as one or as its settings block.

    Raises:
        ValueError, TypeError: it is no such method, or none at all.
    """
    head = METHODS.build(value) if isinstance(value, Mapping) else value
    if not isinstance(head, OnStream):
        fitting = [each for each in METHODS.names() if issubclass(METHODS.get(each), OnStream)]
        given = type(head).__name__ if isinstance(value, Mapping) else shown(value)
        raise ValueError(
            f"{name} must be a method that changes what comes behind the blocks before the last, which are refocused: "
            f"{', '.join(fitting)}; got {given}"
        )
    return head


@METHODS.register
@dataclass(frozen=True, kw_only=True)
class Refocused(Refocusing):
    """The stream of `RefocusCLIP` up to the last block, and what another method makes of it.

    Attributes:
        head: the other method, or its settings block.
        distraction_dims, tau, beta, solver: as in `RefocusCLIP`.
        layers: blocks to refocus: 'all' before the last, which is the head's; or a list of indices, counted from 0.
        needs: what the head needs.

    Raises:
        ValueError: a setting is out of its range, or the head is no method that works on the stream.
    """

    head: OnStream = setting(..., check_head)
    layers: str | Sequence[int] = setting("all", check_words_or_indices, "all")

    @property
    def needs(self) -> frozenset[str]:
        """What the engine must hand over, as the head declares it."""
        return getattr(self.head, "needs", frozenset())

    def check_tower(self, vit: VisionTransformer) -> None:
        """Raise ValueError if `layers` or the head names a block that the tower does not have before its last."""
        last = num_layers(vit) - 1
        if not isinstance(self.layers, str) and last in chosen_layers(self.layers, last + 1):
            raise ValueError(f"layers {[last]} is the head's block: give blocks before it, 0..{last - 1}, or 'all'")
        if hasattr(self.head, "check_tower"):
            self.head.check_tower(vit)

    @torch.no_grad()
    def __call__(
        self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None, given: Given | None = None
    ) -> DenseOutput:
        """Encode normalised images (B, 3, H, W); `given` is what the head needs, if it needs anything."""
        self.check_tower(vit)
        more = {} if given is None else {"given": given}
        return self.head(vit, images, record, stream=self.stream, **more)

    def image_embedding(self, vit: VisionTransformer, images: Tensor) -> Tensor:
        """Return DenseOutput.image (B, E) of images (B, 3, H, W), without the rest."""
        return self.head.image_embedding(vit, images, self.stream)

    def stream(
        self,
        vit: VisionTransformer,
        images: Tensor,
        show: Show,
        keys: KeyAttention | None = None,
        outputs: list[Tensor] | None = None,
        inputs: list[Tensor] | None = None,
    ) -> tuple[Tensor, tuple[int, int]]:
        """Run all blocks but the last, refocused; see `rfclip.methods.stream.run_blocks`."""
        return run_blocks(vit, images, RefocusedSteps(self, vit, show, keys), outputs, inputs)
