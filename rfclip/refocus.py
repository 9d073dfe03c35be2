"""The method: find the distractors, find the defocused tokens, redistribute the weight between them.

Pure functions on tensors: no model, no state, no argument modified (docs/METHOD.md section 3; Li et al.,
"Target Refocusing via Attention Redistribution for Open-Vocabulary Semantic Segmentation", AAAI 2026). Patch
tokens stand in raster order of the grid (h, w), N = h*w, without the class token. Half-precision inputs are
computed with in fp32, and results come back in the input's dtype.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rfclip.checks import check_at_least_zero, check_dims, check_grid, check_range
from rfclip.clip.precision import at_least_fp32
from rfclip.normalized_cut import fiedler_vector

_SMALLEST_SUM = 1e-8  # a token that is constant over its channels has no share to give; avoids 0 / 0


def distraction_scores(patches: Tensor, dims: Sequence[int]) -> Tensor:
    """Return phi, the share of each token's embedding that lies in its strongest distraction dimension.

    p_i = (x_i - min_k x_i[k]) / sum_k (x_i[k] - min_k x_i[k]), phi_i = max over dims of p_i[j]. The paper
    writes the ratio without the shift, but embeddings have both signs.

    Args:
        patches: x (..., N, d).
        dims: distraction dimensions, each in 0..d-1; empty: phi is 0.

    Returns:
        phi (..., N), in 0..1; an even spread is 1/d.

    Raises:
        ValueError: a dimension is no integer in 0..d-1.

    Example:
        >>> patches = torch.tensor([[0.0, 1.0, 3.0, 0.0], [1.0, 1.0, 1.0, 2.0]])  # 2 tokens of width 4
        >>> distraction_scores(patches, [2]).tolist()
        [0.75, 0.0]

    Source: docs/METHOD.md section 3, step 1.
    """
    return _phi(patches, dims).to(patches.dtype)


def locate_distractors(patches: Tensor, dims: Sequence[int], tau: float) -> Tensor:
    """Mark the distraction tokens: phi > tau / d.

    Args:
        patches: x (..., N, d).
        dims: distraction dimensions, each in 0..d-1; empty: no token is a distractor.
        tau: threshold in units of 1/d, at least 0 (the paper: 5).

    Returns:
        (..., N) bool.

    Raises:
        ValueError: tau is negative or no number, or a dimension is out of range.

    Example:
        >>> patches = torch.tensor([[0.0, 1.0, 3.0, 0.0], [1.0, 1.0, 1.0, 2.0]])  # phi of [2]: 3/4, 0
        >>> locate_distractors(patches, [2], tau=2.5).tolist()  # above 2.5/4
        [True, False]

    Source: docs/METHOD.md section 3, step 1.
    """
    check_at_least_zero("tau", tau)
    return _phi(patches, dims) > tau / patches.shape[-1]


def locate_defocus(attn_kk: Tensor, distractors: Tensor, solver: str = "auto") -> Tensor:
    """Mark the defocused tokens: the positive side of the normalised cut, without the distractors.

    Args:
        attn_kk: key-key attention between the patches, mean over heads (B, N, N); need not be symmetric.
        distractors: (B, N) bool. They take part in the cut and are taken out of its result.
        solver: of `rfclip.normalized_cut.fiedler_vector`.

    Returns:
        (B, N) bool; empty sets if N < 2.

    Example:
        >>> near = [[0.6, 0.3, 0.1, 0.0], [0.4, 0.5, 0.1, 0.0], [0.0, 0.2, 0.4, 0.4], [0.0, 0.0, 0.2, 0.8]]
        >>> nobody = torch.zeros(1, 4, dtype=torch.bool)
        >>> locate_defocus(torch.tensor([near]), nobody).tolist()
        [[False, False, True, True]]

    Source: docs/METHOD.md section 3, step 2.
    """
    return defocused_side(cut_vector(attn_kk, solver), distractors)


def cut_vector(attn_kk: Tensor, solver: str = "auto", start: Tensor | None = None) -> Tensor:
    """Return y (B, N), fp64: the oriented Fiedler vector of S = (A + A^T) / 2 for A (B, N, N).

    Args:
        attn_kk: A (B, N, N), entries >= 0.
        solver: of `rfclip.normalized_cut.fiedler_vector`.
        start: (B, N) a guess of y that makes the fast solver faster, such as the y of the layer before.
    """
    attn = attn_kk.double()
    return fiedler_vector((attn + attn.transpose(-1, -2)) / 2, solver, start)


def defocused_side(y: Tensor, distractors: Tensor) -> Tensor:
    """Return (B, N) bool: y > mean(y), the mean over all N, and no distractor."""
    return (y > y.mean(-1, keepdim=True)) & ~distractors


def receivers(distractors: Tensor, defocus: Tensor) -> Tensor:
    """Return who receives the budget, (B, N) bool.

    The defocused tokens; in an image without any, all tokens that are no distractors.

    Example:
        >>> distractors = torch.tensor([[True, False, False]])
        >>> receivers(distractors, torch.tensor([[False, True, False]])).tolist()
        [[False, True, False]]
        >>> receivers(distractors, torch.tensor([[False, False, False]])).tolist()
        [[False, True, True]]
    """
    chosen = defocus & ~distractors
    return torch.where(chosen.any(-1, keepdim=True), chosen, ~distractors)


def redistribute_attention(attn: Tensor, distractors: Tensor, defocus: Tensor, beta: float) -> Tensor:
    """Move a part of the attention on distractors to the defocused tokens.

    In every row the distractor columns are multiplied by 1 - beta, and what they lose is handed to the
    defocused columns in proportion to what these have. Without a defocused token all non-distractors
    receive; without those, or where the receiving columns of a row sum to 0, the row is left as it is. Row
    sums do not change.

    Args:
        attn: attention between the patches (B, H, N, N), rows are queries.
        distractors: (B, N) bool.
        defocus: (B, N) bool.
        beta: share that is moved, in 0..1 (the paper: 0.7).

    Returns:
        (B, H, N, N).

    Raises:
        ValueError: beta is outside 0..1.

    Example:
        >>> attn = torch.tensor([[[[0.50, 0.25, 0.25]] * 3]])  # token 0 draws half of everybody's attention
        >>> distractors, defocus = torch.tensor([[True, False, False]]), torch.tensor([[False, True, False]])
        >>> redistribute_attention(attn, distractors, defocus, beta=0.5)[0, 0, 1].tolist()
        [0.25, 0.5, 0.25]

    Source: docs/METHOD.md section 3, step 3.
    """
    check_range("beta", beta, 0, 1)
    weights = attn.to(at_least_fp32(attn))
    giving = distractors[:, None, None, :].to(weights.dtype)  # (B, 1, 1, N)
    receiving = weights * receivers(distractors, defocus)[:, None, None, :]  # (B, H, N, N)
    total = receiving.sum(-1, keepdim=True)  # (B, H, N, 1)
    budget = beta * (weights * giving).sum(-1, keepdim=True)  # (B, H, N, 1)
    moved = weights * (1 - beta * giving) + budget * (receiving / total.where(total > 0, 1))
    return torch.where(total > 0, moved, weights).to(attn.dtype)


def redistribute_embedding(patches: Tensor, distractors: Tensor, dims: Sequence[int], grid: tuple[int, int]) -> Tensor:
    """Replace the distraction dimensions of distractors by the mean of their neighbours.

    The mean runs over the 3 x 3 neighbourhood without the centre, over the neighbours that exist, distractors
    included, from the values before any replacement. A token without neighbours keeps its values.

    Args:
        patches: (B, N, d).
        distractors: (B, N) bool.
        dims: distraction dimensions, each in 0..d-1.
        grid: (h, w), h*w = N.

    Returns:
        (B, N, d).

    Raises:
        ValueError: the grid does not fit, or a dimension is out of range.

    Example:
        >>> patches = torch.tensor([[[1.0, 5.0], [9.0, 6.0], [3.0, 7.0]]])  # (1, 3, 2), in a row
        >>> distractors = torch.tensor([[False, True, False]])
        >>> redistribute_embedding(patches, distractors, [0], grid=(1, 3)).tolist()  # 9 -> (1 + 3) / 2
        [[[1.0, 5.0], [2.0, 6.0], [3.0, 7.0]]]

    Source: docs/METHOD.md section 3, step 3.
    """
    check_grid(patches.shape, grid)
    index = _dim_index(patches, dims)
    result = patches.clone()
    if len(index) and patches.numel():
        values = patches[..., index]  # (B, N, k)
        result[..., index] = torch.where(distractors[..., None], _neighbour_mean(values, grid), values)
    return result


def _neighbour_mean(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean over the existing neighbours of each token, (B, N, k); the token's own value if it has none."""
    batch, tokens, channels = values.shape
    maps = values.to(at_least_fp32(values)).transpose(1, 2).reshape(batch * channels, 1, *grid)
    around = [0, 1, 2, 3, 5, 6, 7, 8]  # of the 3 x 3 window, without the centre
    sums = F.unfold(maps, 3, padding=1)[:, around].sum(1)  # (B*k, N), zeros outside the grid
    count = F.unfold(torch.ones_like(maps[:1]), 3, padding=1)[:, around].sum(1)  # (1, N)
    means = (sums / count).reshape(batch, channels, tokens).transpose(1, 2)
    return torch.where(count[..., None] > 0, means, values).to(values.dtype)


def _phi(patches: Tensor, dims: Sequence[int]) -> Tensor:
    """phi in fp32 at least, for a threshold that half precision cannot resolve."""
    index = _dim_index(patches, dims)
    values = patches.to(at_least_fp32(patches))
    if len(index) == 0:
        return values.new_zeros(values.shape[:-1])
    lowest = values.amin(-1)  # (..., N)
    total = (values - lowest[..., None]).sum(-1)
    return (values[..., index].amax(-1) - lowest) / total.clamp_min(_SMALLEST_SUM)


def _dim_index(patches: Tensor, dims: Sequence[int]) -> Tensor:
    return torch.tensor(check_dims(dims, patches.shape[-1]), dtype=torch.long, device=patches.device)
