"""Random towers on which the method has work to do.

Plain random weights have no distractor, so a method that skips its work would look fast on them, and their keys
are so alike or so different that key-key attention is uniform or diagonal. Here channels are planted that some
patches over-activate at every layer boundary, and keys are scaled layer by layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.model import CLIPVisionCfg
from open_clip.transformer import LayerNorm, QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import Tensor

from rfclip.clip import towers as V
from rfclip.clip.architecture import named_config
from rfclip.vision.dino import skeleton
from rfclip.vision.model import DINO

PLANTED = 8  # channels, as many as are known of OpenAI's weights
POSITIONS = 0.03  # share of the positions that over-activate the channels from the start
CONTENTS = 0.03  # share of the patches that a block makes over-activate them
SELF_ATTENTION = 0.08  # mean diagonal of a layer's key-key attention; uniform attention has 1 / (1 + N)
_RAISE = 20.0  # what a planted unit adds to a channel per unit of activation; other channels are about 1
DINO_SIZES = {"dino_vits": (384, 6, 12), "dino_vitb": (768, 12, 12)}  # width, heads, blocks
_GAIN = 4.0  # slope of a planted unit, per standard deviation of what it looks at


@dataclass(frozen=True, eq=False)
class Tower:
    """A random tower with planted channels.

    Attributes:
        vit: open_clip's image tower, fp32, eval, frozen.
        dims: the planted channels, which are its distraction dimensions.
    """

    vit: VisionTransformer
    dims: tuple[int, ...]


def smooth_images(batch: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Return smooth random images (B, 3, height, width), of mean about 0 and variance 1 like normalised photographs.

    Args:
        batch: B.
        height: in pixels.
        width: in pixels.
        seed: the same seed gives the same images.
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(batch, 3, height, width)
    for cell, weight in ((64, 1.0), (20, 0.6), (8, 0.2)):
        coarse = torch.randn(batch, 3, height // cell + 2, width // cell + 2, generator=generator)
        images += weight * F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    return images / images.std()


def build_tower(model: str | Mapping[str, Any], seed: int = 0, size: tuple[int, int] | None = None) -> Tower:
    """Build a random tower of a model's sizes and plant it.

    Args:
        model: an open_clip model name, or a model config (`embed_dim`, `vision_cfg`).
        seed: of the weights.
        size: (height, width) in pixels of the images that it is planted on; None: its native size.
    """
    config = model_config(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vit = empty_tower(config)
    dims = tuple(sorted(torch.randperm(V.width(vit), generator=_generator(seed))[:PLANTED].tolist()))
    height, width = size or vit.image_size
    plant(vit, dims, smooth_images(3, height, width, seed=seed + 1), _generator(seed))
    return Tower(vit, dims)


def model_config(model: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config of an open_clip model name; a config is returned as it is."""
    return named_config(model) if isinstance(model, str) else model


def empty_tower(config: Mapping[str, Any]) -> VisionTransformer:
    """Build the image tower of a model config as open_clip initialises it; frozen, in eval mode."""
    vision = CLIPVisionCfg(**config["vision_cfg"])
    vit = VisionTransformer(
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        width=vision.width,
        layers=vision.layers,
        heads=vision.width // vision.head_width,
        mlp_ratio=vision.mlp_ratio,
        output_dim=config["embed_dim"],
        act_layer=QuickGELU,
        norm_layer=LayerNorm,
    )
    return vit.eval().requires_grad_(False)


