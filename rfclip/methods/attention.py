"""Attention whose matrix is looked at, computed in pieces that fit the processor's caches.

What the dense methods need of `rfclip.refocus` without writing it down for all heads at once: key-key attention
summed over layers, and redistributed attention already multiplied by the values. Each is tested against the
pure functions. Sums are in fp32 at least, also under torch.autocast. Buffers are reused, so none of it can be
differentiated: call it under torch.no_grad.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from rfclip.clip.precision import at_least_fp32
from rfclip.clip.towers import fused_attention, softmax_attention
from rfclip.refocus import receivers, redistribute_attention

_CPU_PIECE = 3 << 20  # bytes of attention at a time: about the second-level caches of a few cores
_GPU_PIECE = 1 << 28

# Fused attention that also returns the logarithm of each row's sum before normalisation; torch has it under
# no public name, and only for the CPU.
_flash_attention_for_cpu: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


class KeyAttention:
    """A_kk = softmax(scale K K^T) over all 1+N tokens, patch-patch block, summed over layers head by head.

    Attributes:
        layers: how many layers have been added.
        sum_up: whether there is a sum; without, layers can only be looked at one by one.
    """

    def __init__(self, sum_up: bool = True) -> None:
        self.layers = 0
        self.sum_up = sum_up
        self._total = torch.empty(0)  # (B, H, N, N)

    def add(self, k: Tensor) -> None:
        """Add a layer, given its keys (B, H, 1+N, d/H)."""
        if self.sum_up:
            self._add(k, None)

    def add_and_look(self, k: Tensor) -> Tensor:
        """Add a layer, given its keys (B, H, 1+N, d/H); return its own block, mean over heads (B, N, N)."""
        patches = k.shape[2] - 1
        over_heads = k.new_zeros(len(k), patches, patches, dtype=at_least_fp32(k))
        self._add(k, over_heads)
        return over_heads.div_(k.shape[1])

    def _add(self, k: Tensor, over_heads: Tensor | None) -> None:
        if self.layers == 0 and self.sum_up:
            batch, count, tokens, _ = k.shape
            self._total = k.new_zeros(batch, count, tokens - 1, tokens - 1, dtype=at_least_fp32(k))
        for image, heads, attn in _key_attention(k):
            if self.sum_up:
                self._total[image, heads] += attn
            if over_heads is not None:
                _add_each(over_heads[image], attn)
        self.layers += 1

    def mean(self) -> Tensor:
        """Return the mean over the layers (B, H, N, N)."""
        return self._total / self.layers

    def mean_over_heads(self) -> Tensor:
        """Return the mean over the layers and the heads (B, N, N)."""
        total = torch.zeros_like(self._total[:, 0])
        _add_each(total, self._total.unbind(1))
        return total.div_(self._total.shape[1] * self.layers)

    def attend(self, v: Tensor) -> Tensor:
        """Return mean() @ v for the patches' values v (B, H, N, d/H)."""
        with _full_precision(v):
            return (self._total @ v.to(at_least_fp32(v)) / self.layers).to(v.dtype)

    def attend_redistributed(self, v: Tensor, distractors: Tensor, defocus: Tensor, beta: float) -> Tensor:
        """Return redistribute_attention(mean(), distractors, defocus, beta) @ v.

        Args:
            v: the patches' values (B, H, N, d/H).
            distractors: (B, N) bool.
            defocus: (B, N) bool.
            beta: share that is moved, in 0..1.
        """
        if not distractors.any():
            return self.attend(v)
        out = torch.empty_like(v, dtype=at_least_fp32(v))
        for image, heads in _pieces(self._total):
            one = slice(image, image + 1)
            attn = redistribute_attention(self._total[one, heads], distractors[one], defocus[one], beta)
            with _full_precision(v):
                out[one, heads] = attn @ v[one, heads].to(out.dtype)
        return (out / self.layers).to(v.dtype)

    def attend_with(self, k: Tensor, v: Tensor) -> Tensor:
        """Return what attend(v) would return after add(k), without adding.

        Args:
            k: keys (B, H, 1+N, d/H) of one more layer.
            v: the patches' values (B, H, N, d/H).
        """
        out = torch.empty_like(v, dtype=at_least_fp32(v))
        for image, heads, attn in _key_attention(k):
            if self.layers:
                attn += self._total[image, heads]
            with _full_precision(v):
                out[image, heads] = attn @ v[image, heads].to(out.dtype)
        return (out / (self.layers + 1)).to(v.dtype)


