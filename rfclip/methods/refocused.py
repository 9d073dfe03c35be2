"""Refocusing in the earlier blocks, another method's last block behind them (docs/METHODS.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from rfclip.checks import setting, shown
from rfclip.clip.towers import num_layers
from rfclip.methods.attention import KeyAttention
from rfclip.methods.base import METHODS, DenseOutput, Recorder, Show, check_words_or_indices
from rfclip.methods.needs import Given, gives_scores, needs_of
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
        example: of the setting that it cannot be without, for errors.
        head: the other method, or its settings block.
        distraction_dims, tau, beta, solver: as in `RefocusCLIP`.
        layers: blocks to refocus: 'all' before the last, which is the head's; or a list of indices, counted from 0.

    Raises:
        ValueError: a setting is out of its range, or the head is no method that works on the stream.
    """

    example: ClassVar[str] = "head=dict(type='SCCLIP') or another's block in the config"
    head: OnStream = setting(..., check_head)
    layers: str | Sequence[int] = setting("all", check_words_or_indices, "all")

    @property
    def needs(self) -> frozenset[str]:
        """What the engine must hand over, as the head declares it."""
        return needs_of(self.head)

    @property
    def gives_scores(self) -> bool:
        """Whether the head gives scores in place of cosines."""
        return gives_scores(self.head)

    @property
    def sight(self) -> Any:
        """The head's vision model beside the CLIP."""
        head: Any = self.head  # one of SightedMethod
        return head.sight

    def check_tower(self, vit: VisionTransformer) -> None:
        """Raise ValueError if `layers` or the head names a block that the tower does not have before its last."""
        last = num_layers(vit) - 1
        if not isinstance(self.layers, str) and last in chosen_layers(self.layers, last + 1):
            raise ValueError(f"layers {[last]} is the head's block: give blocks before it, 0..{last - 1}, or 'all'")
        if hasattr(self.head, "check_tower"):
            self.head.check_tower(vit)

    def __call__(
        self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None, **given: Any
    ) -> DenseOutput:
        """Encode normalised images (B, 3, H, W); `given` as the head takes it."""
        self.check_tower(vit)
        return self._placed(vit, images, record, **given)

    def joined(self, vit: VisionTransformer, windows: Tensor, record: Recorder | None, given: Given) -> DenseOutput:
        """Encode all windows (n, 3, h, w) of an image, for a head that needs them at once."""
        return self._placed.joined(vit, windows, record, given)

    def merged(self, maps: Tensor, given: Given) -> Tensor:
        """What the head makes of an image's merged maps (Q, H, W)."""
        return self._placed.merged(maps, given)

    def image_embedding(self, vit: VisionTransformer, images: Tensor) -> Tensor:
        """Return DenseOutput.image (B, E) of images (B, 3, H, W), without the rest."""
        return self._placed.image_embedding(vit, images)

    @property
    def _placed(self) -> Any:
        """The head, behind refocused blocks."""
        return self.head.behind(self._stream)

    @torch.no_grad()
    def _stream(
        self, vit: VisionTransformer, images: Tensor, show: Show, keys: KeyAttention | None = None, **collected: Any
    ) -> tuple[Tensor, tuple[int, int]]:
        """As `rfclip.methods.stream.ordinary_blocks`, refocused."""
        return run_blocks(vit, images, RefocusedSteps(self, vit, show, keys), **collected)
