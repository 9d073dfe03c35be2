"""What methods with a vision model share: the setting `vfm`, the model that it stands for, and its pictures."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor

from rfclip.clip.loader import LoadedCLIP
from rfclip.clip.precision import at_least_fp32
from rfclip.methods.stream import OnStream
from rfclip.vision.files import resolved_name
from rfclip.vision.model import VisionModel, check_vfm, load_vision

LOG = logging.getLogger(__name__)

M = TypeVar("M", bound="SightedMethod")


def vfm_setting() -> Any:
    """The field `vfm` of a method: the vision model's settings as a dict, which must be given."""
    return field(metadata={"check": check_vfm}, hash=False)


@dataclass(frozen=True, eq=False)
class Sight:
    """A vision model beside a CLIP.

    Attributes:
        model: the vision model.
        mean, std: with which the CLIP's pictures are normalised, per RGB channel on 0..1.
        rounded_mean, rounded_std: the same as preprocessors have them, OpenAI's rounded on 0..255; None: not rounded.
    """

    model: VisionModel
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rounded_mean: tuple[float, ...] | None = None
    rounded_std: tuple[float, ...] | None = None

    def rgb(self, images: Tensor) -> Tensor:
        """Return the pictures (B, 3, H, W) on 0..1 that a preprocessor has normalised for CLIP."""
        return unnormalised(images, self.rounded_mean or self.mean, self.rounded_std or self.std)

    def picture(self, images: Tensor) -> Tensor:
        """Normalise images (B, 3, H, W) that are normalised for CLIP for the vision model; no rounding, no clipping."""
        original = unnormalised(images.to(at_least_fp32(images)), self.mean, self.std)
        return normalised(original, self.model.mean, self.model.std)

    def unit_patches(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return the normalised rows (B, N, d) of the model's final patch tokens, fp32 at least, and their grid.

        Args:
            images: (B, 3, H, W), normalised for CLIP.
        """
        tokens, grid = self.model.final_patches(self.picture(images))
        return F.normalize(tokens.to(at_least_fp32(tokens)), dim=-1), grid


class SightedMethod(OnStream):
    """A method with a vision model: its setting `vfm` says which, `with_sight` gives it the model.

    Attributes:
        published_vision: name of the weights that the method was published with, for `vfm.pretrained='auto'`.
        example: of the setting that it cannot be without, for errors.
    """

    example: ClassVar[str] = "vfm=dict(type='DINO', pretrained='auto')"
    published_vision: ClassVar[str] = "dino_vitb8"
    vfm: Mapping[str, Any]
    _sight: Sight | None = None  # no field: neither a setting, nor shown as one

    @property
    def sight(self) -> Sight:
        """The vision model beside the CLIP; ValueError before `with_sight`."""
        if self._sight is None:
            raise ValueError(
                f"{type(self).__name__} has no vision model yet: build it through RFCLIP, OpenVocabSegmenter or "
                "rfclip.methods.build.build_method, which load the one that vfm names"
            )
        return self._sight

    def with_sight(self: M, sight: Sight) -> M:
        """Return the same method with a vision model."""
        method = copy.copy(self)
        object.__setattr__(method, "_sight", sight)
        return method


def resolved_vfm(method: SightedMethod, loaded: LoadedCLIP) -> dict[str, Any]:
    """Return a method's `vfm` with 'auto' replaced: by the tiny model beside the tiny CLIP, else by the published."""
    given = method.vfm["pretrained"]
    name = resolved_name(given, method.published_vision, beside_tiny=loaded.origin == "tiny")
    if name != given:
        LOG.info(f"{type(method).__name__}: vfm.pretrained={given!r} is {name!r} beside a CLIP {loaded.architecture}.")
    return {**method.vfm, "pretrained": name}


def load_sight(settings: Mapping[str, Any], loaded: LoadedCLIP) -> Sight:
    """Load the vision model of settings without 'auto', to stand beside a CLIP."""
    shares = (tuple(value / 255 for value in values) for values in (loaded.mean, loaded.std))
    return Sight(load_vision(settings), _share(loaded.mean), _share(loaded.std), *shares)


def _share(values: tuple[float, ...]) -> tuple[float, ...]:
    """Return mean or std on 0..1; OpenAI's, which are rounded on 0..255, as they were published."""
    for published in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD):
        if values == tuple(round(255 * value, 3) for value in published):
            return tuple(published)
    return tuple(value / 255 for value in values)


def channels(values: tuple[float, ...], like: Tensor) -> Tensor:
    """Return a value per channel as (3, 1, 1), to go with images."""
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, 1, 1)


def unnormalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Undo a normalisation: images (..., 3, H, W) on 0..1."""
    return images * channels(std, images) + channels(mean, images)


def normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Normalise images (..., 3, H, W) on 0..1."""
    return (images - channels(mean, images)) / channels(std, images)


def on_grid(heads: Tensor, grid: tuple[int, int], other: tuple[int, int]) -> Tensor:
    """Resize values of patches (B, H, h*w, c) bilinearly, channel by channel, to another grid: (B, H, h'*w', c).

    Args:
        heads: of the patches alone, without the class token.
        grid: (h, w).
        other: (h', w').
    """
    if grid == other:
        return heads
    batch, count, _, width = heads.shape
    planes = heads.permute(0, 1, 3, 2).reshape(batch, count * width, *grid)
    planes = F.interpolate(planes.to(at_least_fp32(planes)), size=other, mode="bilinear", align_corners=False)
    return planes.reshape(batch, count, width, -1).transpose(-1, -2)
