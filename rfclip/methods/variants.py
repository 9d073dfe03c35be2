"""Variants of the method for the paper's analyses: its steps one by one, other filters, other receivers.

The paper gives numbers for these and no definitions, so the definitions are this project's own
(docs/METHOD.md section 10). They are written for reading: full attention matrices and the pure functions of
rfclip/refocus.py, no shortcuts. With all steps switched on, `RefocusVariant` is RefocusCLIP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor

from rfclip.checks import (
    Checked,
    check_at_least_zero,
    check_choice,
    check_dims,
    check_range,
    check_switch,
    check_whole,
    setting,
)
from rfclip.clip.precision import at_least_fp32
from rfclip.clip.towers import add_mlp, attention_output, blocks, embed, qkv, softmax_attention
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
)
from rfclip.refocus import locate_defocus, locate_distractors, redistribute_attention

FILTERS = ("none", "mean", "median", "low-pass", "-inf")
TOKENS = ("distractors", "random")
TARGETS = ("defocused", "others", "class")


@METHODS.register
@dataclass(frozen=True)
class FilteredMeanKK(Checked):
    """MeanKK with the masked tokens of every layer boundary filtered or suppressed (docs/METHOD.md section 10).

    Attributes:
        filter: 'none'; 'mean' or 'median' of the 3 x 3 neighbours, all channels; 'low-pass': frequencies above a
            quarter of Nyquist set to 0; '-inf': nobody looks at them in the next block.
        tokens: 'distractors', or 'random': as many patches of each image, drawn with `seed`.
        distraction_dims, tau: as in RefocusCLIP.
        seed: of the random tokens; each boundary draws its own, from the same numbers for every image.
    """

    filter: str = setting("mean", check_choice, FILTERS)
    tokens: str = setting("distractors", check_choice, TOKENS)
    distraction_dims: str | Sequence[int] = setting("auto", check_words_or_indices, "auto")
    tau: float = setting(5.0, check_at_least_zero)
    seed: int = setting(0, check_whole)

    @torch.no_grad()
    def __call__(self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None) -> DenseOutput:
        """Encode normalised images (B, 3, H, W)."""
        dims = resolve_dims(self.distraction_dims, vit)
        generator = torch.Generator(images.device).manual_seed(self.seed)
        tokens, grid = embed(vit, images)
        kk = []
        for block in blocks(vit):
            masked = locate_distractors(tokens[:, 1:], dims, self.tau)  # (B, N)
            if self.tokens == "random":
                masked = random_tokens(masked, generator)
            patches = filter_tokens(tokens[:, 1:], masked, grid, self.filter)
            tokens = torch.cat([tokens[:, :1], patches], dim=1)
            q, k, v = qkv(block, tokens)  # (B, H, 1+N, d/H)
            hidden = masked if self.filter == "-inf" else torch.zeros_like(masked)
            kk.append(_masked_attention(k, k, hidden)[..., 1:, 1:])
            before = tokens
            tokens = _block_output(block, tokens, _masked_attention(q, k, hidden), v)
        dense = torch.stack(kk).mean(0) @ v[:, :, 1:].to(kk[0].dtype)
        patches = attention_output(block, dense.to(v.dtype))
        return dense_output(vit, patches, class_embedding(vit, before, q, k, v), grid, Show(record))


@METHODS.register
@dataclass(frozen=True)
class RefocusVariant(Checked):
    """RefocusCLIP with steps left out or changed (docs/METHOD.md sections 3 and 10).

    Attributes:
        attention: whether attention is redistributed.
        embedding: whether embeddings are redistributed.
        target: who receives the budget: the 'defocused' patches, all 'others' (patches that are no distractors), or
            the 'class' token, which the dense output of the last block does not have, so there nothing is moved.
        neighbourhood: side of the window whose mean replaces a distractor's values, odd, at least 3.
        distraction_dims, tau, beta: as in RefocusCLIP.
    """

    attention: bool = setting(True, check_switch)
    embedding: bool = setting(True, check_switch)
    target: str = setting("defocused", check_choice, TARGETS)
    neighbourhood: int = setting(3, check_whole, 3)
    distraction_dims: str | Sequence[int] = setting("auto", check_words_or_indices, "auto")
    tau: float = setting(5.0, check_at_least_zero)
    beta: float = setting(0.7, check_range, 0, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neighbourhood % 2 == 0:
            raise ValueError(f"neighbourhood is the side of a window, odd, at least 3, got {self.neighbourhood}")

    @torch.no_grad()
    def __call__(self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None) -> DenseOutput:
        """Encode normalised images (B, 3, H, W)."""
        dims = resolve_dims(self.distraction_dims, vit)
        tokens, grid = embed(vit, images)
        kk = []
        for layer, block in enumerate(blocks(vit)):
            distractors = locate_distractors(tokens[:, 1:], dims, self.tau)  # (B, N)
            if self.embedding and layer > 0:
                patches = average_neighbours(tokens[:, 1:], distractors, dims, grid, self.neighbourhood)
                tokens = torch.cat([tokens[:, :1], patches], dim=1)
            q, k, v = qkv(block, tokens)  # (B, H, 1+N, d/H)
            kk.append(softmax_attention(k, k)[..., 1:, 1:])
            before = tokens
            if layer + 1 < len(blocks(vit)):
                attn = self._redistributed(softmax_attention(q, k), kk[-1], distractors)
                tokens = _block_output(block, tokens, attn, v)
        mean = torch.stack(kk).mean(0)  # (B, H, N, N)
        if self.attention and self.target != "class":
            mean = redistribute_attention(mean, distractors, self._receivers(mean, distractors), self.beta)
        patches = attention_output(block, (mean @ v[:, :, 1:].to(mean.dtype)).to(v.dtype))
        return dense_output(vit, patches, class_embedding(vit, before, q, k, v), grid, Show(record))

    def _receivers(self, kk: Tensor, distractors: Tensor) -> Tensor:
        """Who receives among the patches, (B, N) bool, given their key-key attention (B, H, N, N)."""
        return locate_defocus(kk.mean(1), distractors) if self.target == "defocused" else ~distractors

    def _redistributed(self, attn: Tensor, kk: Tensor, distractors: Tensor) -> Tensor:
        """Redistribute a block's attention (B, H, 1+N, 1+N)."""
        if not self.attention:
            return attn
        if self.target == "class":
            return give_to_class_token(attn, distractors, self.beta)
        attn = attn.clone()
        receivers = self._receivers(kk, distractors)
        attn[..., 1:, 1:] = redistribute_attention(attn[..., 1:, 1:], distractors, receivers, self.beta)
        return attn


