"""What refines logits, and how it is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor

from rfclip.registry import Registry

Refine = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Joint:
    """A refinement in which the queries meet, so that it needs all of them at once, though on a coarser grid.

    Called with logits (B, Q, H, W) it pools, solves and resizes. Whoever has no room for all queries at that size pools
    them in pieces, solves once, and resizes the result in pieces.

    Attributes:
        pool: logits (B, q, H, W) of any of the queries -> (B, q, h, w), each channel by itself; not modified.
        solve: (B, Q, h, w) of all queries, in their order -> the refined ones; not modified.
    """

    pool: Refine
    solve: Refine

    def __call__(self, logits: Tensor) -> Tensor:
        """Refine logits (B, Q, H, W), or (Q, H, W) of one image, of all queries; they are not modified."""
        if logits.ndim == 3:
            return self(logits[None])[0]
        return resize(self.solve(self.pool(logits)), (logits.shape[-2], logits.shape[-1]))


class Refiner(Protocol):
    """Something that refines logits by what the image, and perhaps the text, looks like; frozen settings."""

    def prepare(self, image: Tensor, text: Tensor | None = None) -> Refine:
        """Look at normalised images (B, 3, H, W) and at the queries' embeddings (Q, E).

        Returns:
            A function of logits (B, Q, H, W) that gives refined ones and does not modify them. It refines each channel
            by itself, so that it may be given some of the queries after others; where it does not, it is a
            :class:`Joint`, which says what needs all of them.
        """


REFINERS = Registry("refiner", "prepare")


def build_refiner(settings: Mapping[str, Any] | None) -> Refiner | None:
    """Build dict(type='PAMR', ...); None stays None. TypeError or ValueError for what is no refiner."""
    return None if settings is None else REFINERS.build(settings)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps (..., h, w) to (..., H0, W0), bilinear, corners not aligned.

    Each map is resized by itself, so that equal maps stay equal to the last bit: resized as channels of one
    picture, their rounding would depend on their place among the channels.

    Example:
        >>> import torch
        >>> resize(torch.tensor([[[0.0, 1.0]]]), (1, 4)).tolist()
        [[[0.0, 0.25, 0.75, 1.0]]]
    """
    if maps.shape[-2:] == tuple(size):
        return maps
    single = maps.reshape(-1, 1, *maps.shape[-2:])
    return F.interpolate(single, size, mode="bilinear", align_corners=False).view(*maps.shape[:-2], *size)
