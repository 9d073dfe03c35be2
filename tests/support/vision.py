"""Small random DINOs, as state dicts and beside a CLIP."""

import open_clip
import torch

from rfclip.methods.vision import Sight
from rfclip.vision.model import DINO

MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD


def dino_state(width=96, heads=3, depth=3, patch=8, side=4, hidden=None, seed=0):
    """A state dict in the layout of DINO's release, no bias 0 and no LayerNorm the identity; `heads` leave no trace."""
    generator = torch.Generator().manual_seed(seed)
    hidden = 4 * width if hidden is None else hidden

    def draw(*shape, std):
        return torch.randn(*shape, generator=generator) * std

    def norm(name):
        return {f"{name}.weight": 1 + draw(width, std=0.1), f"{name}.bias": draw(width, std=0.1)}

    def linear(name, out, into):
        return {f"{name}.weight": draw(out, into, std=1.2 * into**-0.5), f"{name}.bias": draw(out, std=0.1)}

    state = {
        "cls_token": draw(1, 1, width, std=0.3),
        "pos_embed": draw(1, 1 + side**2, width, std=0.3),
        "patch_embed.proj.weight": draw(width, 3, patch, patch, std=(3 * patch**2) ** -0.5),
        "patch_embed.proj.bias": draw(width, std=0.1),
        **norm("norm"),
    }
    for block in (f"blocks.{index}" for index in range(depth)):
        state |= norm(f"{block}.norm1") | norm(f"{block}.norm2")
        state |= linear(f"{block}.attn.qkv", 3 * width, width) | linear(f"{block}.attn.proj", width, width)
        state |= linear(f"{block}.mlp.fc1", hidden, width) | linear(f"{block}.mlp.fc2", width, hidden)
    return state


def sight(heads=3, **sizes):
    """A random DINO beside a CLIP of OpenAI's pictures."""
    return Sight(DINO(dino_state(heads=heads, **sizes), heads, "a test"), MEAN, STD, MEAN, STD)


def pictures(batch, height, width, seed=0):
    """Smooth random pictures (B, 3, H, W) of whole pixel values, normalised with OpenAI's numbers."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, height // 10 + 2, width // 10 + 2, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    noisy = smooth + 0.05 * torch.randn(smooth.shape, generator=generator)
    whole = (noisy.clamp(0, 1) * 255).round() / 255
    return (whole - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
