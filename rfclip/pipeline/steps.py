"""From normalised images to cosine maps to labels: the steps around a dense method, without mmseg.

`DenseEngine` (engine.py) holds what they need. docs/METHOD.md section 5 is their specification.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rfclip.checks import (
    Checked,
    built,
    check_above_zero,
    check_choice,
    check_range,
    check_switch,
    check_unless_none,
    check_whole,
    setting,
    shown,
)
from rfclip.clip.precision import own_precision
from rfclip.methods.base import DenseOutput
from rfclip.pipeline import labels, prior, windows
from rfclip.pipeline.fitting import PATCH_FITS, Fit
from rfclip.pipeline.labels import LabelMap
from rfclip.pipeline.prior import Prior
from rfclip.pipeline.windows import Windows
from rfclip.refiners import Refiner, build_refiner
from rfclip.words.vocabulary import Vocabulary, shipped_vocabularies

LOG = logging.getLogger(__name__)

Encoder = Callable[..., DenseOutput]


@dataclass(frozen=True)
class Settings(Checked):
    """Everything between the dense method and the labels; fixed when a model is built.

    Attributes:
        windows: how images are cut up.
        prior: the object-presence prior, or None.
        refiner: e.g. PAMR, or None.
        logit_scale: factor of the cosines before the softmax, > 0.
        prob_thd: where the winning probability (0..1) is below it, the label becomes `background_index`.
        background_index: class that takes the pixels below `prob_thd`; None where there is none.
        patch_fit: what happens to rows and columns that do not fill a patch: 'crop' leaves them unseen, 'pad'
            repeats the last row and column up to the next multiple and cuts the result back, 'pad_black' adds black
            (before normalisation) instead.
        keep_probs: whether the probabilities of all classes are kept beside the labels.
        alias_aggregation: how the logits of a class's names become its own: 'max', the best name's; 'mean';
            'logsumexp', which adds up their probabilities.
        area_thd: classes that are best on no more than this share (0..1) of the pixels that are not background get no
            pixel; class 0 must be the background. None drops none.
    """

    windows: Windows
    prior: Prior | None = None
    refiner: Refiner | None = None
    logit_scale: float = setting(40.0, check_above_zero)
    prob_thd: float = setting(0.0, check_range, 0, 1)
    background_index: int | None = setting(None, check_unless_none, check_whole)
    patch_fit: str = setting("crop", check_choice, PATCH_FITS)
    keep_probs: bool = setting(True, lambda _, value: check_switch("keep_probs (in configs keep_seg_logits)", value))
    alias_aggregation: str = setting("max", check_choice, tuple(labels.AGGREGATIONS))
    area_thd: float | None = setting(None, check_unless_none, check_range, 0, 1)

    @classmethod
    def of(
        cls,
        test_cfg: Mapping[str, Any] | None,
        prior: Mapping[str, Any] | None,
        refiner: Mapping[str, Any] | None,
        **others: Any,
    ) -> Settings:
        """Build from the blocks of a config; None: whole images, no prior, no refiner."""
        return cls(
            windows=built("test_cfg", {} if test_cfg is None else test_cfg, Windows),
            prior=None if prior is None else built("prior", prior, Prior),
            refiner=build_refiner(refiner),
            **others,
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prob_thd > 0 and self.background_index is None:
            raise ValueError(
                f"prob_thd={self.prob_thd} needs a class for the pixels below it: give background_index, or prob_thd=0"
            )
        labels.check_area_thd(self.area_thd, self.background_index)

    def check_vocabulary(self, vocabulary: Vocabulary, name: object) -> None:
        """Refuse settings that a vocabulary contradicts.

        Raises:
            ValueError: no such background class, or a threshold on a benchmark that has no background, or another.
        """
        index = self.background_index
        if index is not None and index >= len(vocabulary.names):
            raise ValueError(f"background_index {index} is none of the {len(vocabulary.names)} classes (0-based)")
        there = vocabulary.background
        key, value, off = ("prob_thd", self.prob_thd, 0) if self.prob_thd else ("area_thd", self.area_thd, None)
        if not value or index is None or index == there:
            return
        turns = f"{key}={value} turns pixels into {shown(vocabulary.classes[index])} that are something else"
        if isinstance(name, (str, Path)) and str(name) in shipped_vocabularies():
            has = "no background class" if there is None else f"its background in class {there}"
            cure = f"{key}={off}" if there is None else f"background_index={there}"
            raise ValueError(f"vocabulary {str(name)!r} has {has}, so {turns} (a known way to mIoU 0): set {cure}")
        if there is not None:
            LOG.warning(
                f"Class {there} is called 'background', but {turns}: set background_index={there}, or call that class "
                "something else."
            )


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


@own_precision
def cosine_maps(
    encode: Encoder,
    images: Tensor,
    queries: Queries,
    settings: Settings,
    patch: int,
    encode_image: Callable[[Tensor], Tensor] | None = None,
    *,
    black: Sequence[float] | None = None,
    at_once: bool = False,
    merged: Callable[[Tensor, Tensor], Tensor] | None = None,
    on_grid: bool = False,
) -> Tensor:
    """Cosines of every pixel with every query, after the prior and with the windows merged.

    Args:
        encode: the dense method, bound to a tower: (B, 3, H, W) -> DenseOutput.
        images: (B, 3, H, W) normalised.
        queries: the vocabulary.
        settings: windows, prior, patch_fit.
        patch: side of a patch in pixels.
        encode_image: (B, 3, H, W) -> (B, E), the image embedding of `encode` alone, if there is a shorter way to it.
        black: what black is after normalisation, per channel; for patch_fit 'pad_black'.
        at_once: all windows of an image go into one call, `encode(windows, corners=..., picture=image)`, whatever
            window_batch is; see :class:`rfclip.methods.needs.Given`.
        merged: makes of the maps (Q, H, W) of an image, windows merged, and of the image (3, H, W) the maps that
            stand in their place.
        on_grid: scores of an image that is encoded as a whole stay on their grid, so that they are resized only
            once, to the size of the labels; not if they are `merged`, or pad_multiple added something.

    Returns:
        (B, Q, H, W) fp32, in -1..1; scores of a method, in place of cosines, have a range of their own.
    """
    size = (images.shape[-2], images.shape[-1])
    boxes = settings.windows.boxes(*size)
    fit = Fit(patch, settings.patch_fit, settings.windows.pad_multiple, black)
    pieces = _Pieces(encode, queries, settings, fit, at_once)
    keeps_grid = on_grid and settings.windows.mode == "whole" and merged is None and not fit.adds_zeros(*size)
    found: Iterable[Tensor]
    if len(boxes) == 1 and not at_once:
        found = pieces.maps(encode(fit(images)), size, None, keeps_grid)
    else:
        whole = None
        if settings.prior is not None and settings.prior.scope == "image" and len(boxes) > 1:
            whole = _image_similarity(encode_image or (lambda image: encode(image).image), fit(images), queries)
        similarities = [None] * len(images) if whole is None else whole[:, None]
        found = (
            pieces.merged(image, boxes, similarity, keeps_grid)
            for image, similarity in zip(images, similarities, strict=True)
        )
    if merged is not None:
        found = (queries.tied(merged(maps, image)[None])[0] for maps, image in zip(found, images, strict=True))
    return found if isinstance(found, Tensor) else torch.stack(list(found))


@own_precision
def label_image(
    cosines: Tensor,
    image: Tensor,
    size: tuple[int, int],
    queries: Queries,
    settings: Settings,
    scores: bool = False,
) -> LabelMap:
    """Labels, and probabilities if they are kept, of one image at its original size.

    Args:
        cosines: (Q, h, w) of :func:`cosine_maps`.
        image: (3, h, w) the normalised input that the refiner looks at.
        size: (H0, W0) of the result.
        queries: the vocabulary.
        settings: refiner, scale, threshold.
        scores: they are a method's scores: unless a refiner takes them, the names of a class are joined before they are
            resized, as LPOSS does it.
    """
    refine = None
    if settings.refiner is not None:
        picture = F.interpolate(image[None], size, mode="bilinear", align_corners=False)
        refine = settings.refiner.prepare(picture, queries.text)
    return labels.label(
        cosines,
        size,
        queries.query_class,
        queries.num_classes,
        logit_scale=settings.logit_scale,
        prob_thd=settings.prob_thd,
        background_index=settings.background_index,
        refine=refine,
        keep_probs=settings.keep_probs,
        alias_aggregation=settings.alias_aggregation,
        area_thd=settings.area_thd,
        join_first=scores and refine is None,
    )


@dataclass(frozen=True, eq=False)
class _Pieces:
    """How pieces of images become maps, in one call of :func:`cosine_maps`."""

    encode: Encoder
    queries: Queries
    settings: Settings
    fit: Fit
    at_once: bool

    def merged(self, image: Tensor, boxes: Sequence[windows.Box], similarity: Tensor | None, on_grid: bool) -> Tensor:
        """Maps (Q, H, W) of one image (3, H, W) from its windows."""
        pieces = self._each(image, boxes, similarity, on_grid)
        return next(pieces)[1] if len(boxes) == 1 else windows.merge(pieces, image.shape[-2], image.shape[-1])

    def _each(
        self, image: Tensor, boxes: Sequence[windows.Box], similarity: Tensor | None, on_grid: bool
    ) -> Iterator[tuple[windows.Box, Tensor]]:
        """Yield box and map (Q, h, w) of each window, in batches."""
        batch = self.settings.windows.window_batch
        y0, x0, y1, x1 = boxes[0]
        size = (y1 - y0, x1 - x0)
        all_of_them = self._at_once(image, boxes, size) if self.at_once else None
        for start in range(0, len(boxes), batch):
            chunk = boxes[start : start + batch]
            shared = None if similarity is None else similarity.expand(len(chunk), -1)
            if all_of_them is None:
                dense = self.encode(self.fit(_cut(image, chunk)))
            else:
                dense = all_of_them[start : start + batch]
            yield from zip(chunk, self.maps(dense, size, shared, on_grid), strict=True)

    def _at_once(self, image: Tensor, boxes: Sequence[windows.Box], size: tuple[int, int]) -> DenseOutput:
        """The output for all windows of one image (3, H, W)."""
        above, left = self.fit.corner(*size)
        corners = tuple((y0 - above, x0 - left) for y0, x0, _, _ in boxes)
        return self.encode(self.fit(_cut(image, boxes)), corners=corners, picture=image)

    def maps(self, dense: DenseOutput, size: tuple[int, int], similarity: Tensor | None, on_grid: bool) -> Tensor:
        """Maps (B, Q, h, w) of pieces of a size that are encoded as they are.

        `similarity` (B, Q) is the image-level one of the prior; None means: of the piece itself.
        """
        if dense.scores is not None:
            scores = self.queries.tied(dense.scores.float())
            return scores if on_grid else self.fit.stretched(scores, size)
        patches = F.normalize(dense.patches.float(), dim=-1)  # (B, N, E)
        chosen, queries, text = self.settings.prior, self.queries, self.queries.text
        if chosen is not None and queries.clusters is not None:
            if similarity is None:
                similarity = queries.similarity(dense.image)
            text = prior.shift_text(text, patches, similarity, queries.clusters, chosen.mean_vector_weight)
        cosines = queries.cosines(text, patches).unflatten(-1, dense.grid)  # (B, Q, h, w), as resizing likes it
        if chosen is not None and similarity is not None:
            cosines = prior.blend(cosines, similarity, chosen.image_weight)
        return self.fit.cut(cosines, size)


def _cut(image: Tensor, boxes: Sequence[windows.Box]) -> Tensor:
    """The windows (n, 3, h, w) of an image (3, H, W)."""
    return torch.stack([image[:, y0:y1, x0:x1] for y0, x0, y1, x1 in boxes])


def _image_similarity(encode_image: Callable[[Tensor], Tensor], images: Tensor, queries: Queries) -> Tensor:
    """(B, Q) cosines of whole images with the queries, image by image to bound the memory."""
    return queries.similarity(torch.cat([encode_image(image[None]) for image in images]))
