"""What every dense-encoding method takes, gives and may show.

A method is a frozen set of settings, registered in METHODS (or in mmsegmentation's MODELS), that can be called as
`method(vit, images, record=None) -> DenseOutput`. `vit` is open_clip's VisionTransformer. Nothing is kept
between calls, neither on the method nor on the model.

A recorder is shown named activations on the way (B images, H heads, N = h*w patches, L blocks counted from 0):

name                layer   shape             what
residual            0..L    (B, 1+N, d)       stream as it reaches block l (L: leaves an ordinary last block)
residual_refocused  1..L    (B, 1+N, d)       the same after its distractors were moderated
phi                 0..L    (B, N)            distraction scores of `residual`
distractors         0..L    (B, N) bool       phi > tau / d
attn_qk             0..L-1  (B, H, 1+N, 1+N)  softmax(scale q k^T) of block l
attn_kk             0..L-1  (B, H, 1+N, 1+N)  softmax(scale k k^T) of block l
fiedler             0..L-1  (B, N)            y of block l's cut (last block: of attn_dense)
defocus             0..L-1  (B, N) bool       defocused tokens of that cut
attn_refocused      0..L-1  (B, H, 1+N, 1+N)  attn_qk after its weight was redistributed
attn_dense          None    (B, H, ., .)      attention behind the dense output, over N patches or all 1+N tokens, or
                                              over the patches of all windows that were joined (GLA-CLIP)
attn_dense_refocused  None  (B, H, N, N)      attn_dense after its weight was redistributed
guide               None    (B, 1+N, d)       mean of the block outputs (release)
similarity          None    (B, N, N)         enhancement matrix (release)
vision_similarity   None    (B, ., .)         cosines of the vision model's patches, on DenseOutput's grid (CASS: head
                                              mean; LPOSS: on the vision model's)
dense               None    (B, N, E)         DenseOutput.patches
image               None    (B, E)            DenseOutput.image

Each method shows those that it has. A refocused activation is shown only where the method refocuses. The
tensors are the method's own: a recorder copies what it keeps and modifies nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor

from rfclip.checks import check_dims, check_indices
from rfclip.clip.towers import (
    add_mlp,
    attention_output,
    blocks,
    fused_attention,
    project,
    qkv,
    softmax_attention,
    width,
)
from rfclip.refocus import distraction_scores
from rfclip.registry import Registry


class Recorder(Protocol):
    """Anything that wants to see activations."""

    def record(self, name: str, layer: int | None, value: Tensor) -> None:
        """Take note of an activation; see the table in `rfclip.methods.base`."""


class Show:
    """Passes activations on to a recorder. While nobody listens, nothing is computed for it.

    Args:
        recorder: who listens, or None.
    """

    def __init__(self, recorder: Recorder | None = None) -> None:
        self._recorder = recorder

    @property
    def listened(self) -> bool:
        """Whether somebody listens."""
        return self._recorder is not None

    def __call__(self, name: str, layer: int | None, value: Tensor | Callable[..., Tensor], *arguments: Any) -> None:
        """Show an activation: a tensor, or a function and the arguments that it makes one of."""
        if self._recorder is not None:
            shown = value if isinstance(value, Tensor) else value(*arguments)
            self._recorder.record(name, layer, shown)


@dataclass(frozen=True)
class DenseOutput:
    """Embeddings in CLIP's joint space.

    Attributes:
        patches: (B, N, E), not normalised, raster order.
        image: (B, E), not normalised.
        grid: (h, w), h*w = N; a vision model's may be finer than the tower's.
        scores: (B, Q, h', w') that stand in place of the cosines of patches and queries, on a grid of their own, or
            None.
    """

    patches: Tensor
    image: Tensor
    grid: tuple[int, int]
    scores: Tensor | None = None

    def __getitem__(self, images: slice) -> DenseOutput:
        """The output of some of the images."""
        scores = None if self.scores is None else self.scores[images]
        return DenseOutput(self.patches[images], self.image[images], self.grid, scores)

    @staticmethod
    def together(outputs: Sequence[DenseOutput]) -> DenseOutput:
        """The outputs of several batches, at least one and all on one grid, as those of one."""
        scores = [output.scores for output in outputs if output.scores is not None]
        return DenseOutput(
            torch.cat([output.patches for output in outputs]),
            torch.cat([output.image for output in outputs]),
            outputs[0].grid,
            torch.cat(scores) if scores else None,
        )


class Method(Protocol):
    """A dense method: frozen settings that can be called."""

    def __call__(self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None) -> DenseOutput:
        """Encode normalised images (B, 3, H, W); show activations to `record`."""


METHODS = Registry("method", "__call__")


def describe(part: object) -> dict[str, Any]:
    """A method's type and settings as a plain dict; those of parts that it holds, such as a head, likewise."""
    settings = {each.name: getattr(part, each.name) for each in fields(part)} if is_dataclass(part) else {}
    held = {name: describe(value) for name, value in settings.items() if is_dataclass(value)}
    return {"type": type(part).__name__, **settings, **held}


