"""CASS: each head of CLIP takes on the low-rank graph of a head of the vision model (docs/METHODS.md, CASS)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from PIL import Image
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rfclip.checks import Checked, check_above_zero, check_range, check_switch, check_whole, setting
from rfclip.clip.precision import at_least_fp32
from rfclip.clip.towers import attention_output, blocks, num_heads, qkv, width
from rfclip.methods.base import METHODS, DenseOutput, Recorder, Show, class_embedding, dense_output
from rfclip.methods.baselines import neighbourhood
from rfclip.methods.vision import SightedMethod, normalised, on_grid, unnormalised, vfm_setting

_TIES = 6  # decimals of the differences of spectra that count


@METHODS.register
@dataclass(frozen=True)
class CASS(Checked, SightedMethod):
    """softmax(E + omega), E the mean of CLIP's graph of keys and a rescaled, low-rank one of the vision model.

    Heads are paired so that their spectra differ most, which weighs the vision model's graph too. Every step is exact
    and the same each time (the released code approximates the low rank by random vectors).

    Attributes:
        vfm: the vision model, dict(type='DINO', pretrained=NAME|FILE|'auto', heads=None), with CLIP's number of heads
            and their width.
        gaussian_std: of NACLIP's neighbourhood omega, in patches.
        rank: eigenvalues that are kept of the vision model's graph.
        spectrum_size: eigenvalues that are compared.
        balance: factor of the difference of spectra, as weight of the vision model's graph.
        stretch_spectrum: whether the eigenvalues that are kept are spread, to 0.5 times the least and 1.5 times the
            largest.

    Raises:
        ValueError: a setting is out of its range, or the vision model does not fit CLIP.
        TypeError: `vfm` is no dict, or has an unknown entry.
    """

    vfm: Mapping[str, Any] = vfm_setting()
    gaussian_std: float = setting(5.0, check_above_zero)
    rank: int = setting(10, check_whole, 1)
    spectrum_size: int = setting(20, check_whole, 1)
    balance: float = setting(10.0, check_range, 0, 1e6)
    stretch_spectrum: bool = setting(True, check_switch)

    byte_mean: ClassVar[tuple[float, ...]] = (0.485, 0.456, 0.406)
    byte_std: ClassVar[tuple[float, ...]] = (0.229, 0.224, 0.255)  # .255: a slip in the code, for .225

    def check_tower(self, vit: VisionTransformer) -> None:
        """Raise ValueError unless the vision model has CLIP's heads."""
        model, heads = self.sight.model, num_heads(vit)
        if (model.heads, model.width) != (heads, width(vit)):
            raise ValueError(
                f"CASS pairs the heads of its vision model with CLIP's, so they must be as many and as wide: this one "
                f"has {model.heads} of {model.width // model.heads} channels, the CLIP {heads} of "
                f"{width(vit) // heads}; for a ViT-B take dino_vitb8 or dino_vitb16 as vfm.pretrained"
            )

    @torch.no_grad()
    def __call__(self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None) -> DenseOutput:
        """Encode normalised images (B, 3, H, W)."""
        show = Show(record)
        seen, _, fine = self.sight.model.last_keys_values(self._picture(images))  # (B, H, N', d/H)
        tokens, grid = self.stream(vit, images, show)
        last = blocks(vit)[-1]
        q, k, v = qkv(last, tokens)  # (B, H, 1+N, d/H)
        image = class_embedding(vit, tokens, q, k, v)
        with torch.autocast(images.device.type, enabled=False):
            exact = at_least_fp32(k)
            keys = k[:, :, 1:].to(exact)
            seen = on_grid(seen.to(exact), fine, grid)
            seen = rescaled(seen, *bounds(keys, (1, 2, 3)), dims=(1, 2, 3))
            show("vision_similarity", None, mean_cosines, seen)
            graph = self.combined(keys, seen)  # (B, H, N, N)
            attention = (graph + neighbourhood(grid, self.gaussian_std, graph.device).to(exact)).softmax(-1)
            show("attn_dense", None, attention)
            heads = attention @ v[:, :, 1:].to(exact)
        return dense_output(vit, attention_output(last, heads.to(v.dtype)), image, grid, show)

    def combined(self, keys: Tensor, seen: Tensor) -> Tensor:
        """Return the graphs E (B, H, N, N) of CLIP's keys and the vision model's, both (B, H, N, d/H)."""
        scale = keys.shape[-1] ** -0.5
        vectors, values = eigen(seen)
        difference = spectral_distance(values, eigen(keys)[1], self.spectrum_size)  # (B, H of vision, H of CLIP)
        partner = most_different(difference)  # (B, H)
        weight = self.balance * difference.gather(2, partner[..., None])[..., None]  # (B, H, 1, 1)
        chosen = partner[..., None].expand_as(values)
        values, vectors = values.gather(1, chosen), vectors.gather(1, partner[..., None, None].expand_as(vectors))
        graph = scale * keys @ keys.transpose(-1, -2)
        low = low_rank(vectors.to(graph.dtype), values, self.rank, self.stretch_spectrum)
        low.diagonal(dim1=-2, dim2=-1).zero_()
        low = rescaled(low, *bounds(graph, (2, 3)), dims=(2, 3))
        weight = weight.to(graph.dtype)
        return (weight * low + graph) / (weight + 1)

    def _picture(self, images: Tensor) -> Tensor:
        """What the vision model sees of images (B, 3, H, W) normalised for CLIP: whole pixel values, and a square."""
        images = images.to(at_least_fp32(images))
        pixels = unnormalised(images, self.byte_mean, self.byte_std).mul(255).clamp(0, 255).byte()
        return normalised(square(pixels).to(images.dtype) / 255, self.sight.model.mean, self.sight.model.std)


