"""The dense engine: a CLIP, a dense method and the settings of the steps, held together from images to labels.

`RFCLIP` (mmsegmentation's face), `OpenVocabSegmenter` (Python's), explanations, audits and the cost measurement hold
one. The maths is in the method and in steps.py.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from rfclip.methods.base import DenseOutput, Given, Method, Recorder, encode_image, needs_text
from rfclip.methods.build import build_method
from rfclip.pipeline import steps
from rfclip.pipeline.labels import LabelMap
from rfclip.pipeline.steps import Queries, Settings
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
    def encode(self, images: Tensor, record: Recorder | None = None, queries: Queries | None = None) -> DenseOutput:
        """Run the dense method on normalised images (B, 3, H, W); ValueError if it needs the queries and has none."""
        more = {}
        if needs_text(self.method):
            if queries is None:
                raise ValueError(
                    f"{type(self.method).__name__} looks at the words while it encodes: give the queries, or take "
                    "RFCLIP or OpenVocabSegmenter, which do"
                )
            more = {"given": Given(queries.text, self.settings.logit_scale)}
        with self._autocast():
            return self.method(self.visual, as_fp32(images), record, **more)

    @own_precision
    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """Return the image embeddings (B, E) that `encode` would, without the rest."""
        with self._autocast():
            return encode_image(self.method, self.visual, as_fp32(images))

    def queries(self, vocabulary: Vocabulary, name: object = None) -> Queries:
        """Embed a vocabulary; ValueError if the settings contradict it. `name` is what it was asked for by."""
        self.settings.check_vocabulary(vocabulary, name)
        text = text_embeddings(self.clip, vocabulary.queries, self.templates).to(self.device)
        return Queries.of(text, vocabulary, self.settings)

    @torch.no_grad()
    def cosine_maps(self, images: Tensor, queries: Queries) -> Tensor:
        """Cosines (B, Q, H, W) of normalised images (B, 3, H, W), after the prior and with the windows merged."""
        encode = partial(self.encode, queries=queries)
        return steps.cosine_maps(encode, images, queries, self.settings, self.patch, self.encode_image)

    @torch.no_grad()
    def label_image(self, cosines: Tensor, image: Tensor, size: tuple[int, int], queries: Queries) -> LabelMap:
        """Labels (H0, W0) of one image (3, H, W) from its cosines (Q, H, W), and probabilities if they are kept."""
        return steps.label_image(cosines, image, size, queries, self.settings)

    def _autocast(self) -> torch.autocast:
        dtype = _AUTOCAST[self.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)
