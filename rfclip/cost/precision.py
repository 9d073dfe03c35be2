"""Half precision: how much faster, and how many pixels keep their label."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS
from torch import Tensor

from rfclip.benchmarks.configs import benchmark_config
from rfclip.benchmarks.options import Options, build_config
from rfclip.cost.bench import PROFILES, Bench
from rfclip.cost.timing import Spread, ratios, take_turns
from rfclip.pipeline.settings import Settings
from rfclip.pipeline.windows import Windows

AGREEMENT = 0.99  # of the pixels, at least
BENCHMARKS = ("voc21", "context59", "cityscapes")
IMAGES = 4  # of each
SIZE = (336, 448)  # of the image that is timed


@dataclass(frozen=True)
class SpeedUp:
    """Time of dense encoding in half precision.

    Attributes:
        precision: 'bf16' or 'fp16'.
        profile: 'release' or 'paper'.
        seconds: in half precision.
        speed_up: fp32 / half, round by round.
    """

    precision: str
    profile: str
    seconds: Spread
    speed_up: Spread


@dataclass(frozen=True)
class Agreement:
    """Labels in half precision beside those in fp32.

    Attributes:
        precision: 'bf16' or 'fp16'.
        profile: 'release' or 'paper'.
        benchmark: whose sample images, settings and names were used.
        images: how many.
        agreement: share of the pixels with the same label, 0..1.
        limit: that it should reach.
    """

    precision: str
    profile: str
    benchmark: str
    images: int
    agreement: float
    limit: float = AGREEMENT


def precisions(device: torch.device) -> tuple[str, ...]:
    """Return the half precisions to measure on a device."""
    return ("bf16", "fp16") if device.type == "cuda" else ("bf16",)


def measure_speed(bench: Bench, repeats: int) -> list[SpeedUp]:
    """Time dense encoding of one image in each precision, with both profiles."""
    found = []
    names = ("fp32", *precisions(bench.device))
    images = bench.images(1, SIZE)
    for profile in PROFILES:
        samples = take_turns({name: _encoding(bench, profile, images, name) for name in names}, repeats)
        found += [
            SpeedUp(name, profile, Spread.of(samples[name]), ratios(samples["fp32"], samples[name]))
            for name in names[1:]
        ]
    return found


def measure_agreement(
    benchmark: str, profile: str, precision: str, data_root: Path, clip: Mapping[str, Any], images: int = IMAGES
) -> Agreement:
    """Label the first images of a benchmark in fp32 and in half precision, and compare.

    Args:
        benchmark: shipped config.
        profile: 'release' or 'paper'.
        precision: 'bf16' or 'fp16'.
        data_root: stands for the config's 'data', such as 'data/sample'.
        clip: arguments of `rfclip.clip.loader.load_clip`, without the precision.
        images: at most so many.

    Raises:
        FileNotFoundError: the data are not there.
    """
    labels = [_labels(benchmark, profile, name, data_root, clip, images) for name in ("fp32", precision)]
    same = sum(int((full == half).sum()) for full, half in zip(*labels, strict=True))
    pixels = sum(full.numel() for full in labels[0])
    return Agreement(precision, profile, benchmark, len(labels[0]), same / pixels)


def _labels(
    benchmark: str, profile: str, precision: str, data_root: Path, clip: Mapping[str, Any], images: int
) -> list[Tensor]:
    """Labels (1, H, W) of the first images."""
    cfg = build_config(Options(benchmark_config(benchmark), profile=profile, data_root=str(data_root)))
    init_default_scope("mmseg")
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    model = MODELS.build({**cfg.model, "clip": {**clip, "precision": precision}}).eval()
    if torch.cuda.is_available():
        model = model.cuda()
    found = []
    for index in range(min(images, len(dataset))):
        (sample,) = model.test_step(pseudo_collate([dataset[index]]))
        found.append(sample.pred_sem_seg.data.cpu())
    return found


def _encoding(bench: Bench, profile: str, images: Tensor, precision: str) -> Callable[[], object]:
    engine = bench.engine(profile, Settings(Windows()), precision)
    return lambda: engine.encode(images)
