"""Sliding windows: where they lie, and the mean of what they say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rfclip.checks import Checked, check_choice, check_unless_none, check_whole, setting

Box = tuple[int, int, int, int]
MODES = ("whole", "slide")


@dataclass(frozen=True)
class Windows(Checked):
    """How an image is cut up before it is encoded.

    Attributes:
        mode: 'whole', the image at once, or 'slide', windows that overlap.
        crop_size: side of a window in pixels.
        stride: distance in pixels from window to window.
        window_batch: windows that are encoded together; bounds the memory.
        pad_multiple: windows, or the whole image, get zeros after normalisation, the mean colour, on all sides, so
            that their sides are multiples of so many pixels; None: they get none. See
            :class:`rfclip.pipeline.fitting.Fit`.
    """

    block: ClassVar[str] = "test_cfg."

    mode: str = setting("whole", check_choice, MODES)
    crop_size: int = setting(224, check_whole, 1)
    stride: int = setting(112, check_whole, 1)
    window_batch: int = setting(8, check_whole, 1)
    pad_multiple: int | None = setting(None, check_unless_none, check_whole, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride > self.crop_size:
            raise ValueError(
                f"test_cfg.stride ({self.stride}) is larger than crop_size ({self.crop_size}): some pixels would be "
                "in no window; take a stride of at most crop_size"
            )

    def boxes(self, height: int, width: int) -> list[Box]:
        """The windows (y0, x0, y1, x1) of an image of height x width pixels."""
        if self.mode == "whole":
            return [(0, 0, height, width)]
        return boxes(height, width, self.crop_size, self.stride)


def boxes(height: int, width: int, crop: int, stride: int) -> list[Box]:
    """Windows that cover an image, row by row.

    The last window of a row or column is moved back inside the image, so all have the same size; along a side
    that is not longer than ``crop`` there is one window, of that side's length.

    Args:
        height: Of the image, pixels, >= 1.
        width: Of the image, pixels, >= 1.
        crop: Side of a window, pixels, >= 1.
        stride: From one window to the next, pixels, 1..crop.

    Returns:
        Boxes (y0, x0, y1, x1), the ends exclusive.

    Raises:
        ValueError: A size below 1, or a stride that would leave pixels out.

    Example:
        >>> boxes(224, 300, crop=224, stride=112)  # the second would end at 336 and is moved back
        [(0, 0, 224, 224), (0, 76, 224, 300)]

    Source: docs/METHOD.md section 6.
    """
    if min(height, width, crop, stride) < 1 or stride > crop:
        raise ValueError(
            f"an image of {height}x{width} cannot be cut into windows of {crop} every {stride} pixels; sizes are at "
            "least 1 and the stride at most the window"
        )
    rows, columns = _intervals(height, crop, stride), _intervals(width, crop, stride)
    return [(y0, x0, y1, x1) for y0, y1 in rows for x0, x1 in columns]


def merge(pieces: Iterable[tuple[Box, Tensor]], height: int, width: int) -> Tensor:
    """Put the windows together; where they overlap, their mean.

    Args:
        pieces: Boxes and their values (Q, y1 - y0, x1 - x0). They are taken one at a time, so a generator keeps
            only one of them in memory. Not modified.
        height: Of the whole, pixels.
        width: Of the whole, pixels.

    Returns:
        Values (Q, height, width).

    Raises:
        ValueError: A piece that does not fit its box, or a pixel in no box.

    Example:
        >>> left, right = torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[5.0, 7.0]]])  # (Q, 1, 2), one pixel shared
        >>> merge([((0, 0, 1, 2), left), ((0, 1, 1, 3), right)], height=1, width=3).tolist()
        [[[1.0, 4.0, 7.0]]]
    """
    total: Tensor | None = None
    count = torch.zeros(height, width)
    for (y0, x0, y1, x1), piece in pieces:
        if piece.shape[1:] != (y1 - y0, x1 - x0):
            raise ValueError(f"a window of shape {tuple(piece.shape)} does not fit the box {(y0, x0, y1, x1)}")
        if total is None:
            total = piece.new_zeros(len(piece), height, width)
        total[:, y0:y1, x0:x1] += piece
        count[y0:y1, x0:x1] += 1
    if total is None or not count.all():
        raise ValueError(f"the windows leave pixels of the {height}x{width} image uncovered")
    return total.div_(count.to(total))


def _intervals(length: int, crop: int, stride: int) -> list[tuple[int, int]]:
    """Start and end of the windows along one axis."""
    starts = range(0, max(length - crop + stride - 1, 0) // stride * stride + 1, stride)
    ends = [min(start + crop, length) for start in starts]
    return [(max(end - crop, 0), end) for end in ends]
