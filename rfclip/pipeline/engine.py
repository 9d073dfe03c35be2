"""The dense engine: a CLIP, a dense method and the settings of the steps, held together from images to labels.

`RFCLIP` (mmsegmentation's face), `OpenVocabSegmenter` (Python's), explanations, audits and the cost measurement hold
one. The maths is in the method and in steps.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from rfclip.clip import towers
from rfclip.clip.loader import LoadedCLIP
from rfclip.clip.precision import as_fp32, own_precision
from rfclip.clip.text import text_embeddings
from rfclip.methods.base import DenseOutput, Method, Recorder, encode_image
from rfclip.methods.build import build_method
from rfclip.methods.needs import PICTURE, TEXT, WINDOWS, Given, gives_scores, needs_of
from rfclip.pipeline import steps
from rfclip.pipeline.labels import LabelMap
from rfclip.pipeline.queries import Queries
from rfclip.pipeline.settings import Settings
from rfclip.words.vocabulary import Vocabulary

_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, eq=False)
class DenseEngine:
    """What turns images and queries into labels.

    Attributes:
        clip: the CLIP, on its device.
        method: the dense method.
        settings: windows, prior, refiner, scale, threshold.
        templates: of the prompts, each with '{}'.
        precision: 'fp32', 'bf16' or 'fp16': what the image tower computes in; everything else is fp32.
    """

    clip: LoadedCLIP
    method: Method
    settings: Settings
    templates: tuple[str, ...] = ("{}",)
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if gives_scores(self.method) and self.settings.prior is not None:
            raise ValueError(
                f"{type(self.method).__name__} gives scores of its own in place of cosines, which the prior cannot be "
                "added to: set prior=None"
            )

    @property
    def visual(self) -> VisionTransformer:
        """The image tower."""
        tower: VisionTransformer = self.clip.model.visual
        return tower

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return towers.patch_size(self.visual)

    @property
    def device(self) -> torch.device:
        """Where the image tower is."""
        return next(self.visual.parameters()).device

    def with_method(self, settings: Mapping[str, Any] | None) -> DenseEngine:
        """The same engine with another method, given as a settings block."""
        return replace(self, method=build_method(settings, self.clip))

    @own_precision
    @torch.no_grad()
    def encode(
        self,
        images: Tensor,
        record: Recorder | None = None,
        queries: Queries | None = None,
        *,
        corners: Sequence[tuple[int, int]] | None = None,
        picture: Tensor | None = None,
    ) -> DenseOutput:
        """Run the dense method.

        Args:
            images: (B, 3, H, W) normalised; or, of one image, all windows, for a method that needs them at once.
            record: is shown activations.
            queries: for a method that needs the words.
            corners: (y, x) of each window; None: they are images, each by itself.
            picture: (3, H, W) normalised, the image that the windows are of.

        Raises:
            ValueError: the method needs the queries, and they are not given.
        """
        needs = needs_of(self.method)
        method: Any = self.method  # one that needs windows has `joined`, see rfclip.methods.needs
        call = method if corners is None else method.joined
        more = {"given": self._given(needs, queries, corners, picture)} if needs else {}
        with self._autocast():
            output: DenseOutput = call(self.visual, as_fp32(images), record, **more)
        return output

    @own_precision
    @torch.no_grad()
    def encode_image(self, images: Tensor, queries: Queries | None = None) -> Tensor:
        """Return the image embeddings (B, E) that `encode` would, without the rest if the method can leave it out."""
        if not hasattr(self.method, "image_embedding"):
            return self.encode(images, queries=queries).image
        with self._autocast():
            return encode_image(self.method, self.visual, as_fp32(images))

    def queries(self, vocabulary: Vocabulary, name: object = None) -> Queries:
        """Embed a vocabulary; ValueError if the settings contradict it. `name` is what it was asked for by."""
        self.settings.check_vocabulary(vocabulary, name)
        text = text_embeddings(self.clip, vocabulary.queries, self.templates).to(self.device)
        return Queries.of(text, vocabulary, self.settings)

    @torch.no_grad()
    def cosine_maps(self, images: Tensor, queries: Queries, on_grid: bool = False) -> Tensor:
        """Cosines (B, Q, H, W) of normalised images (B, 3, H, W), after the prior and with the windows merged.

        Of a method that gives scores in place of cosines they are its scores, and if they are to be labelled, the
        scores of a whole image stay `on_grid`, (B, Q, h, w): `label_image` then resizes them only once.
        """
        needs = needs_of(self.method)
        return steps.cosine_maps(
            partial(self.encode, queries=queries),
            images,
            queries,
            self.settings,
            self.patch,
            partial(self.encode_image, queries=queries),
            black=self.black,
            at_once=WINDOWS in needs,
            merged=partial(self._merged, queries) if PICTURE in needs else None,
            on_grid=on_grid,
        )

    @torch.no_grad()
    def label_image(self, cosines: Tensor, image: Tensor, size: tuple[int, int], queries: Queries) -> LabelMap:
        """Labels (H0, W0) of one image (3, H, W) from its cosines (Q, H, W), and probabilities if they are kept."""
        return steps.label_image(cosines, image, size, queries, self.settings, scores=gives_scores(self.method))

    @property
    def black(self) -> tuple[float, ...]:
        """What black is after normalisation, per channel."""
        return tuple(-mean / std for mean, std in zip(self.clip.mean, self.clip.std, strict=True))

    def _given(
        self,
        needs: frozenset[str],
        queries: Queries | None,
        corners: Sequence[tuple[int, int]] | None = None,
        picture: Tensor | None = None,
    ) -> Given:
        """What a method with needs is handed."""
        if TEXT in needs and queries is None:
            raise ValueError(
                f"{type(self.method).__name__} looks at the words while it encodes: give the queries, or take "
                "RFCLIP or OpenVocabSegmenter, which do"
            )
        text = torch.empty(0, 0) if queries is None or TEXT not in needs else queries.text
        given = Given(text, self.settings.logit_scale, self.settings.windows.window_batch)
        if corners is not None:
            given = replace(given, corners=tuple(corners))
        if picture is not None and PICTURE in needs:
            given = replace(given, picture=self.clip.displayable(picture))
        return given

    @own_precision
    def _merged(self, queries: Queries, maps: Tensor, image: Tensor) -> Tensor:
        """What a method that needs the picture makes of an image's maps."""
        given = self._given(needs_of(self.method), queries, picture=as_fp32(image))
        method: Any = self.method  # has `merged`, since it needs the picture
        merged: Tensor = method.merged(maps, given)
        return merged

    def _autocast(self) -> torch.autocast:
        dtype = _AUTOCAST[self.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)
