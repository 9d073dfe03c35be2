"""GLA-CLIP: ProxyCLIP whose patches attend to those of all windows of their image (docs/METHODS.md, GLA-CLIP)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor

from rfclip.checks import Checked, check_at_least_zero, check_range, check_whole, setting
from rfclip.clip.precision import at_least_fp32
from rfclip.clip.towers import attention_output, blocks, num_heads, qkv
from rfclip.methods.base import METHODS, DenseOutput, Recorder, Show, class_embedding, dense_output
from rfclip.methods.needs import WINDOWS, Given
from rfclip.methods.vision import SightedMethod, on_grid, vfm_setting

_CPU_PIECE = 1 << 23  # numbers of a block of rows: about six such blocks are held at a time
_GPU_PIECE = 1 << 27


@METHODS.register
@dataclass(frozen=True)
class GLACLIP(Checked, SightedMethod):
    """Each patch is compared, by way of a proxy, with the patches of all windows of its image.

    The dense output stands on the vision model's grid.

    Attributes:
        vfm: the vision model, dict(type='DINO', pretrained=NAME|FILE|'auto', heads=None).
        threshold: cosine above which patches make up a proxy, -1..1.
        iterations: how often the proxy is made anew.
        beta_alpha: how much the number of windows raises the mean cosine that a cosine must reach to count.
        gamma_alpha: how much few members of a proxy sharpen the softmax.

    Raises:
        ValueError: a setting is out of its range, or the vision model cannot be used.
        TypeError: `vfm` is no dict, or has an unknown entry.
    """

    needs: ClassVar[frozenset[str]] = frozenset({WINDOWS})

    vfm: Mapping[str, Any] = vfm_setting()
    threshold: float = setting(0.55, check_range, -1, 1)
    iterations: int = setting(2, check_whole, 1)
    beta_alpha: float = setting(0.3, check_at_least_zero)
    gamma_alpha: float = setting(30.0, check_at_least_zero)

    def __call__(
        self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None, given: Given | None = None
    ) -> DenseOutput:
        """Encode normalised images (B, 3, H, W), each a window of its own."""
        return self._encode(vit, images, record, len(images), apart=True)

    def joined(
        self, vit: VisionTransformer, windows: Tensor, record: Recorder | None = None, given: Given | None = None
    ) -> DenseOutput:
        """Encode all windows (n, 3, h, w) of one image; the towers take `given.window_batch` of them at a time."""
        batch = len(windows) if record is not None else Given.window_batch if given is None else given.window_batch
        return self._encode(vit, windows, record, batch, apart=False)

    @torch.no_grad()
    def _encode(
        self, vit: VisionTransformer, windows: Tensor, record: Recorder | None, batch: int, apart: bool
    ) -> DenseOutput:
        show, last = Show(record), blocks(vit)[-1]
        found = [self._features(vit, part, show) for part in windows.split(batch)]
        fine = found[0][3]
        keys, values, image = (torch.cat(parts) for parts in zip(*(each[:3] for each in found), strict=True))
        del found
        groups = range(len(windows)) if apart else [slice(None)]
        # per image (n*S, d), n windows and S patches in each
        ready = [(keys[group].flatten(0, -2), values[group].flatten(0, -2)) for group in groups]
        count = 1 if apart else len(windows)
        with torch.autocast(windows.device.type, enabled=False):
            if show.listened:
                shown = torch.stack([torch.cat([a for _, a in self._rows(k, count)]) for k, _ in ready])
                show("vision_similarity", None, keys @ keys.transpose(-1, -2))
                show("attn_dense", None, shown.view(len(windows), 1, math.prod(fine), -1))  # of all heads
            mixed = [torch.cat([a @ v for _, a in self._rows(k, count)]) for k, v in ready]
        heads = torch.cat(mixed).view(len(windows), math.prod(fine), num_heads(vit), -1).transpose(1, 2)
        return dense_output(vit, attention_output(last, heads.to(windows.dtype)), image, fine, show)

    def _features(
        self, vit: VisionTransformer, windows: Tensor, show: Show
    ) -> tuple[Tensor, Tensor, Tensor, tuple[int, int]]:
        """Of windows (b, 3, h, w) the vision model's normalised patches, CLIP's values for them, and their images.

        Returns:
            (b, S, d'), (b, S, d), heads joined, (b, E), and the vision model's grid.
        """
        unit, fine = self.sight.unit_patches(windows)
        tokens, grid = self.stream(vit, windows, show)
        q, k, v = qkv(blocks(vit)[-1], tokens)  # (b, H, 1+N, d/H)
        values = on_grid(v[:, :, 1:], grid, fine)  # (b, H, S, d/H)
        values = values.to(at_least_fp32(values)).transpose(1, 2).flatten(2)
        return unit.to(values.dtype), values, class_embedding(vit, tokens, q, k, v), fine

    def _rows(self, keys: Tensor, windows: int) -> Iterator[tuple[slice, Tensor]]:
        """Yield blocks of rows of an image's attention (n*S, n*S), and which rows they are."""
        piece = _CPU_PIECE if keys.device.type == "cpu" else _GPU_PIECE
        step = max(1, piece // len(keys))
        for start in range(0, len(keys), step):
            rows = slice(start, start + step)
            cosines, members = proxy_cosines(keys, rows, self.threshold, self.iterations)
            yield rows, joint_attention(cosines, members, windows, self.beta_alpha, self.gamma_alpha)


def proxy_cosines(keys: Tensor, rows: slice, threshold: float, iterations: int) -> tuple[Tensor, Tensor]:
    """Return the cosines (R, T) of the proxies of some patches with all patches, and their members (R,).

    A patch's proxy begins as the patch itself. In each iteration it becomes the normalised mean of the patches whose
    cosine with it exceeds the threshold, its members.

    Args:
        keys: (T, d) normalised patches of all windows.
        rows: the R patches.
        threshold: -1..1.
        iterations: at least 1.
    """
    cosines = keys[rows] @ keys.T
    members = cosines.new_empty(0)
    for _ in range(iterations):
        near = cosines > threshold
        lonely = (~near.any(-1)).nonzero()[:, 0]  # cannot be, but for a threshold that rounding reaches
        near[lonely, lonely + rows.start] = True
        members = near.sum(-1)
        cosines = F.normalize(near.to(keys.dtype) @ keys, dim=-1) @ keys.T
    return cosines, members


def joint_attention(cosines: Tensor, members: Tensor, windows: int, beta_alpha: float, gamma_alpha: float) -> Tensor:
    """Return the softmax (R, T) of gamma (cosines - beta mean), those below 0 left out; a row keeps its largest.

    Args:
        cosines: (R, T) of proxies and all patches; not modified.
        members: (R,) patches that make up each proxy, at least 1.
        windows: B; beta = 1 + beta_alpha ln(1 + B).
        beta_alpha: see there.
        gamma_alpha: gamma = 1 + gamma_alpha / members.

    The mean is over the row, and 0 where it is negative.
    """
    beta = 1 + beta_alpha * math.log(1 + windows)
    gamma = 1 + gamma_alpha / members.to(cosines.dtype)
    z = gamma[:, None] * (cosines - beta * cosines.mean(-1, keepdim=True).clamp_min(0))
    least = z.amax(-1, keepdim=True).clamp_max(0)
    return z.masked_fill_(z < least, -torch.inf).softmax(-1)
