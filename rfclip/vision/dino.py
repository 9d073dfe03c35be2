"""The pieces of DINO's vision transformer, as functions of tokens (docs/METHODS.md, The vision model).

`vit` is timm's own `VisionTransformer`, wrapped by nothing. Tokens are (B, T, d) as in `rfclip.clip.towers`: the class
token first, patches in raster order. What DINO does otherwise than CLIP: the patch convolution has a bias, nothing is
normalised before the blocks, LayerNorm's eps is 1e-6, the GELU is exact.

The residual stream keeps the precision of the weights (fp32), also under torch.autocast.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from rfclip.clip.towers import check_images, fused_attention, resized_table
from rfclip.clip.weights import WeightsError, load_strictly

EPS = 1e-6
HEAD_WIDTH = 64  # of the published models
_CORE = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight")


def build(tensors: Mapping[str, Tensor], heads: int | None, source: str) -> VisionTransformer:
    """Return the tower that a state dict describes: frozen, in evaluation, fp32.

    Args:
        tensors: by the names of the DINO release, which are timm's.
        heads: of each block; None: heads of 64 channels, as the published models have.
        source: where the tensors come from, for messages.

    Raises:
        WeightsError: the tensors are another model's, or do not have so many heads.
    """
    missing = [name for name in _CORE if name not in tensors]
    if missing:
        raise WeightsError(
            f"the weights in {source} are not those of a DINO: {missing[0]} is missing{_whose(tensors)}; give the "
            "backbone's state dict, as DINO's release or timm's vit_*.dino has it"
        )
    table, patches = tensors["pos_embed"], tensors["patch_embed.proj.weight"]
    count, side = table.shape[1] - 1 if table.ndim == 3 else 0, math.isqrt(max(table.shape[1] - 1, 0))
    if not count or side * side != count or patches.ndim != 4 or patches.shape[2] != patches.shape[3]:
        raise WeightsError(
            f"the weights in {source} are not those of a DINO: its patches {tuple(patches.shape)} and its positional "
            f"table {tuple(table.shape)} must be square, with one more row for the class token"
        )
    width, patch = patches.shape[0], patches.shape[2]
    depth = sum(name.endswith(".attn.qkv.weight") for name in tensors)
    hidden = tensors["blocks.0.mlp.fc1.weight"].shape[0]
    with torch.device("meta"):  # the weights come below; nothing random is drawn
        vit = skeleton(width, heads_of(width, heads, source), depth, hidden, patch, side)
    vit = vit.to_empty(device="cpu")
    load_strictly(vit, tensors, source, f"a DINO of {depth} blocks, width {width}, patches of {patch}")
    return vit.float().eval().requires_grad_(False)


def skeleton(width: int, heads: int, depth: int, hidden: int, patch: int, side: int) -> VisionTransformer:
    """Return timm's ViT in DINO's form; its weights are not initialised and must be replaced.

    Args:
        width: d, channels of a token.
        heads: of each block.
        depth: L, the number of blocks.
        hidden: channels of the MLPs.
        patch: side of a patch in pixels.
        side: of the grid that the positional table is for, in patches.
    """
    return VisionTransformer(
        img_size=side * patch,
        patch_size=patch,
        num_classes=0,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=(hidden + 0.5) / width,  # rounded down there
        norm_layer=partial(nn.LayerNorm, eps=EPS),
        act_layer=nn.GELU,
        weight_init="skip",
    )


def heads_of(width: int, heads: int | None, source: str) -> int:
    """Return the number of heads, by default width / 64; WeightsError if they do not divide the width."""
    if heads is None and width % HEAD_WIDTH:
        raise WeightsError(
            f"vfm.heads is missing: {source} is {width} channels wide, which is no multiple of the {HEAD_WIDTH} of a "
            "published DINO's heads; give the number of heads that it was trained with"
        )
    count = width // HEAD_WIDTH if heads is None else heads
    if width % count:
        raise WeightsError(
            f"vfm.heads={count} does not divide the {width} channels of {source}: give the number of heads that it "
            "was trained with"
        )
    return count


def _whose(tensors: Mapping[str, Tensor]) -> str:
    """Return what tensors seem to be instead, as a clause, or ''."""
    if any(name.startswith(("visual.", "text_projection", "vision_model.", "logit_scale")) for name in tensors):
        return ", and they seem to be a CLIP's (clip.pretrained takes that)"
    if any("rope" in name or name.startswith("embeddings.") for name in tensors):
        return ", and they seem to be of a later DINO or in transformers' layout"
    return ""


def patch_size(vit: VisionTransformer) -> int:
    """Return P, the side of a patch in pixels."""
    side: int = vit.patch_embed.proj.kernel_size[0]
    return side


def num_heads(vit: VisionTransformer) -> int:
    """Return H, the number of attention heads of a block."""
    first: Any = vit.blocks[0]
    return int(first.attn.num_heads)


def width(vit: VisionTransformer) -> int:
    """Return d, the width of the residual stream."""
    channels: int = vit.patch_embed.proj.out_channels
    return channels


def embed(vit: VisionTransformer, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Turn images into the tokens that the first block reads.

    Trailing rows and columns that fill no patch are not seen.

    Args:
        vit: the tower.
        images: (B, 3, height, width), normalised for it.

    Returns:
        The tokens (B, 1 + h*w, d), and the grid (h, w).

    Raises:
        ValueError: the images have another layout, or a side is shorter than a patch.
    """
    check_images(images)
    side = patch_size(vit)
    if min(images.shape[-2:]) < side:
        raise ValueError(
            f"a window of {images.shape[-2]} x {images.shape[-1]} pixels fills no patch of the vision model, which are "
            f"{side} x {side}: give pictures and windows with sides of at least {side}"
        )
    patches = vit.patch_embed.proj(images)  # (B, d, h, w)
    grid = (patches.shape[-2], patches.shape[-1])
    class_token: Any = vit.cls_token  # (1, 1, d)
    table = positional_table(vit, grid)  # (1 + h*w, d)
    tokens = patches.flatten(2).transpose(1, 2).to(table.dtype)  # (B, N, d)
    return torch.cat([class_token.expand(len(images), -1, -1), tokens], dim=1) + table, grid


