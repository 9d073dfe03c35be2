"""The pieces of open_clip's vision transformer, as functions of tokens. No method is in here.

Everywhere in this package `vit` is open_clip's own `VisionTransformer` (`clip.visual`), wrapped by nothing.
Tokens are (B, T, d): B images, T = 1 + N tokens with the class token first, N = h*w patches in raster order,
d the width. Run in the order `embed`, `run_block` for every block, `project`, they are open_clip's forward.

The residual stream keeps the precision of the weights (fp32), also under torch.autocast: only what happens
inside the attention and the MLP is computed in the lower precision.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from rfclip.clip.precision import at_least_fp32

_BLOCK_PARTS = ("ln_1", "attn", "ls_1", "ln_2", "mlp", "ls_2")
_ATTENTION_PARTS = ("in_proj_weight", "in_proj_bias", "out_proj")
_SWITCHES = (
    *("add_zero_attn", "is_causal", "scaled_cosine", "scaled_cosine_attn", "scale_heads", "qk_norm", "inner_norm"),
    "gate",
)


def check_supported(visual: nn.Module) -> None:
    """Say why a vision tower cannot be used, if so.

    Args:
        visual: the image tower of a CLIP (`clip.visual`).

    Raises:
        ValueError: the tower is not a plain open_clip ViT with a class token.
    """
    reason = _unsupported(visual)
    if reason:
        raise ValueError(
            f"this CLIP's image tower ({type(visual).__name__}) cannot be used: {reason}. The method reads "
            "the patch tokens and the class token of a plain ViT: take one such as ViT-B-16 or ViT-L-14"
        )


def _unsupported(visual: nn.Module) -> str | None:
    """Return the first reason against a tower, or None."""
    if not isinstance(visual, VisionTransformer):
        if hasattr(visual, "attnpool") and hasattr(visual, "layer4"):
            return "it is a ResNet, which has no patch tokens and no transformer blocks"
        if hasattr(visual, "trunk"):
            return "it is a timm model, whose layout open_clip does not fix"
        return "it is no open_clip VisionTransformer"
    if visual.attn_pool is not None:
        return "it pools by attention, so no class token stands for the image"
    if visual.pool_type != "tok":
        return f"it pools by {visual.pool_type!r}, so its class token was not trained to stand for the image"
    if visual.patch_size[0] != visual.patch_size[1]:
        return f"its patches are not square: {tuple(visual.patch_size)}"
    if visual.proj is None:
        return "it has no projection into the joint space"
    for index, block in enumerate(visual.transformer.resblocks):
        reason = _other_formula(block)
        if reason:
            return f"block {index} ({type(block).__name__}) has another attention than CLIP's softmax(q k) v: {reason}"
    return None


def _other_formula(block: nn.Module) -> str | None:
    """Return what a block computes beside the formula of `run_block`, or lacks of it, or None.

    Told by what changes the formula and not by classes, which differ between open_clip's versions: parameters,
    buffers, modules and switches of the attention that are not those of softmax(q k) v.
    """
    attn = getattr(block, "attn", None)
    weight = getattr(attn, "in_proj_weight", None)
    if attn is None or weight is None or not isinstance(getattr(attn, "out_proj", None), nn.Module):
        return "it has no in_proj_weight and out_proj"
    heads = getattr(attn, "num_heads", None)
    if weight.ndim != 2 or weight.shape[0] != 3 * weight.shape[1] or not heads or weight.shape[1] % heads:
        return f"its in_proj_weight {tuple(weight.shape)} does not hold queries, keys and values of {heads} heads"
    missing = [name for name in _BLOCK_PARTS if not hasattr(block, name)]
    if missing:
        return f"it lacks {missing[0]}"
    more = [*_acting(block, _BLOCK_PARTS), *_acting(attn, _ATTENTION_PARTS)]
    scale = getattr(attn, "scale", None)
    if isinstance(scale, float) and not math.isclose(scale, (weight.shape[1] // heads) ** -0.5):
        more.append("scale")
    return f"it has {', '.join(more)}" if more else None


def _acting(module: nn.Module, known: tuple[str, ...]) -> list[str]:
    """Return the names of a module's own parts, beside the known ones, that change what it computes."""
    tensors = [name for name, tensor in (*module._parameters.items(), *module._buffers.items()) if tensor is not None]
    silent = (nn.Identity, nn.Dropout)
    modules = [name for name, child in module.named_children() if not isinstance(child, silent)]
    switches = [name for name in _SWITCHES if getattr(module, name, False) is True]
    return [name for name in dict.fromkeys([*tensors, *modules, *switches]) if name not in known]


