"""What is put round a piece of an image before it is encoded, and how its maps come back to the piece's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from rfclip.pipeline.labels import resize

PATCH_FITS = ("crop", "pad", "pad_black")


@dataclass(frozen=True)
class Fit:
    """How pieces are brought to sizes that the towers can take in.

    First `multiple`, then `patch_fit` adds to a piece.

    Attributes:
        patch: side of a patch of the image tower in pixels.
        patch_fit: what happens to rows and columns that fill no patch. 'crop': nothing, the tower leaves them unseen;
            'pad': the last row and column are repeated up to the next multiple of the patch; 'pad_black': black ones
            are added.
        multiple: both sides are brought to multiples of it by zeros, the mean colour, on all four sides, the smaller
            half above and on the left; None or 1: nothing is added.
        black: what black is after normalisation, per channel; needed by 'pad_black' alone.
    """

    patch: int
    patch_fit: str = "crop"
    multiple: int | None = None
    black: Sequence[float] | None = None

    def corner(self, height: int, width: int) -> tuple[int, int]:
        """How many rows and columns `multiple` adds above and on the left of a piece."""
        above, _, left, _ = self._zeros(height, width)
        return above, left

    def adds_zeros(self, height: int, width: int) -> bool:
        """Whether `multiple` adds anything to a piece."""
        return any(self._zeros(height, width))

    def __call__(self, pieces: Tensor) -> Tensor:
        """Pieces (B, 3, h, w) with what is added, (B, 3, h', w'); the same tensor if nothing is."""
        above, below, left, right = self._zeros(pieces.shape[-2], pieces.shape[-1])
        if self.adds_zeros(pieces.shape[-2], pieces.shape[-1]):
            pieces = F.pad(pieces, (left, right, above, below))
        bottom, right = (-side % self.patch for side in pieces.shape[-2:])
        if self.patch_fit == "crop" or not (bottom or right):
            return pieces
        if self.patch_fit == "pad":
            return F.pad(pieces, (0, right, 0, bottom), mode="replicate")
        if self.black is None:
            raise ValueError("patch_fit='pad_black' needs what black is after normalisation, which a DenseEngine knows")
        height, width = pieces.shape[-2:]
        colour = torch.tensor(self.black, dtype=pieces.dtype, device=pieces.device).view(3, 1, 1)
        padded = colour.expand(len(pieces), 3, height + bottom, width + right).clone()
        padded[..., :height, :width] = pieces
        return padded

    def cut(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize maps (B, Q, h, w) to the pieces with all that was added to them, and cut out what was not.

        Args:
            maps: on the grid of an output, whichever that is.
            size: (height, width) of the pieces as they were.

        Returns:
            (B, Q, height, width).
        """
        above, below, left, right = self._zeros(*size)
        sides = (size[0] + above + below, size[1] + left + right)
        if self.patch_fit != "crop":
            sides = (sides[0] + -sides[0] % self.patch, sides[1] + -sides[1] % self.patch)
        return resize(maps, sides)[..., above : above + size[0], left : left + size[1]]

    def stretched(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """The same, but as if `patch_fit` had added nothing: what LPOSS does with its scores (docs/METHODS.md)."""
        return replace(self, patch_fit="crop").cut(maps, size)

    def _zeros(self, height: int, width: int) -> tuple[int, int, int, int]:
        """What `multiple` adds above, below, on the left and on the right."""
        rows, columns = (-side % (self.multiple or 1) for side in (height, width))
        return rows // 2, rows - rows // 2, columns // 2, columns - columns // 2