def redistributed_attention(
    q: Tensor, k: Tensor, v: Tensor, distractors: Tensor, defocus: Tensor, beta: float
) -> Tensor:
    """Return A' v, A' = softmax(scale q k^T) with its patch-patch block redistributed.

    The same as `rfclip.refocus.redistribute_attention` on that block; the class token's row and column are left
    alone. An image in which nothing is to be moved takes the ordinary path.

    Args:
        q, k, v: (B, H, 1+N, d/H), class token first.
        distractors: (B, N) bool.
        defocus: (B, N) bool.
        beta: share that is moved, in 0..1.

    Returns:
        (B, H, 1+N, d/H).
    """
    affected = distractors.any(-1) & receivers(distractors, defocus).any(-1)
    if not affected.any():
        return fused_attention(q, k, v)
    if _flash_attention_for_cpu is None or q.device.type != "cpu":
        return redistributed_matrix(softmax_attention(q, k), distractors, defocus, beta).to(v.dtype) @ v
    out = torch.empty_like(v)
    for i, moves in enumerate(affected.tolist()):
        image = q[i : i + 1], k[i : i + 1], v[i : i + 1]
        out[i] = (_attend_by_groups(*image, distractors[i], defocus[i], beta) if moves else fused_attention(*image))[0]
    return out


def redistributed_matrix(attn: Tensor, distractors: Tensor, defocus: Tensor, beta: float) -> Tensor:
    """Return attention (B, H, 1+N, 1+N) with its patch-patch block redistributed, as a new tensor."""
    result = attn.clone()
    result[:, :, 1:, 1:] = redistribute_attention(attn[:, :, 1:, 1:], distractors, defocus, beta)
    return result


def _attend_by_groups(q: Tensor, k: Tensor, v: Tensor, distractors: Tensor, defocus: Tensor, beta: float) -> Tensor:
    """Redistribute without leaving the fused kernel.

    Redistribution scales the three groups of columns (givers, receivers, the rest with the class token) by one
    factor each per row. So attend to each group alone, and mix the three outcomes by the share of the row's
    attention that each group holds, which the rows' log-sums give.

    Args:
        q, k, v: one image, (1, H, 1+N, d/H).
        distractors: (N,) bool.
        defocus: (N,) bool.
        beta: share that is moved.

    Returns:
        (1, H, 1+N, d/H).
    """
    receiving = receivers(distractors, defocus)
    patches = [distractors, receiving, ~(distractors | receiving)]
    columns = [group.nonzero()[:, 0] + 1 for group in patches]
    columns[2] = torch.cat([columns[2].new_zeros(1), columns[2]])  # the class token
    outcomes, log_sums = zip(
        *(_flash_attention_for_cpu(q, k.index_select(2, group), v.index_select(2, group)) for group in columns),
        strict=True,
    )
    giver, receiver, rest = torch.stack(log_sums, -1).softmax(-1)[..., None].unbind(-2)  # (1, H, 1+N, 1)
    budget = torch.where(receiver > 0, beta * giver, 0)
    budget[:, :, 0] = 0  # the class token's row
    mixed = outcomes[0] * (giver - budget)
    mixed = mixed.addcmul_(outcomes[1], receiver + budget).addcmul_(outcomes[2], rest)
    return mixed.to(v.dtype)


def _key_attention(k: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
    """Yield image, heads and their softmax(scale k k^T) between the patches (g, N, N), in a reused buffer."""
    k = k.to(at_least_fp32(k))
    scaled = k * k.shape[-1] ** -0.5
    tokens = k.shape[2]
    scores, attn = k.new_empty(0), k.new_empty(0)
    for image, heads in _pieces(k):
        group = k[image, heads]
        if len(scores) != len(group):
            scores, attn = (group.new_empty(len(group), tokens - 1, tokens) for _ in range(2))
        with _full_precision(k):
            torch.bmm(scaled[image, heads, 1:], group.transpose(1, 2), out=scores)
            torch.softmax(scores, -1, out=attn)
        yield image, heads, attn[..., 1:]


def _add_each(total: Tensor, terms: Iterable[Tensor]) -> None:
    """Add terms in place; several times faster than summing over the outer axis of a tensor."""
    for term in terms:
        total += term


def _pieces(per_head: Tensor) -> Iterator[tuple[int, slice]]:
    """Yield image and heads of a tensor (B, H, T, ...), so that T x T attention of the heads fits a piece."""
    batch, count, tokens = per_head.shape[:3]
    limit = _CPU_PIECE if per_head.device.type == "cpu" else _GPU_PIECE
    pieces = -(-count * tokens**2 * per_head.element_size() // limit)
    heads_at_a_time = -(-count // min(count, max(1, pieces)))
    for image in range(batch):
        for first in range(0, count, heads_at_a_time):
            yield image, slice(first, min(first + heads_at_a_time, count))


def _full_precision(tensor: Tensor) -> torch.autocast:
    """Switch torch.autocast off, which would round the operands of a matrix product."""
    return torch.autocast(tensor.device.type, enabled=False)