def width(vit: VisionTransformer) -> int:
    """Return d, the width of the residual stream."""
    return vit.conv1.out_channels


def blocks(vit: VisionTransformer) -> list[ResidualAttentionBlock]:
    """Return the L transformer blocks, first to last."""
    return list(vit.transformer.resblocks)


def num_layers(vit: VisionTransformer) -> int:
    """Return L, the number of blocks."""
    return len(vit.transformer.resblocks)


def num_heads(vit: VisionTransformer) -> int:
    """Return H, the number of attention heads of a block."""
    return vit.transformer.resblocks[0].attn.num_heads


def patch_size(vit: VisionTransformer) -> int:
    """Return P, the side of a patch in pixels."""
    return vit.patch_size[0]


def native_grid(vit: VisionTransformer) -> tuple[int, int]:
    """Return (h0, w0), the grid that the positional table was trained for."""
    height, width_ = vit.grid_size
    return height, width_


def embed(vit: VisionTransformer, images: Tensor, by_size: bool = False) -> tuple[Tensor, tuple[int, int]]:
    """Turn images into the tokens that the first block reads (docs/METHOD.md sections 4.6 and 4.7).

    Trailing rows and columns that do not fill a patch are not seen; a side shorter than a patch is padded to
    one patch by repeating its last row or column.

    Args:
        vit: the tower.
        images: (B, 3, height, width), floating point, normalised, any size from 1 x 1 on.
        by_size: how the positional table is resized, see :func:`positional_table`.

    Returns:
        The tokens (B, 1 + h*w, d) after ln_pre, and the grid (h, w).

    Raises:
        ValueError: the images have another layout, an integer type, or no pixel.
    """
    check_images(images)
    side = patch_size(vit)
    height, width_ = images.shape[-2:]
    pad = (0, max(side - width_, 0), 0, max(side - height, 0))
    if any(pad):
        images = F.pad(images, pad, mode="replicate")
    patches = vit.conv1(images)  # (B, d, h, w)
    grid = (patches.shape[-2], patches.shape[-1])
    tokens = patches.flatten(2).transpose(1, 2).to(vit.class_embedding.dtype)  # (B, N, d)
    class_token = vit.class_embedding.expand(len(images), 1, -1)  # (B, 1, d)
    tokens = torch.cat([class_token, tokens], dim=1) + positional_table(vit, grid, by_size)
    return vit.ln_pre(tokens), grid


