"""From normalised images to cosine maps to labels: the steps around a dense method, without mmseg.

`DenseEngine` (engine.py) holds what they need. docs/METHOD.md section 5 is their specification.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

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
from rfclip.pipeline.labels import LabelMap
from rfclip.pipeline.prior import Prior
from rfclip.refiners import Refiner, build_refiner
from rfclip.words.vocabulary import Vocabulary, shipped_vocabularies

LOG = logging.getLogger(__name__)

Encoder = Callable[[Tensor], DenseOutput]
PATCH_FITS = ("crop", "pad")
MODES = ("whole", "slide")


@dataclass(frozen=True)
class Windows(Checked):
    """How an image is cut up before it is encoded.

    Attributes:
        mode: 'whole', the image at once, or 'slide', windows that overlap.
        crop_size: side of a window in pixels.
        stride: distance in pixels from window to window.
        window_batch: windows that are encoded together; bounds the memory.
    """

    block: ClassVar[str] = "test_cfg."

    mode: str = setting("whole", check_choice, MODES)
    crop_size: int = setting(224, check_whole, 1)
    stride: int = setting(112, check_whole, 1)
    window_batch: int = setting(8, check_whole, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride > self.crop_size:
            raise ValueError(
                f"test_cfg.stride ({self.stride}) is larger than crop_size ({self.crop_size}): some pixels would be "
                "in no window; take a stride of at most crop_size"
            )

    def boxes(self, height: int, width: int) -> list[windows.Box]:
        """The windows (y0, x0, y1, x1) of an image of height x width pixels."""
        if self.mode == "whole":
            return [(0, 0, height, width)]
        return windows.boxes(height, width, self.crop_size, self.stride)


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
            repeats the last row and column up to the next multiple and cuts the result back.
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
) -> Tensor:
    """Cosines of every pixel with every query, after the prior and with the windows merged.

    Args:
        encode: the dense method, bound to a tower: (B, 3, H, W) -> DenseOutput.
        images: (B, 3, H, W) normalised.
        queries: the vocabulary.
        settings: windows, prior, patch_fit.
        patch: side of a patch in pixels.
        encode_image: (B, 3, H, W) -> (B, E), the image embedding of `encode` alone, if there is a shorter way to it.

    Returns:
        (B, Q, H, W) fp32, in -1..1.
    """
    height, width = images.shape[-2:]
    boxes = settings.windows.boxes(height, width)
    if len(boxes) == 1:
        return _piece_maps(encode, images, queries, settings, patch, None)
    whole = None
    if settings.prior is not None and settings.prior.scope == "image":
        whole = _image_similarity(
            encode_image or (lambda image: encode(image).image), _fitted(images, settings, patch), queries
        )
    merged = []
    for index, image in enumerate(images):
        similarity = None if whole is None else whole[index : index + 1]
        pieces = _pieces(encode, image, boxes, queries, settings, patch, similarity)
        merged.append(windows.merge(pieces, height, width))
    return torch.stack(merged)


@own_precision
def label_image(
    cosines: Tensor, image: Tensor, size: tuple[int, int], queries: Queries, settings: Settings
) -> LabelMap:
    """Labels, and probabilities if they are kept, of one image at its original size.

    Args:
        cosines: (Q, h, w) of :func:`cosine_maps`.
        image: (3, h, w) the normalised input that the refiner looks at.
        size: (H0, W0) of the result.
        queries: the vocabulary.
        settings: refiner, scale, threshold.
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
    )


def _pieces(
    encode: Encoder,
    image: Tensor,
    boxes: Sequence[windows.Box],
    queries: Queries,
    settings: Settings,
    patch: int,
    similarity: Tensor | None,
) -> Iterator[tuple[windows.Box, Tensor]]:
    """Encode the windows of one image (3, H, W) in batches; yields (box, (Q, h, w))."""
    batch = settings.windows.window_batch
    for start in range(0, len(boxes), batch):
        chunk = boxes[start : start + batch]
        cut = torch.stack([image[:, y0:y1, x0:x1] for y0, x0, y1, x1 in chunk])
        shared = None if similarity is None else similarity.expand(len(chunk), -1)
        yield from zip(chunk, _piece_maps(encode, cut, queries, settings, patch, shared), strict=True)


def _piece_maps(
    encode: Encoder,
    pieces: Tensor,
    queries: Queries,
    settings: Settings,
    patch: int,
    similarity: Tensor | None,
) -> Tensor:
    """Cosine maps (B, Q, h, w) of pieces (B, 3, h, w) that are encoded as they are.

    `similarity` (B, Q) is the image-level one of the prior; None means: of the piece itself.
    """
    height, width = pieces.shape[-2:]
    fitted = _fitted(pieces, settings, patch)
    dense = encode(fitted)
    patches = F.normalize(dense.patches.float(), dim=-1)  # (B, N, E)
    text: Tensor = queries.text
    if settings.prior is not None and queries.clusters is not None:
        if similarity is None:
            similarity = queries.similarity(dense.image)
        text = prior.shift_text(text, patches, similarity, queries.clusters, settings.prior.mean_vector_weight)
    cosines = queries.cosines(text, patches).unflatten(-1, dense.grid)  # (B, Q, h, w), as resizing likes it
    if settings.prior is not None and similarity is not None:
        cosines = prior.blend(cosines, similarity, settings.prior.image_weight)
    maps = labels.resize(cosines, (fitted.shape[-2], fitted.shape[-1]))
    return maps[..., :height, :width]


def _image_similarity(encode_image: Callable[[Tensor], Tensor], images: Tensor, queries: Queries) -> Tensor:
    """(B, Q) cosines of whole images with the queries, image by image to bound the memory."""
    return queries.similarity(torch.cat([encode_image(image[None]) for image in images]))


def _fitted(images: Tensor, settings: Settings, patch: int) -> Tensor:
    """Pad to whole patches if `patch_fit` says so."""
    bottom, right = (-side % patch for side in images.shape[-2:])
    if settings.patch_fit == "crop" or not (bottom or right):
        return images
    return F.pad(images, (0, right, 0, bottom), mode="replicate")
