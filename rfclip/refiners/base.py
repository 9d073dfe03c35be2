"""What refines logits, and how it is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from rfclip.registry import Registry


class Refiner(Protocol):
    """Something that refines logits by what the image, and perhaps the text, looks like; frozen settings."""

    def prepare(self, image: Tensor, text: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """Look at normalised images (B, 3, H, W) and at the queries' embeddings (Q, E).

        Returns:
            A function of logits (B, Q, H, W) that gives refined ones and does not modify them.
        """


REFINERS = Registry("refiner", "prepare")


def build_refiner(settings: Mapping[str, Any] | None) -> Refiner | None:
    """Build dict(type='PAMR', ...); None stays None. TypeError or ValueError for what is no refiner."""
    return None if settings is None else REFINERS.build(settings)