def resolve_dims(dims: str | Sequence[int], vit: VisionTransformer) -> tuple[int, ...]:
    """Return a method's distraction dimensions, checked against the width of the tower.

    Raises:
        ValueError: they are still 'auto', or one is out of range.
    """
    if isinstance(dims, str):
        raise ValueError(
            "distraction_dims='auto' can only be resolved with the weights at hand, which the RFCLIP segmentor "
            "does: build the method through it, or set distraction_dims to "
            "rfclip.methods.distraction.resolve_distraction_dims(clip)"
        )
    return check_dims(dims, width(vit))


def check_words_or_indices(name: str, value: object, *words: str) -> str | tuple[int, ...]:
    """Return one of some words, or a list of integers as a tuple; ValueError otherwise."""
    if not isinstance(value, str):
        return check_indices(name, value)
    if value not in words:
        raise ValueError(f"{name} must be {', '.join(map(repr, words))} or a list of integers, got {value!r}")
    return value


def encode_image(method: Method, vit: VisionTransformer, images: Tensor) -> Tensor:
    """Return a method's image embeddings (B, E), without its dense output where it can leave that out.

    Args:
        method: a dense method; one with `image_embedding(vit, images)` is asked for it, any other is run in full.
        vit: the tower.
        images: (B, 3, H, W), normalised.
    """
    if hasattr(method, "image_embedding"):
        return method.image_embedding(vit, images)
    return method(vit, images).image


def show_attention(show: Show, layer: int, q: Tensor, k: Tensor) -> None:
    """Show what a block attends to, given its queries and keys (B, H, 1+N, d/H)."""
    show("attn_qk", layer, softmax_attention, q, k)
    show("attn_kk", layer, softmax_attention, k, k)


def show_attention_of(show: Show, layer: int, block: ResidualAttentionBlock, tokens: Tensor) -> None:
    """The same of a block whose queries and keys are not at hand, given the tokens (B, 1+N, d) that it reads."""
    if show.listened:
        show_attention(show, layer, *qkv(block, tokens)[:2])


def show_boundary(show: Show, layer: int, tokens: Tensor, dims: Sequence[int], distractors: Tensor) -> None:
    """Show the stream (B, 1+N, d) between two blocks, its distraction scores and its distractors (B, N)."""
    show("residual", layer, tokens)
    show("phi", layer, distraction_scores, tokens[:, 1:], dims)
    show("distractors", layer, distractors)


def attention_branch(block: ResidualAttentionBlock, heads: Tensor) -> Tensor:
    """Return what a block's attention would add to the stream, (B, T, d), given its heads (B, H, T, d/H)."""
    return block.ls_1(attention_output(block, heads))


def class_embedding(vit: VisionTransformer, tokens: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the image embedding (B, E): the class token after an ordinary last block.

    Args:
        vit: the tower.
        tokens: (B, 1+N, d), what the last block reads.
        q, k, v: (B, H, 1+N, d/H) of the last block for these tokens.
    """
    last = blocks(vit)[-1]
    heads = fused_attention(q[:, :, :1], k, v)  # no other row is needed
    return project(vit, add_mlp(last, tokens[:, :1] + attention_branch(last, heads)))[:, 0]


def dense_output(
    vit: VisionTransformer, patches: Tensor, image: Tensor, grid: tuple[int, int], show: Show
) -> DenseOutput:
    """Project patch tokens (B, N, d) and put the output together with the image embedding (B, E)."""
    output = DenseOutput(project(vit, patches), image, grid)
    show("dense", None, output.patches)
    show("image", None, output.image)
    return output