def random_vision(vit: VisionTransformer, published: str, seed: int = 0) -> DINO:
    """Build a random vision model for a method beside a tower.

    Beside a tower of full size (width 384 and more) it has the sizes of a published one; beside a toy it has the
    tower's own width and heads, and two blocks. The weights are normal, of standard deviation 0.02.

    Args:
        vit: CLIP's tower.
        published: the name of the vision model that the method was published with, e.g. 'dino_vitb8'.
        seed: of the weights.
    """
    patch = int(published.removeprefix("dino_vit")[1:])
    width, heads, depth = DINO_SIZES[published[: -len(str(patch))]]
    if V.width(vit) < 384:
        width, heads, depth = V.width(vit), V.num_heads(vit), 2
    empty = skeleton(width, heads, depth, 4 * width, patch, 224 // patch)
    generator = _generator(seed)
    drawn = {name: 0.02 * torch.randn(value.shape, generator=generator) for name, value in empty.state_dict().items()}
    for name in drawn:
        if name.endswith(("norm1.weight", "norm2.weight", "norm.weight")):
            drawn[name] += 1
    return DINO(drawn, heads, "random weights")


@torch.no_grad()
def plant(
    vit: VisionTransformer,
    dims: tuple[int, ...],
    images: Tensor,
    generator: torch.Generator,
    positions: float = POSITIONS,
    contents: float = CONTENTS,
) -> None:
    """Plant positions for the first boundary, and in each block the scale of the keys and a unit of the MLP.

    Args:
        vit: is changed.
        dims: channels that the planted patches over-activate.
        images: (B, 3, H, W) that the units are planted on, of the tower's native size.
        generator: draws the positions and what the units look at.
        positions, contents: shares of the patches, see POSITIONS and CONTENTS.
    """
    table = vit.positional_embedding  # (1 + N, d)
    patches = len(table) - 1
    chosen = 1 + torch.randperm(patches, generator=generator)[: max(1, round(positions * patches))]
    table[chosen[:, None], torch.tensor(dims)] += _RAISE
    direction = torch.randn(V.width(vit), generator=generator)
    direction[list(dims)] = 0
    tokens, _ = V.embed(vit, images)
    for block in V.blocks(vit):
        _scale_keys(block, tokens)
        _plant_unit(block, dims, direction, tokens, contents)
        tokens = V.run_block(block, tokens)


def _scale_keys(block: ResidualAttentionBlock, tokens: Tensor) -> None:
    """Scale a block's keys so that the diagonal of key-key attention is SELF_ATTENTION on average."""
    _, keys, _ = V.qkv(block, tokens)
    low, high = 1 / 64, 64.0
    for _ in range(12):
        middle = (low * high) ** 0.5
        diagonal = V.softmax_attention(middle * keys, middle * keys).diagonal(dim1=-2, dim2=-1).mean()
        low, high = (middle, high) if diagonal < SELF_ATTENTION else (low, middle)
    width = block.attn.in_proj_weight.shape[1]
    for parameter in (block.attn.in_proj_weight, block.attn.in_proj_bias):
        parameter[width : 2 * width] *= low


def _plant_unit(
    block: ResidualAttentionBlock, dims: tuple[int, ...], direction: Tensor, tokens: Tensor, share: float
) -> None:
    """Make the first unit of a block's MLP raise the channels in the patches that lie farthest in a direction."""
    q, k, v = V.qkv(block, tokens)
    attended = tokens + block.ls_1(V.attention_output(block, V.fused_attention(q, k, v)))
    content = (block.ln_2(attended) @ direction)[:, 1:]  # (B, N)
    threshold = content.flatten().sort().values[int((1 - share) * content.numel())]
    gain = _GAIN / content.std()
    block.mlp.c_fc.weight[0] = gain * direction
    block.mlp.c_fc.bias[0] = -gain * threshold
    block.mlp.c_proj.weight[:, 0] = 0
    block.mlp.c_proj.weight[list(dims), 0] = _RAISE


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class NoDistractorsError(RuntimeError):
    """The method would have nothing to do in some layer, so its time would mean nothing."""


def distractor_shares(method: Any, tower: Tower, images: Tensor) -> list[float]:
    """Return the share of distractors (0..1) at each layer boundary at which a method looks for them.

    Args:
        method: a dense method with distraction dimensions.
        tower: what it encodes with.
        images: (B, 3, H, W) normalised.

    Raises:
        NoDistractorsError: there is no distractor at some boundary, or the method looks for none.
    """
    seen = _Distractors()
    method(tower.vit, images, record=seen)
    shares = [seen.shares[layer] for layer in sorted(seen.shares)]
    if not shares or min(shares) == 0:
        empty = [layer for layer, share in sorted(seen.shares.items()) if share == 0]
        raise NoDistractorsError(
            f"{type(method).__name__} on {tuple(images.shape)} images finds no distractor at layer boundaries "
            f"{empty or 'at all'}: it would skip its work there and look fast; take other images or weights "
            "(rfclip.cost.weights.build_tower plants some)"
        )
    return shares


class _Distractors:
    """A recorder that keeps the share of distractors at each boundary."""

    def __init__(self) -> None:
        self.shares: dict[int, float] = {}

    def record(self, name: str, layer: int | None, value: Tensor) -> None:
        if name == "distractors" and layer is not None:
            self.shares[layer] = value.double().mean().item()