def check_images(images: Tensor) -> None:
    """Raise ValueError unless images are (B, 3, height, width), of a floating-point type, and not empty."""
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise ValueError(f"images must be (B, 3, height, width), not empty, got shape {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"images must be normalised floating-point values, got {images.dtype}")


def positional_table(vit: VisionTransformer, grid: tuple[int, int], by_size: bool = False) -> Tensor:
    """Return the positional embeddings for a grid, class token first (docs/METHOD.md section 4.6).

    On another grid than the native one the table is resampled bicubically, with the scale factors
    (h + 0.1) / h0 and (w + 0.1) / w0 used as they are. The 0.1 is a quirk kept for parity with the published
    results: it shifts the sampled positions slightly, and keeps the output size, which is rounded down, from
    falling short of (h, w).

    Args:
        vit: the tower.
        grid: (h, w), both at least 1.
        by_size: by the output size instead, without the 0.1, as LPOSS does.

    Returns:
        (1 + h*w, d).
    """
    return resized_table(vit.positional_embedding, native_grid(vit), grid, by_size)


def resized_table(table: Tensor, native: tuple[int, int], grid: tuple[int, int], by_size: bool = False) -> Tensor:
    """Return a table (1 + h0*w0, d) of positional embeddings for a grid (h, w), by `positional_table`'s rule."""
    if grid == native:
        return table
    patches = table[1:].T.reshape(1, -1, *native)  # (1, d, h0, w0)
    if by_size:
        patches = F.interpolate(patches, size=grid, mode="bicubic", align_corners=False)
    else:
        scale = ((grid[0] + 0.1) / native[0], (grid[1] + 0.1) / native[1])
        patches = F.interpolate(
            patches, scale_factor=scale, mode="bicubic", align_corners=False, recompute_scale_factor=False
        )
    return torch.cat([table[:1], patches.flatten(2)[0].T])


def qkv(block: ResidualAttentionBlock, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a block's queries, keys and values, each (B, H, T, d/H), of tokens (B, T, d); applies ln_1."""
    q, k, v = _last_projections(block, tokens, 3)
    return q, k, v


def kv(block: ResidualAttentionBlock, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `qkv` does, without the queries and their cost."""
    k, v = _last_projections(block, tokens, 2)
    return k, v


def _last_projections(block: ResidualAttentionBlock, tokens: Tensor, count: int) -> tuple[Tensor, ...]:
    """Return the last `count` of queries, keys and values."""
    attention = block.attn
    rows = slice(-count * attention.in_proj_weight.shape[1], None)  # of (3 * d, d)
    bias = None if attention.in_proj_bias is None else attention.in_proj_bias[rows]
    projected = F.linear(block.ln_1(tokens), attention.in_proj_weight[rows], bias)  # (B, T, count * d)
    heads = projected.unflatten(-1, (count, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return heads.unbind(0)  # (B, H, T, d/H) each


def softmax_attention(q: Tensor, k: Tensor) -> Tensor:
    """Return softmax(scale q k^T), scale = (d/H)^-0.5, as a matrix to look at.

    Args:
        q: (B, H, T, d/H).
        k: (B, H, S, d/H).

    Returns:
        (B, H, T, S), rows sum to 1, at least fp32.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return scores.softmax(dim=-1, dtype=at_least_fp32(scores))


def fused_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(scale q k^T) v as (B, H, T, dv) by the fused kernel, which never builds the matrix.

    Args:
        q: (B, H, T, d/H).
        k: (B, H, S, d/H).
        v: (B, H, S, dv).
    """
    return F.scaled_dot_product_attention(q, k, v)


def attention_output(block: ResidualAttentionBlock, heads: Tensor) -> Tensor:
    """Join heads (B, H, T, d/H) and apply the output projection: (B, T, d), before LayerScale (ls_1)."""
    return block.attn.out_proj(heads.transpose(1, 2).flatten(2))


def add_mlp(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    """Return tokens + ls_2(mlp(ln_2(tokens))), (B, T, d)."""
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))


def run_block(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    """Run a block in the ordinary way: (B, T, d) -> (B, T, d)."""
    q, k, v = qkv(block, tokens)
    tokens = tokens + block.ls_1(attention_output(block, fused_attention(q, k, v)))
    return add_mlp(block, tokens)


def project(vit: VisionTransformer, tokens: Tensor) -> Tensor:
    """Take tokens (..., d) into the joint space (..., E): ln_post and the projection.

    Kept in the precision of the weights under torch.autocast: the step is cheap and cosines are taken of it.
    """
    with torch.autocast(tokens.device.type, enabled=False):
        return vit.ln_post(tokens.to(vit.proj.dtype)) @ vit.proj
