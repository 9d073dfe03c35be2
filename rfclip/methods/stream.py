"""The stream: how the blocks before the last are run, and methods that take what they leave."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from rfclip.clip.towers import add_mlp, blocks, embed, fused_attention, qkv, run_block
from rfclip.methods.attention import KeyAttention
from rfclip.methods.base import Show, attention_branch, class_embedding, show_attention, show_attention_of

M = TypeVar("M", bound="OnStream")
Stream = Callable[..., tuple[Tensor, tuple[int, int]]]  # called as `ordinary_blocks` is


class OrdinarySteps:
    """What is done to a stream on its way to the last block: no more than CLIP does. Made for one call.

    Args:
        show: is shown what reaches each block.
        keys: the key-key attention of the blocks is added to it, if it is given.
    """

    def __init__(self, show: Show, keys: KeyAttention | None = None) -> None:
        self.show = show
        self.keys = KeyAttention(sum_up=False) if keys is None else keys

    def boundary(self, layer: int, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return what block `layer` reads, given the tokens (B, 1+N, d) that reach it; grid (h, w)."""
        self.show("residual", layer, tokens)
        return tokens

    def heads(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return what the heads of a block put out for its queries, keys and values; all (B, H, 1+N, d/H)."""
        self.keys.add(k)
        return fused_attention(q, k, v)


def run_blocks(
    vit: VisionTransformer,
    images: Tensor,
    steps: OrdinarySteps,
    outputs: list[Tensor] | None = None,
    inputs: list[Tensor] | None = None,
    by_size: bool = False,
) -> tuple[Tensor, tuple[int, int]]:
    """Run all blocks but the last, with what some steps do between them and in their attention.

    Args:
        vit: the tower.
        images: (B, 3, H, W), normalised.
        steps: of this call; whom they show to is shown every block, the last one, run in the ordinary way, included.
        outputs: what each block leaves for the next, (B, 1+N, d), is added to it.
        inputs: what each block reads, likewise.
        by_size: how the positional table is resized, see :func:`rfclip.clip.towers.positional_table`.

    Returns:
        The tokens (B, 1+N, d) that the last block reads, and the grid (h, w).
    """
    show, (*earlier, last) = steps.show, blocks(vit)
    tokens, grid = embed(vit, images, by_size)
    tokens = steps.boundary(0, tokens, grid)
    for layer, block in enumerate(earlier):
        if inputs is not None:
            inputs.append(tokens)
        q, k, v = qkv(block, tokens)
        heads = steps.heads(layer, q, k, v)
        show_attention(show, layer, q, k)
        tokens = add_mlp(block, tokens + attention_branch(block, heads))
        tokens = steps.boundary(layer + 1, tokens, grid)
        if outputs is not None:
            outputs.append(tokens)
    show_attention_of(show, len(earlier), last, tokens)
    show("residual", len(earlier) + 1, run_block, last, tokens)
    return tokens, grid


def ordinary_blocks(
    vit: VisionTransformer, images: Tensor, show: Show, keys: KeyAttention | None = None, **collected: Any
) -> tuple[Tensor, tuple[int, int]]:
    """Run all blocks but the last in the ordinary way.

    Args:
        vit: the tower.
        images: (B, 3, H, W), normalised.
        show: is shown every block, the last one included.
        keys: the key-key attention of the blocks is added to it.
        collected: `outputs`, `inputs` and `by_size` of :func:`run_blocks`.

    Returns:
        The tokens (B, 1+N, d) that the last block reads, and the grid (h, w).
    """
    return run_blocks(vit, images, OrdinarySteps(show, keys), **collected)


class OnStream:
    """A method that works on what the blocks before the last leave, however these are run.

    Its image embedding is that of an ordinary last block behind them, whatever it does to the patches.

    Attributes:
        stream: runs those blocks, in the ordinary way unless it is said :meth:`behind` which others it stands.
    """

    stream: ClassVar[Stream] = staticmethod(ordinary_blocks)

    def behind(self: M, stream: Stream) -> M:
        """Return the same method behind blocks that are run otherwise."""
        method = copy.copy(self)
        object.__setattr__(method, "stream", stream)  # of the frozen copy; no field, so no setting
        return method

    @torch.no_grad()
    def image_embedding(self, vit: VisionTransformer, images: Tensor) -> Tensor:
        """Return DenseOutput.image (B, E) of images (B, 3, H, W), without the rest."""
        tokens, _ = self.stream(vit, images, Show())
        return class_embedding(vit, tokens, *qkv(blocks(vit)[-1], tokens))


def check_block_outputs(layers: Sequence[int], count: int) -> None:
    """Raise ValueError unless all layers (from 0) are outputs of blocks before the last of `count`."""
    outside = sorted({layer for layer in layers if layer > count - 2})
    if outside:
        raise ValueError(
            f"layers {outside} are no outputs of blocks before the last: this tower has {count} blocks, so give layers "
            f"in 0..{count - 2} (the published ones are those of a tower with 12)"
        )
