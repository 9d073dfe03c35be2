"""The methods that RF-CLIP is compared with: each changes the last block alone (docs/METHOD.md section 9)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor

from rfclip.checks import Checked, check_above_zero, setting
from rfclip.clip.towers import (
    add_mlp,
    attention_output,
    blocks,
    fused_attention,
    project,
    qkv,
    run_block,
    softmax_attention,
)
from rfclip.methods.attention import KeyAttention
from rfclip.methods.base import METHODS, DenseOutput, Recorder, Show, attention_branch, class_embedding, dense_output
from rfclip.methods.stream import OnStream


class LastBlock(OnStream, ABC):
    """The ordinary tower, but for what the last block lets its tokens attend to.

    Attributes:
        in_stream: whether the last block keeps its residual and its MLP.
    """

    in_stream: ClassVar[bool] = False

    @abstractmethod
    def heads(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int], show: Show) -> Tensor:
        """What the last block's heads put out for its queries, keys and values; all (B, H, 1+N, d/H)."""

    @torch.no_grad()
    def __call__(self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None) -> DenseOutput:
        """Encode normalised images (B, 3, H, W)."""
        show = Show(record)
        tokens, grid = self.stream(vit, images, show)
        last = blocks(vit)[-1]
        q, k, v = qkv(last, tokens)  # (B, H, 1+N, d/H)
        heads = self.heads(q, k, v, grid, show)
        image = class_embedding(vit, tokens, q, k, v)
        if self.in_stream:
            patches = add_mlp(last, tokens + attention_branch(last, heads))[:, 1:]
        else:
            patches = attention_output(last, heads[:, :, 1:])
        return dense_output(vit, patches, image, grid, show)


@METHODS.register
@dataclass(frozen=True)
class MeanKK(OnStream):
    """Mean over layers of softmax kk, its patch-patch block: `RefocusCLIP` without its three steps; no settings."""

    @torch.no_grad()
    def __call__(self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None) -> DenseOutput:
        """Encode normalised images (B, 3, H, W)."""
        show, keys = Show(record), KeyAttention()
        tokens, grid = self.stream(vit, images, show, keys)
        last = blocks(vit)[-1]
        q, k, v = qkv(last, tokens)  # (B, H, 1+N, d/H)
        keys.add(k)
        show("attn_dense", None, keys.mean)
        patches = attention_output(last, keys.attend(v[:, :, 1:]))
        return dense_output(vit, patches, class_embedding(vit, tokens, q, k, v), grid, show)


@METHODS.register
@dataclass(frozen=True)
class NACLIP(Checked, LastBlock):
    """softmax(scale kk + omega), omega a Gaussian of the patches' distance; no residual, no MLP.

    Hajimiri, Ben Ayed and Dolz, "Pay Attention to Your Neighbours: Training-Free Open-Vocabulary Semantic
    Segmentation", WACV 2025.

    Attributes:
        sigma: standard deviation of the Gaussian in patches, above 0.

    Raises:
        ValueError: sigma is not above 0.
    """

    sigma: float = setting(5.0, check_above_zero)

    def heads(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int], show: Show) -> Tensor:
        """The class token has omega 0."""
        omega = F.pad(neighbourhood(grid, self.sigma, k.device), (1, 0, 1, 0))
        show("attn_dense", None, _biased_attention, k, omega)
        return F.scaled_dot_product_attention(k, k, v, attn_mask=omega.to(k.dtype))


@METHODS.register
@dataclass(frozen=True)
class ClearCLIP(LastBlock):
    """softmax qq, no residual, no MLP; no settings.

    Lan et al., "ClearCLIP: Decomposing CLIP Representations for Dense Vision-Language Inference", ECCV 2024.
    """

    def heads(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int], show: Show) -> Tensor:
        """Queries attend to queries."""
        show("attn_dense", None, softmax_attention, q, q)
        return fused_attention(q, q, v)


@METHODS.register
@dataclass(frozen=True)
class SCLIP(LastBlock):
    """(softmax qq + softmax kk) v, a sum and not a mean, residual and MLP kept; no settings.

    Wang, Mei and Yuille, "SCLIP: Rethinking Self-Attention for Dense Vision-Language Inference", ECCV 2024.
    """

    in_stream: ClassVar[bool] = True

    def heads(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int], show: Show) -> Tensor:
        """Queries attend to queries and keys to keys."""
        show("attn_dense", None, lambda: softmax_attention(q, q) + softmax_attention(k, k))
        return fused_attention(q, q, v) + fused_attention(k, k, v)


@METHODS.register
@dataclass(frozen=True)
class MaskCLIP(LastBlock):
    """The values instead of what is attended to, no residual, no MLP; no settings.

    Zhou, Loy and Dai, "Extract Free Dense Labels from CLIP", ECCV 2022.
    """

    def heads(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int], show: Show) -> Tensor:
        """Each token keeps to itself."""
        return v


@METHODS.register
@dataclass(frozen=True)
class VanillaCLIP(OnStream):
    """CLIP as it is: the patch tokens of the unchanged last block; no settings."""

    @torch.no_grad()
    def __call__(self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None) -> DenseOutput:
        """Encode normalised images (B, 3, H, W)."""
        show = Show(record)
        tokens, grid = self.stream(vit, images, show)
        tokens = run_block(blocks(vit)[-1], tokens)
        return dense_output(vit, tokens[:, 1:], project(vit, tokens[:, 0]), grid, show)


def neighbourhood(grid: tuple[int, int], sigma: float, device: torch.device | None = None) -> Tensor:
    """Return exp(-dist^2 / (2 sigma^2)) between the patches of a grid (h, w), in patches: (N, N), fp64."""
    rows, columns = torch.meshgrid(*(torch.arange(side, device=device) for side in grid), indexing="ij")
    positions = torch.stack([rows.flatten(), columns.flatten()], dim=1)  # (N, 2)
    squared = (positions[:, None] - positions[None]).square().sum(-1)
    return torch.exp(-squared.double() / (2 * sigma**2))


def _biased_attention(k: Tensor, omega: Tensor) -> Tensor:
    """softmax(scale kk + omega) as a matrix to look at, (B, H, 1+N, 1+N)."""
    scores = k.double() @ k.double().transpose(-1, -2) * k.shape[-1] ** -0.5
    return (scores + omega).softmax(-1).to(k.dtype)
