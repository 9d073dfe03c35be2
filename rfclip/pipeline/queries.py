"""A vocabulary in the joint space, and its cosines with patches and images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rfclip.clip.precision import own_precision
from rfclip.pipeline import prior
from rfclip.pipeline.settings import Settings
from rfclip.words.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Queries:
    """A vocabulary in the joint space.

    Attributes:
        text: (Q, E) normalised fp32 embeddings.
        query_class: (Q,) class of each query.
        num_classes: C.
        clusters: (Q,) cluster of each query for the prior; None without a prior.
        twins: (2, Q), for each query the first and the second query with the same embedding; a query that has no
            such twin is both itself. None where no two are the same.
    """

    text: Tensor
    query_class: tuple[int, ...]
    num_classes: int
    clusters: Tensor | None
    twins: Tensor | None

    @classmethod
    @own_precision
    def of(cls, text: Tensor, vocabulary: Vocabulary, settings: Settings) -> Queries:
        """Put a vocabulary's embeddings (Q, E) together with what the steps need to know of it."""
        how = settings.prior
        clusters = prior.cluster_names(text, how.cluster_threshold, how.linkage) if how else None
        return cls(text, vocabulary.query_class, len(vocabulary.names), clusters, prior.twins_of(text))

    def tied(self, maps: Tensor) -> Tensor:
        """Maps (B, Q, h, w) in which equal queries have equal values: those of the first of them."""
        return maps if self.twins is None else maps[:, self.twins[0]]

    def similarity(self, image: Tensor) -> Tensor:
        """Cosines (B, Q) of image embeddings (B, E) with the queries; equal queries have equal cosines."""
        cosines = F.normalize(image.float(), dim=-1) @ self.text.T
        return cosines if self.twins is None else cosines[:, self.twins[0]]

    def cosines(self, text: Tensor, patches: Tensor) -> Tensor:
        """Cosines (B, Q, N) of patches (B, N, E) with the queries; equal queries have equal cosines.

        How a matrix product rounds a row hangs on the row's place, and the first of equal names is to win: so the
        rows of twins are copied.

        Args:
            text: (Q, E), or (B, Q, E) after the prior, which moves the first of twins only.
            patches: normalised.
        """
        cosines = text @ patches.transpose(-1, -2)
        if self.twins is None:
            return cosines
        first, second = self.twins
        moved = (text != self.text).any(-1).expand(cosines.shape[:2])[:, first]  # (B, Q)
        later = torch.arange(len(first), device=first.device) != first
        source = torch.where(moved & later, second, first)
        return cosines.gather(1, source[..., None].expand_as(cosines))
