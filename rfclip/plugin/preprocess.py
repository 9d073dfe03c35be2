"""mmseg's samples before and after the model: padded images of different sizes, flipped views, results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from rfclip.checks import check_choice
from rfclip.pipeline.labels import LabelMap
from rfclip.registry import Registry

PREPROCESSORS = Registry("data_preprocessor")
PREPROCESSORS.share(MODELS)
FLIPS = {"horizontal": (-1,), "vertical": (-2,), "diagonal": (-2, -1)}


@PREPROCESSORS.register
class PaddingPreProcessor(SegDataPreProcessor):
    """Normalises each image, then pads the smaller ones of a batch right and bottom.

    mmseg's own preprocessor wants equal sizes at test time. What was added stands in each sample's metainfo as
    `padding_size` (left, right, top, bottom), added to what the pipeline had padded; RFCLIP cuts it off again before
    it looks at the image.

    Args:
        mean, std: per channel, on 0..255; None: values are left as they are.
        bgr_to_rgb, rgb_to_bgr: reverse the channels first.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        bgr_to_rgb: bool = False,
        rgb_to_bgr: bool = False,
    ) -> None:
        super().__init__(mean=mean, std=std, bgr_to_rgb=bgr_to_rgb, rgb_to_bgr=rgb_to_bgr)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Turn a batch of the data loader into the model's input.

        Args:
            data: `inputs`, images (3, H, W) of any sizes or one tensor (B, 3, H, W); `data_samples`, or None.
            training: must be False.

        Returns:
            `inputs` (B, 3, max H, max W), normalised, and `data_samples`, made if there were none, with `padding_size`.

        Raises:
            RuntimeError: asked for training.
            ValueError: an image has neither 3 channels nor 1.
        """
        if training:
            raise RuntimeError("RFCLIP is training-free: there is nothing to preprocess for training")
        cast = self.cast_data(data)
        images = [self._normalised(image) for image in cast["inputs"]]
        height = max(image.shape[-2] for image in images)
        width = max(image.shape[-1] for image in images)
        padding = [(0, width - image.shape[-1], 0, height - image.shape[-2]) for image in images]
        samples = cast.get("data_samples") or [SegDataSample() for _ in images]
        for sample, pad in zip(samples, padding, strict=True):
            key, before = _padding(sample)  # what the pipeline has padded, if anything
            total = tuple(one + other for one, other in zip(before, pad, strict=True))
            sample.set_metainfo({key: total, "pad_shape": (height, width)})
        stacked = torch.stack([F.pad(image, pad) for image, pad in zip(images, padding, strict=True)])
        return {"inputs": stacked, "data_samples": samples}

    def _normalised(self, image: Tensor) -> Tensor:
        if image.shape[0] not in (1, 3):
            raise ValueError(
                f"images need 3 channels, got {image.shape[0]}: take LoadImageFromFile with color_type='color'"
            )
        if self.channel_conversion and image.shape[0] == 3:
            image = image.flip(0)
        image = image.float()
        return (image - self.mean) / self.std if self._enable_normalize else image


def without_padding(image: Tensor, sample: SegDataSample) -> Tensor:
    """Cut off the padding that a sample tells of: (3, H, W) -> (3, h, w)."""
    left, right, top, bottom = _padding(sample)[1]
    height, width = image.shape[-2:]
    return image[:, top : height - bottom, left : width - right]


def flipped_sides(sample: SegDataSample) -> tuple[int, ...]:
    """The dimensions of (..., H, W) in which an image was flipped."""
    meta = sample.metainfo
    if not meta.get("flip"):
        return ()
    direction = meta.get("flip_direction")
    check_choice("flip_direction of a sample with flip=True", direction, tuple(FLIPS))
    return FLIPS[direction]


def _padding(sample: SegDataSample) -> tuple[str, Sequence[int]]:
    """Where a sample's metainfo has its padding, and the padding (left, right, top, bottom), as mmseg reads it."""
    key = "img_padding_size" if "img_padding_size" in sample.metainfo else "padding_size"
    return key, sample.metainfo.get(key, (0, 0, 0, 0))


class LabelsOnly(SegDataSample):
    """A sample whose probabilities were not kept; asked for them, it says so."""

    def _kept(self) -> PixelData:
        if "_seg_logits" not in self:
            raise AttributeError(
                "this result of RFCLIP has no seg_logits, which SegTTAModel merges: build it with keep_seg_logits=True"
            )
        return self._seg_logits

    seg_logits = property(_kept, SegDataSample.seg_logits.fset, SegDataSample.seg_logits.fdel)


def store_result(sample: SegDataSample, result: LabelMap) -> None:
    """Put labels and, if kept, probabilities into a sample."""
    sample.set_data({"pred_sem_seg": PixelData(data=result.labels[None])})
    if result.probs is not None:
        sample.set_data({"seg_logits": PixelData(data=result.probs)})
        return
    if "_seg_logits" in sample:  # of another model
        del sample.seg_logits
    if type(sample) is SegDataSample:
        sample.__class__ = LabelsOnly
