"""From normalised images to cosine maps to labels: the steps around a dense method, without mmseg.

`DenseEngine` (engine.py) holds what they need. docs/METHOD.md section 5 is their specification.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rfclip.clip.precision import own_precision
from rfclip.methods.base import DenseOutput
from rfclip.pipeline import labels, prior, windows
from rfclip.pipeline.fitting import Fit
from rfclip.pipeline.labels import LabelMap
from rfclip.pipeline.queries import Queries
from rfclip.pipeline.settings import Settings

Encoder = Callable[..., DenseOutput]


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