def give_to_class_token(attn: Tensor, distractors: Tensor, beta: float) -> Tensor:
    """Move the budget of every patch query to the class token's column.

    Args:
        attn: (B, H, 1+N, 1+N), class token first; not modified.
        distractors: (B, N) bool.
        beta: share that is moved, 0..1.

    Returns:
        (B, H, 1+N, 1+N); row sums do not change.
    """
    moved = attn.clone()
    given = beta * attn[..., 1:, 1:] * distractors[:, None, None]  # (B, H, N, N)
    moved[..., 1:, 1:] -= given
    moved[..., 1:, 0] += given.sum(-1)
    return moved


def random_tokens(masked: Tensor, generator: torch.Generator) -> Tensor:
    """As many random patches as are masked in each image, (B, N) bool -> (B, N) bool; not hanging on the batch."""
    rank = torch.rand(masked.shape[1], generator=generator, device=generator.device).argsort().argsort()
    return rank.to(masked.device) < masked.sum(1, keepdim=True)


def filter_tokens(patches: Tensor, masked: Tensor, grid: tuple[int, int], name: str) -> Tensor:
    """Filter the masked patch tokens; the others, and the values that the filter reads, stay as they are.

    Args:
        patches: (B, N, d), not modified.
        masked: (B, N) bool.
        grid: (h, w), h*w = N.
        name: one of FILTERS; 'none' and '-inf' change no token.

    Returns:
        (B, N, d).
    """
    filters: dict[str, Callable[[Tensor, tuple[int, int]], Tensor]] = {
        "mean": lambda values, size: _neighbour_statistic(values, size, 3, "mean"),
        "median": lambda values, size: _neighbour_statistic(values, size, 3, "median"),
        "low-pass": low_pass,
    }
    if name not in filters or not masked.any():
        return patches
    return torch.where(masked[..., None], filters[name](patches, grid), patches)


