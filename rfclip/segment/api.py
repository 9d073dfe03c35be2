"""Image and class names in, labels out: RF-CLIP for people who do not use mmseg."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from rfclip.checks import check_whole, shown
from rfclip.clip.loader import LoadedCLIP, load_clip
from rfclip.clip.sources import brings_weights
from rfclip.clip.text import load_templates, load_vocabulary
from rfclip.io.images import ImageSource, cut_clause, path_of, read_with_notes, resize_short_side
from rfclip.methods.base import DenseOutput, Method
from rfclip.methods.build import build_method
from rfclip.pipeline.engine import DenseEngine
from rfclip.pipeline.queries import Queries
from rfclip.pipeline.settings import Settings
from rfclip.segment.result import Segmentation
from rfclip.words.vocabulary import Vocabulary

Names = str | Path | Sequence[str | Sequence[str]] | Vocabulary


class OpenVocabSegmenter:
    """Segments pictures with any words.

    Args:
        model: as `clip.model` of RFCLIP: an open_clip name, a JSON, 'auto', or 'tiny' (ships with the package).
        pretrained: as `clip.pretrained`: a tag or a file; 'tiny' brings its own weights and refuses others.
        device: a torch device; None: CUDA if there is one, else the CPU.
        method: dense method, by default dict(type='RefocusCLIP').
        templates: prompt templates, shipped name or list.
        short_side: pixels to which the short side of a picture is resized.
        test_cfg: windows, by default dict(mode='slide', crop_size=224, stride=112).
        prior: arguments of the object-presence prior, or None.
        refiner: dict(type='PAMR', ...), dict(type='TextLaplacian', ...), or None.
        logit_scale: factor of the cosines before the softmax.
        prob_thd: winning probabilities below it become `background_index`.
        background_index: index of the background in the names, if there is one.
        patch_fit: 'pad', 'crop' or 'pad_black'.
        keep_probs: False leaves the probabilities out, which take C x H x W numbers: 170 classes on a picture of
            12 million pixels are 8 GB.
        alias_aggregation: 'max', 'mean' or 'logsumexp': how the logits of a class's names become its own.
        area_thd: classes that have no more than this share (0..1) of what is not background get no pixel; None: none
            are dropped. Needs `background_index` 0.
        precision: 'fp32', 'bf16' or 'fp16'.
        quick_gelu: overrides the activation that the weights call for.
        origin: 'openai' says that a file holds OpenAI's weights.

    Calls do not change the object, so threads can share it.

    Raises:
        ValueError: a setting is out of its range, there is no such device, or the weights cannot be used.
        TypeError: a block of settings is no dict, or has an unknown entry.
    """

    def __init__(
        self,
        model: str = "ViT-B-16",
        pretrained: str | Path | None = "openai",
        device: str | torch.device | None = None,
        *,
        method: Mapping[str, Any] | None = None,
        templates: str | Sequence[str] = "imagenet80",
        short_side: int = 336,
        test_cfg: Mapping[str, Any] | None = None,
        prior: Mapping[str, Any] | None = None,
        refiner: Mapping[str, Any] | None = None,
        logit_scale: float = 40.0,
        prob_thd: float = 0.0,
        background_index: int | None = None,
        patch_fit: str = "pad",
        keep_probs: bool = True,
        alias_aggregation: str = "max",
        area_thd: float | None = None,
        precision: str = "fp32",
        quick_gelu: bool | None = None,
        origin: str | None = None,
    ) -> None:
        self.short_side = check_whole("short_side", short_side, least=1)
        self.device = _checked_device(device)
        settings = Settings.of(
            {"mode": "slide"} if test_cfg is None else test_cfg,
            prior,
            refiner,
            logit_scale=logit_scale,
            prob_thd=prob_thd,
            background_index=background_index,
            patch_fit=patch_fit,
            keep_probs=keep_probs,
            alias_aggregation=alias_aggregation,
            area_thd=area_thd,
        )
        prompts = load_templates(templates)
        loaded = load_clip(
            model,
            None if pretrained == "openai" and brings_weights(model) else pretrained,  # the default asks for nothing
            precision=precision,
            quick_gelu=quick_gelu,
            origin=origin,
        )
        loaded.model.to(self.device)
        self.engine = DenseEngine(loaded, build_method(method, loaded), settings, prompts, precision)
        self._last: tuple[Vocabulary, Queries] | None = None

    @property
    def loaded(self) -> LoadedCLIP:
        """The CLIP."""
        return self.engine.clip

    @property
    def method(self) -> Method:
        """The dense method."""
        return self.engine.method

    @property
    def settings(self) -> Settings:
        """Windows, prior, refiner, scale, threshold."""
        return self.engine.settings

    @overload
    def __call__(self, image: ImageSource, names: Names) -> Segmentation: ...

    @overload
    def __call__(self, image: list[ImageSource], names: Names) -> list[Segmentation]: ...

    def __call__(self, image: ImageSource | list[ImageSource], names: Names) -> Segmentation | list[Segmentation]:
        """Segment a picture, or each of a list.

        Args:
            image: a path, a PIL image, an (H, W, 3) uint8 RGB array, or a list of them.
            names: a list whose entries are a name or a list of aliases; or a shipped vocabulary; or its file; or a
                Vocabulary.

        Returns:
            A Segmentation of the picture's own size, or a list of them.

        Raises:
            FileNotFoundError, ValueError, TypeError: no such picture, no picture, or no names; the message says which.
        """
        vocabulary, queries = self._queries(names)
        if isinstance(image, list):
            return [self._segment(one, vocabulary, queries) for one in image]
        return self._segment(image, vocabulary, queries)

    def changed(self, method: Mapping[str, Any], prob_thd: float, background_index: int | None) -> OpenVocabSegmenter:
        """Return another segmenter of the same loaded model, with another method and background; both can be used."""
        other = copy.copy(self)
        settings = replace(self.settings, prob_thd=prob_thd, background_index=background_index)
        other.engine = replace(self.engine.with_method(method), settings=settings)
        other._last = None
        return other

    def prepare(self, names: Names) -> Vocabulary:
        """Embed names now, so that the next call with them does not; they are returned as a Vocabulary."""
        return self._queries(names)[0]

    def preprocess(self, image: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 RGB to the normalised input (1, 3, h, w), resized, on the device."""
        resized = torch.from_numpy(np.ascontiguousarray(resize_short_side(image, self.short_side)))
        return self.loaded.normalised(resized[None]).to(self.device)

    def encode(self, images: Tensor) -> DenseOutput:
        """Run the dense method on normalised images (B, 3, H, W)."""
        return self.engine.encode(images)

    @torch.no_grad()
    def _segment(self, source: ImageSource, vocabulary: Vocabulary, queries: Queries) -> Segmentation:
        image, clauses = read_with_notes(source)
        if image is source:
            image = image.copy()  # the caller may fill the array anew
        inputs = self.preprocess(image)
        maps = self.engine.cosine_maps(inputs, queries, on_grid=True)
        result = self.engine.label_image(maps[0], inputs[0], (image.shape[0], image.shape[1]), queries)
        seen = (inputs.shape[2], inputs.shape[3])
        notes = (*clauses, *filter(None, [cut_clause(seen, self.short_side)]))
        labels = result.labels.cpu().numpy()
        probs = None if result.probs is None else result.probs.cpu().numpy()
        about = (seen, path_of(source), notes, self.loaded.note)
        return Segmentation(labels, probs, vocabulary.classes, vocabulary.colours, image, *about)

    def _queries(self, names: Names) -> tuple[Vocabulary, Queries]:
        """The embedded vocabulary; the last one is kept, so that only new words cost a text pass."""
        vocabulary = names if isinstance(names, Vocabulary) else load_vocabulary(names)
        last = self._last
        if last is not None and last[0] == vocabulary:
            return last
        embedded = (vocabulary, self.engine.queries(vocabulary, names))
        self._last = embedded  # another thread may put its own there before this one returns
        return embedded


def _checked_device(device: object) -> torch.device:
    """The torch device that is asked for, by default CUDA if there is one; ValueError if it cannot be used here."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        if not isinstance(device, (str, torch.device)):
            raise TypeError("not a name")
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:  # torch's, for unknown and absent devices
        raise ValueError(
            f"device must be one that torch finds here, such as 'cpu' or 'cuda:1', got {shown(device)}; CUDA devices "
            f"here: {torch.cuda.device_count()}"
        ) from error
    return chosen
