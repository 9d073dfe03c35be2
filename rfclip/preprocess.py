"""The data preprocessor of mmseg, made to take images of different sizes at test time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor


@MODELS.register_module()
class PaddingPreProcessor(SegDataPreProcessor):
    """Normalises each image, then pads the smaller ones of a batch right and bottom.

    mmseg's own preprocessor wants equal sizes at test time. What was added stands in each sample's metainfo as
    `padding_size` (left, right, top, bottom), and RFCLIP cuts it off again before it looks at the image.

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
            `inputs` (B, 3, max H, max W), normalised, and `data_samples` with `padding_size`.

        Raises:
            RuntimeError: asked for training.
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
            sample.set_metainfo({"padding_size": pad, "pad_shape": (height, width)})
        stacked = torch.stack([F.pad(image, pad) for image, pad in zip(images, padding, strict=True)])
        return {"inputs": stacked, "data_samples": cast.get("data_samples")}

    def _normalised(self, image: Tensor) -> Tensor:
        if self.channel_conversion and image.shape[0] == 3:
            image = image.flip(0)
        image = image.float()
        return (image - self.mean) / self.std if self._enable_normalize else image