def square(pixels: Tensor) -> Tensor:
    """Resize images (B, 3, H, W), uint8, to squares of their shorter side, by Pillow's bicubic filter."""
    height, width_ = pixels.shape[-2:]
    if height == width_:
        return pixels
    side = min(height, width_)
    arrays = pixels.permute(0, 2, 3, 1).cpu().numpy()
    resized = [np.array(Image.fromarray(each).resize((side, side), Image.Resampling.BICUBIC)) for each in arrays]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).to(pixels.device)


def eigen(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvectors and eigenvalues of scale k k^T, the largest first, that the keys' width leaves.

    The other eigenvalues are 0. Found from the keys themselves, by their singular values, in fp64.

    Args:
        keys: k (..., N, c); scale = c^-0.5.

    Returns:
        (..., N, M) and (..., M), M = min(N, c), fp64.
    """
    vectors, singular, _ = torch.linalg.svd(keys.double(), full_matrices=False)
    return vectors, singular.square() * keys.shape[-1] ** -0.5


def mean_cosines(keys: Tensor) -> Tensor:
    """Return the mean over heads (B, N, N) of the cosines of keys (B, H, N, c), to be looked at."""
    unit = F.normalize(keys, dim=-1)
    return (unit @ unit.transpose(-1, -2)).mean(1)


def spectral_distance(one: Tensor, other: Tensor, size: int) -> Tensor:
    """Return the sums (B, H, G) of |p - q|, p and q the `size` largest eigenvalues divided by their sum.

    Args:
        one: eigenvalues (B, H, M) of positive semidefinite matrices, the largest first; there may be fewer than `size`.
        other: (B, G, M).
        size: how many.
    """
    p, q = (F.normalize(values[..., :size], p=1, dim=-1) for values in (one, other))
    return (p[:, :, None] - q[:, None]).abs().sum(-1)


def most_different(difference: Tensor) -> Tensor:
    """Return, for each row of matrices (B, H, H), the column it is paired with so that the sum is largest: (B, H).

    Ties are many. Differences count to six decimals, so that which pairing is taken hangs on nothing but them.
    """
    rounded = difference.double().cpu().numpy().round(_TIES)
    columns = [linear_sum_assignment(-matrix)[1] for matrix in rounded]
    return torch.from_numpy(np.stack(columns)).to(difference.device)


def low_rank(vectors: Tensor, values: Tensor, rank: int, stretch: bool) -> Tensor:
    """Return the sum (..., N, N) of the parts of a symmetric matrix that belong to its `rank` largest eigenvalues.

    Args:
        vectors: (..., N, M), orthonormal columns.
        values: (..., M), the largest first; the matrix's others, if M < N, are 0.
        rank: how many; at most N.
        stretch: spread these eigenvalues to 0.5 times the least of them and 1.5 times the largest.
    """
    kept = values[..., :rank]
    if stretch:
        count = min(rank, vectors.shape[-2])
        least = kept[..., -1:] if kept.shape[-1] == count else torch.zeros_like(kept[..., :1])
        most = kept[..., :1]
        share = (kept - least) / (most - least).clamp_min(torch.finfo(kept.dtype).tiny)
        kept = share * (1.5 * most - 0.5 * least) + 0.5 * least
    basis = vectors[..., :rank]
    return basis * kept[..., None, :].to(basis.dtype) @ basis.transpose(-1, -2)


def bounds(values: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the least and the largest of values over some dimensions, which stay with length 1."""
    return values.amin(dims, keepdim=True), values.amax(dims, keepdim=True)


def rescaled(values: Tensor, least: Tensor, most: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Map values affinely so that their bounds over some dimensions become others; what is constant becomes `least`."""
    low, high = bounds(values, dims)
    return (values - low) / (high - low).clamp_min(torch.finfo(values.dtype).tiny) * (most - least) + least
