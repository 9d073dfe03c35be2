"""The way of an image into the model in mmseg: loaded by our rule, and images of different sizes in a batch."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

import mmcv
import mmengine.fileio
import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import LoadImageFromFile as MmcvLoader
from mmengine.logging import print_log
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.registry import MODELS, TRANSFORMS
from mmseg.structures import SegDataSample
from torch import Tensor

from rfclip.images import decode, is_plain_jpeg, sentence

BACKEND = "rfclip"  # of LoadImageFromFile in our configs


@TRANSFORMS.register_module()
class LoadImageFromFile(MmcvLoader):
    """mmcv's transform of this name, with one more decoder: `imdecode_backend="rfclip"`.

    It gives what :func:`rfclip.images.read_image` gives, and says once per kind what was guessed. JPEGs of 8-bit grey
    or RGB are decoded by OpenCV as without it, so that the numbers of the benchmarks are those of mmseg. With any
    other decoder this is mmcv's transform. The name is mmcv's because mmseg's inferencers look for it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ours = self.imdecode_backend == BACKEND
        if self.ours and self.color_type != "color":
            raise ValueError(f"imdecode_backend={BACKEND!r} reads colours: color_type {self.color_type!r} needs 'cv2'")
        self._said: set[str] = set()

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Fill in `img` (H, W, 3) BGR, uint8 or float32, `img_shape` and `ori_shape` of the file `img_path`.

        Raises:
            FileNotFoundError, ValueError: no such file, or no readable picture; unless `ignore_empty`: None.
        """
        if not self.ours:
            return super().transform(results)
        try:
            image = self._read(str(results["img_path"]))
        except (OSError, ValueError):
            if self.ignore_empty:
                return None
            raise
        results["img"] = image.astype(np.float32) if self.to_float32 else image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results

    def _read(self, path: str) -> np.ndarray:
        content = mmengine.fileio.get(path, backend_args=self.backend_args)
        if is_plain_jpeg(content):
            image = mmcv.imfrombytes(content, flag="color", backend="cv2")
            if image is None:
                raise ValueError(f"{path!r} cannot be read as an image: OpenCV decodes none of it")
            return image
        pixels, clauses = decode(content, path)
        kind = re.sub(r"[\d.]+", "", " ".join(clauses))
        if clauses and kind not in self._said:
            self._said.add(kind)
            print_log(f"{sentence(path, clauses)} (said once of its kind)", "current", logging.WARNING)
        return np.ascontiguousarray(pixels[..., ::-1])


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
