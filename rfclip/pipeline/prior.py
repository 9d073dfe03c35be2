"""The object-presence prior: what the image as a whole says about which names occur (from CASS).

Source: docs/METHOD.md section 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from torch import Tensor

from rfclip.checks import Checked, check_choice, check_range, setting

SCOPES = ("image", "window")
LINKAGES = ("complete", "ward")


@dataclass(frozen=True)
class Prior(Checked):
    """Settings of the prior.

    Attributes:
        image_weight: g, the share of the image-level similarity in the logits, 0..1.
        mean_vector_weight: m, how far a cluster's most present name moves towards the image, 0..1.
        cluster_threshold: Cosine distance at which names stop being one cluster, 0..2.
        scope: 'image': with sliding windows, the image-level similarity is that of the whole image; 'window': of
            the window itself.
        linkage: what the distance of two clusters is: 'complete', that of their two names farthest apart; 'ward',
            Ward's, with cosine distances in the place of Euclidean ones (CASS).

    Raises:
        ValueError: A number out of its range, or an unknown scope or linkage.
    """

    block: ClassVar[str] = "prior."

    image_weight: float = setting(..., check_range, 0, 1)
    mean_vector_weight: float = setting(..., check_range, 0, 1)
    cluster_threshold: float = setting(..., check_range, 0, 2)
    scope: str = setting("image", check_choice, SCOPES)
    linkage: str = setting("complete", check_choice, LINKAGES)


def cluster_names(text: Tensor, threshold: float, linkage: str = "complete") -> Tensor:
    """Group names hierarchically on cosine distances, cut at ``threshold``.

    Args:
        text: Embeddings (Q, E) of the names.
        threshold: Clusters join at distances up to and with this one.
        linkage: 'complete' or 'ward', see :class:`Prior`.

    Returns:
        Clusters (Q,) int64, numbered from 0 without gaps, on the device of ``text``.
    """
    if len(text) < 2:
        return torch.zeros(len(text), dtype=torch.int64, device=text.device)
    unit = F.normalize(text.detach().double().cpu(), dim=-1)
    distances = (1 - unit @ unit.T).clamp(min=0)
    first = first_equal(text).cpu()
    distances[first[:, None] == first] = 0  # of equal names exactly
    tree = hierarchy.linkage(squareform(distances.numpy(), checks=False), method=linkage)
    clusters = hierarchy.fcluster(tree, threshold, criterion="distance")  # numbered from 1
    return torch.as_tensor(clusters - 1, dtype=torch.int64, device=text.device)


def first_equal(text: Tensor) -> Tensor:
    """Of each row of (Q, E) the number of the first row that equals it to the last bit: (Q,) int64."""
    _, group = torch.unique(text, dim=0, return_inverse=True)
    numbers = torch.arange(len(text), device=text.device)
    return torch.full_like(numbers, len(text)).scatter_reduce(0, group, numbers, "amin")[group]


def twins_of(text: Tensor) -> Tensor | None:
    """Of each row of (Q, E) the first and the second row that equal it: (2, Q) int64.

    Returns:
        A row without a twin is both itself; None if no two rows are equal.
    """
    first = first_equal(text)
    numbers = torch.arange(len(text), device=text.device)
    later = numbers != first
    if not later.any():
        return None
    second = numbers.clone().scatter_reduce(0, first[later], numbers[later], "amin", include_self=False)
    return torch.stack([first, second[first]])


def shift_text(text: Tensor, patches: Tensor, similarity: Tensor, clusters: Tensor, weight: float) -> Tensor:
    """Move the most present name of each cluster towards the patches that look most like it.

    Args:
        text: Normalised embeddings (Q, E) of the names.
        patches: Normalised dense embeddings (B, N, E), N >= 1.
        similarity: Of images and names (B, Q); in each cluster the name with the highest is moved, of equal ones
            the first.
        clusters: Of the names (Q,), see :func:`cluster_names`.
        weight: m, 0..1.

    Returns:
        Embeddings (B, Q, E): for the chosen names t normalise((1 - m) t + m v), v the normalised mean of the two
        patches nearest to t, or the one patch if there is only one. The others as they were.
    """
    everyone = text.expand(len(patches), -1, -1)
    if weight == 0:
        return everyone
    chosen = _most_present(similarity, clusters)  # (B, K)
    names = text[chosen]  # (B, K, E)
    cosines = names @ patches.transpose(1, 2)  # (B, K, N)
    nearest = cosines.argmax(-1, keepdim=True)
    second = cosines.scatter(-1, nearest, -torch.inf).argmax(-1, keepdim=True) if patches.shape[1] > 1 else nearest
    toward = F.normalize(_take(patches, nearest) + _take(patches, second), dim=-1)
    moved = F.normalize((1 - weight) * names + weight * toward, dim=-1)
    return everyone.scatter(1, chosen[..., None].expand_as(moved), moved)


def blend(logits: Tensor, similarity: Tensor, weight: float) -> Tensor:
    """Mix image-level similarities into the logits: (1 - g) logits + g s.

    Args:
        logits: Cosines (B, Q, h, w); not modified.
        similarity: s of images and names (B, Q).
        weight: g, 0..1.

    Returns:
        Logits (B, Q, h, w).
    """
    return (1 - weight) * logits + weight * similarity[..., None, None]


def _most_present(similarity: Tensor, clusters: Tensor) -> Tensor:
    """Per image and cluster the name with the highest similarity (B, Q); returns names (B, K)."""
    members = clusters == torch.arange(int(clusters.max()) + 1, device=clusters.device)[:, None]  # (K, Q)
    return similarity[:, None].masked_fill(~members, -torch.inf).argmax(-1)


def _take(patches: Tensor, index: Tensor) -> Tensor:
    """Patches (B, N, E) at index (B, K, 1): (B, K, E)."""
    return patches.gather(1, index.expand(-1, -1, patches.shape[-1]))
