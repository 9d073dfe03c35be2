"""A segmentor without a CLIP, to test what is around one: labels follow the brightness of the pixels."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from rfclip.words.vocabulary import load_vocabulary


@MODELS.register_module(force=True)
class FakeSegmentor(BaseSegmentor):
    """Takes what a config of ours may hold; waits ``delay`` seconds at each image."""

    def __init__(self, vocabulary: Any, delay: float = 0.0, **settings: Any) -> None:
        preprocessor = dict(type="SegDataPreProcessor", mean=[0.0] * 3, std=[255.0] * 3, bgr_to_rgb=True)
        super().__init__(data_preprocessor=preprocessor)
        self.weight = nn.Parameter(torch.ones(()), requires_grad=False)
        self.num_classes = len(load_vocabulary(vocabulary).names)
        self.delay = delay

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample]) -> list[SegDataSample]:
        for image, sample in zip(inputs, data_samples, strict=True):
            time.sleep(self.delay)
            grey = F.interpolate(image.mean(0)[None, None], sample.ori_shape, mode="nearest")[0, 0]
            labels = (grey * 7 * self.num_classes).long() % self.num_classes
            sample.pred_sem_seg = PixelData(data=labels[None])
        return data_samples

    def loss(self, *args: Any) -> Any:
        raise NotImplementedError

    def _forward(self, *args: Any) -> Any:
        raise NotImplementedError

    def encode_decode(self, *args: Any) -> Any:
        raise NotImplementedError

    def extract_feat(self, *args: Any) -> Any:
        raise NotImplementedError