def positional_table(vit: VisionTransformer, grid: tuple[int, int]) -> Tensor:
    """Return the positional embeddings (1 + h*w, d) for a grid (h, w), resized as CLIP's are."""
    trained: Any = vit.pos_embed  # (1, 1 + h0*w0, d)
    side = math.isqrt(trained.shape[1] - 1)
    return resized_table(trained[0], (side, side), grid)


def qkv(block: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a block's queries, keys and values, each (B, H, T, d/H), of tokens (B, T, d); applies norm1."""
    projected = block.attn.qkv(block.norm1(tokens))  # (B, T, 3 * d)
    q, k, v = projected.unflatten(-1, (3, block.attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def run_block(block: Any, tokens: Tensor) -> Tensor:
    """Run a block: (B, T, d) -> (B, T, d)."""
    heads = fused_attention(*qkv(block, tokens))
    tokens = tokens + block.attn.proj(heads.transpose(1, 2).flatten(2))
    ran: Tensor = tokens + block.mlp(block.norm2(tokens))
    return ran


def final_patches(vit: VisionTransformer, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Return the patch tokens (B, N, d) behind the last block, normalised by `norm`, and the grid (h, w)."""
    tokens, grid = embed(vit, images)
    for block in vit.blocks:
        tokens = run_block(block, tokens)
    with torch.autocast(tokens.device.type, enabled=False):  # of the stream, which is fp32
        return vit.norm(tokens)[:, 1:], grid


def last_keys_values(vit: VisionTransformer, images: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Return the last block's keys and values of the patches, each (B, H, N, d/H), and the grid (h, w)."""
    tokens, grid = embed(vit, images)
    *earlier, last = vit.blocks
    for block in earlier:
        tokens = run_block(block, tokens)
    _, k, v = qkv(last, tokens)
    return k[:, :, 1:], v[:, :, 1:], grid
