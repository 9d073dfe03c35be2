"""LPOSS: the words' cosines spread over a graph of all patches of an image, or of its pixels (docs/METHODS.md, LPOSS).

Stojnic et al., "LPOSS: Label Propagation Over Patches and Pixels for Open-vocabulary Semantic Segmentation", CVPR 2025.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor

from rfclip.checks import (
    Checked,
    check_above_zero,
    check_at_least_zero,
    check_range,
    check_switch,
    check_whole,
    setting,
)
from rfclip.clip.towers import add_mlp, blocks, qkv
from rfclip.methods.base import METHODS, DenseOutput, Recorder, Show, attention_branch, class_embedding, dense_output
from rfclip.methods.label_propagation import lab, patch_graph, pixel_graph, propagate
from rfclip.methods.needs import PICTURE, TEXT, WINDOWS, Given
from rfclip.methods.vision import SightedMethod, normalised, on_grid, vfm_setting

_PIECE = 1 << 23  # numbers of the maps that are propagated over pixels together; five times as many are held


@METHODS.register
@dataclass(frozen=True)
class LPOSS(Checked, SightedMethod):
    """Label propagation over the patches of all windows, and, if `plus`, over the pixels of the image.

    The dense embeddings are CLIP's, of a last block whose tokens attend to themselves alone; the result are scores.

    Attributes:
        vfm: the vision model, dict(type='DINO', pretrained=NAME|FILE|'auto', heads=None).
        neighbors: patches that each is joined to.
        gamma: exponent of their cosines.
        sigma: decay of the weights with the distance, per pixel.
        alpha: share of the neighbours in a label, 0..1, less than 1.
        iterations: steps of conjugate gradients; they do not converge, so their number is part of the method.
        tolerance: of the residual, below which no more steps are taken.
        plus: LPOSS+, which propagates over pixels too.
        tau: difference of colours, in CIELAB, at which the weight between pixels has fallen to 1/e.
        reach: rows and columns within which pixels are joined.

    Raises:
        ValueError: a setting is out of its range, or the vision model cannot be used.
        TypeError: `vfm` is no dict, or has an unknown entry.
    """

    published_vision: ClassVar[str] = "dino_vitb16"
    gives_scores: ClassVar[bool] = True

    vfm: Mapping[str, Any] = vfm_setting()
    neighbors: int = setting(400, check_whole, 1)
    gamma: float = setting(3.0, check_above_zero)
    sigma: float = setting(0.01, check_at_least_zero)
    alpha: float = setting(0.95, check_range, 0, 1)
    iterations: int = setting(10, check_whole, 1)
    tolerance: float = setting(1e-6, check_at_least_zero)
    plus: bool = setting(False, check_switch)
    tau: float = setting(0.01, check_above_zero)
    reach: int = setting(6, check_whole, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha == 1:
            raise ValueError("alpha must be less than 1, got 1: nothing would hold the labels where the cosines are")

    @property
    def needs(self) -> frozenset[str]:
        """The words and all windows; for LPOSS+ the picture too."""
        return frozenset({TEXT, WINDOWS, PICTURE} if self.plus else {TEXT, WINDOWS})

    def __call__(
        self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None, given: Given | None = None
    ) -> DenseOutput:
        """Encode normalised images (B, 3, H, W), each a window of its own; without `given` there are no scores."""
        dense, features, fine = self._features(vit, images, Show(record))
        if given is None:
            return dense
        scores = [
            self._scores(dense[i : i + 1], features[i : i + 1], fine, given, [(0, 0)]) for i in range(len(images))
        ]
        return replace(dense, scores=torch.cat(scores))

    def joined(
        self, vit: VisionTransformer, windows: Tensor, record: Recorder | None = None, given: Given | None = None
    ) -> DenseOutput:
        """Encode all windows (n, 3, h, w) of one image; the towers take `given.window_batch` of them at a time."""
        if given is None:
            raise ValueError("LPOSS needs the words and where the windows lie: RFCLIP and OpenVocabSegmenter give them")
        batch, show = len(windows) if record is not None else given.window_batch, Show(record)
        found = [self._features(vit, part, show) for part in windows.split(batch)]
        dense, features = DenseOutput.together([each[0] for each in found]), torch.cat([each[1] for each in found])
        return replace(dense, scores=self._scores(dense, features, found[0][2], given, given.corners))

    @torch.no_grad()
    def merged(self, maps: Tensor, given: Given) -> Tensor:
        """Propagate maps (Q, H, W) over the pixels of the picture, if `plus`."""
        if not self.plus:
            return maps
        if given.picture is None or given.picture.shape[-2:] != maps.shape[-2:]:
            raise ValueError("LPOSS+ needs the picture that its maps are of, at their size")
        colours = lab(given.picture.permute(1, 2, 0).cpu().double().numpy())
        graph = pixel_graph(colours, self.tau, self.reach)
        step = max(1, _PIECE // colours[..., 0].size)
        parts = (part.cpu().double().flatten(1).T for part in maps.split(step))
        return torch.cat([self._propagated(graph, part) for part in parts]).view_as(maps).to(maps.device)

    @torch.no_grad()
    def image_embedding(self, vit: VisionTransformer, images: Tensor) -> Tensor:
        """Return DenseOutput.image (B, E) of images (B, 3, H, W), without the rest."""
        tokens, _, _ = self._tokens(vit, images, Show())
        return class_embedding(vit, tokens, *qkv(blocks(vit)[-1], tokens))

    def _tokens(self, vit: VisionTransformer, windows: Tensor, show: Show) -> tuple[Tensor, tuple[int, int], Tensor]:
        """What CLIP's last block reads of windows (b, 3, h, w), (b, 1+N, d), its grid, and the windows on 0..1."""
        rgb = self.sight.rgb(windows)
        own = normalised(rgb, self.sight.mean, self.sight.std)
        return *self.stream(vit, own, show, by_size=True), rgb

    @torch.no_grad()
    def _features(
        self, vit: VisionTransformer, windows: Tensor, show: Show
    ) -> tuple[DenseOutput, Tensor, tuple[int, int]]:
        """CLIP's output for windows (b, 3, h, w), the vision model's values (b, S, d'), normalised, and their grid.

        Both models are given the RGB window, normalised by the published mean and std of each.
        """
        tokens, grid, rgb = self._tokens(vit, windows, show)
        vision, last = self.sight.model, blocks(vit)[-1]
        q, k, v = qkv(last, tokens)  # (b, H, 1+N, d/H)
        patches = add_mlp(last, tokens + attention_branch(last, v))[:, 1:]
        dense = dense_output(vit, patches, class_embedding(vit, tokens, q, k, v), grid, show)
        _, values, fine = vision.last_keys_values(normalised(rgb.float(), vision.mean, vision.std))
        features = F.normalize(values.float().transpose(1, 2).flatten(2), dim=-1)
        show("vision_similarity", None, lambda: features @ features.transpose(1, 2))
        return dense, features, fine

    @torch.no_grad()
    def _scores(
        self,
        dense: DenseOutput,
        features: Tensor,
        fine: tuple[int, int],
        given: Given,
        corners: Sequence[tuple[int, int]],
    ) -> Tensor:
        """Scores (n, Q, h', w') of the windows of one image on the vision model's grid."""
        with torch.autocast(features.device.type, enabled=False):
            unit = F.normalize(dense.patches.float(), dim=-1)
            if dense.grid != fine:
                unit = F.normalize(on_grid(unit[:, None], dense.grid, fine)[:, 0], dim=-1)
            places = node_positions(corners, fine, self.sight.model.patch)
            graph = patch_graph(features.flatten(0, 1), places, self.neighbors, self.gamma, self.sigma)
            cosines = unit.flatten(0, 1).cpu().double() @ given.text.cpu().double().T  # (n*S, Q)
            scores = self._propagated(graph, cosines).to(features.device)
            return scores.unflatten(1, (len(features), *fine)).transpose(0, 1)

    def _propagated(self, graph: Any, labels: Tensor) -> Tensor:
        """Labels (n, Q) fp64, propagated over a graph of n nodes: (Q, n) fp32, on the CPU."""
        found = propagate(graph, np.ascontiguousarray(labels.numpy()), self.alpha, self.iterations, self.tolerance)
        return torch.from_numpy(found.T.astype(np.float32, order="C"))


def node_positions(corners: Sequence[tuple[int, int]], grid: tuple[int, int], patch: int) -> Tensor:
    """Return the middles (n*h*w, 2) of the patches of windows, (y, x) in pixels of their image.

    Example:
        >>> node_positions([(0, 0), (0, 16)], (1, 2), patch=16).tolist()
        [[8.0, 8.0], [8.0, 24.0], [8.0, 24.0], [8.0, 40.0]]
    """
    rows, columns = torch.meshgrid(*(torch.arange(n) * patch + patch / 2 for n in grid), indexing="ij")
    inside = torch.stack([rows.flatten(), columns.flatten()], -1)  # (h*w, 2)
    return (torch.tensor(corners, dtype=inside.dtype)[:, None] + inside).flatten(0, 1)