def average_neighbours(
    patches: Tensor, distractors: Tensor, dims: Sequence[int], grid: tuple[int, int], side: int
) -> Tensor:
    """As rfclip.refocus.redistribute_embedding, with a window of side x side patches: (B, N, d) -> (B, N, d)."""
    index = torch.tensor(check_dims(dims, patches.shape[-1]), dtype=torch.long, device=patches.device)
    result = patches.clone()
    if len(index):
        values = patches[..., index]
        means = _neighbour_statistic(values, grid, side, "mean")
        result[..., index] = torch.where(distractors[..., None], means, values)
    return result


def low_pass(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Set the spatial frequencies above a quarter of Nyquist, in either direction, to 0: (B, N, d) -> (B, N, d)."""
    maps = patches.to(at_least_fp32(patches)).unflatten(1, grid)  # (B, h, w, d)
    spectrum = torch.fft.fft2(maps, dim=(1, 2))
    kept_rows, kept_columns = (torch.fft.fftfreq(n, device=patches.device).abs() <= 0.125 for n in grid)
    kept = (kept_rows[:, None] & kept_columns)[..., None]
    return torch.fft.ifft2(spectrum * kept, dim=(1, 2)).real.flatten(1, 2).to(patches.dtype)


def _neighbour_statistic(patches: Tensor, grid: tuple[int, int], side: int, statistic: str) -> Tensor:
    """Mean or median over the existing neighbours in a window, without the centre; own value without any."""
    batch, count, channels = patches.shape
    maps = patches.to(at_least_fp32(patches)).transpose(1, 2).reshape(batch * channels, 1, *grid)
    inside = F.unfold(torch.ones_like(maps[:1]), side, padding=side // 2)  # (1, side^2, N)
    inside[:, side**2 // 2] = 0
    neighbours = inside.sum(1, keepdim=True).long()  # (1, 1, N)
    around = F.unfold(maps, side, padding=side // 2)  # (B*d, side^2, N), zeros outside the grid
    if statistic == "mean":
        found = (around * inside).sum(1) / neighbours[:, 0].clamp_min(1)
    else:
        ordered = around.masked_fill(inside == 0, torch.inf).sort(1).values
        middle = [((neighbours - 1) // 2).clamp_min(0), neighbours // 2]  # both sides of the middle
        low, high = (ordered.gather(1, index.expand(len(ordered), -1, -1))[:, 0] for index in middle)
        found = (low + high) / 2
    values = found.reshape(batch, channels, count).transpose(1, 2)
    return torch.where(neighbours[0, 0, :, None] > 0, values, patches.to(values.dtype)).to(patches.dtype)


def _masked_attention(q: Tensor, k: Tensor, hidden: Tensor) -> Tensor:
    """softmax(scale q k^T) (B, H, 1+N, 1+N) with the columns of hidden patches (B, N) masked before the softmax."""
    dtype = at_least_fp32(q)
    scores = (q.to(dtype) * q.shape[-1] ** -0.5) @ k.to(dtype).transpose(-1, -2)
    columns = F.pad(hidden, (1, 0))[:, None, None]
    return scores.masked_fill(columns, -torch.inf).softmax(-1)


def _block_output(block: ResidualAttentionBlock, tokens: Tensor, attn: Tensor, v: Tensor) -> Tensor:
    """The block's output (B, 1+N, d) for a given attention (B, H, 1+N, 1+N)."""
    heads = (attn @ v.to(attn.dtype)).to(v.dtype)
    return add_mlp(block, tokens + attention_branch(block, heads))
