"""How sure a difference is: the same images drawn again and again for both sides. Ranks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from rfclip.runs.areas import ImageAreas

FEWEST = 10  # images; of fewer, an interval would say nothing
CHUNK = 2**24  # numbers in memory at once while resampling
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sampled:
    """One method on one benchmark, as far as a comparison needs it: n images, R draws of them.

    Attributes:
        images: Names of the n images, sorted.
        labels: A hash of what is labelled in them: equal for all methods on the same images.
        miou: Of all images, in percent; NaN if nothing is labelled.
        each: (n,) of each image, over the classes that are labelled in it; NaN for an image without any.
        draws: (R,) of n images drawn with replacement; see :func:`sample`.
    """

    images: tuple[str, ...]
    labels: str
    miou: float
    each: Floats
    draws: Floats


@dataclass(frozen=True)
class Difference:
    """A method minus the reference, over the same images; over several benchmarks, the mean of their differences.

    Attributes:
        miou: Difference of the mIoU in percent points.
        low, high: Its interval of 95 percent, by resampling the images; None if they are too few.
        better, worse: Images with a higher, and with a lower, mean IoU than the reference's, over the classes that are
            labelled in the image: a few stray pixels of another class count as errors there, not as a class of IoU 0.
        images: Number of images; of each benchmark.
    """

    miou: float
    low: float | None
    high: float | None
    better: int
    worse: int
    images: int


def sample(areas: Mapping[str, ImageAreas], resamples: int = 2000, seed: int = 0) -> Sampled:
    """Draw images with replacement and take the mIoU of each draw, over the classes that are labelled in it.

    The draws hang on the names of the images and the seed alone. So they are the same for every method, and for
    benchmarks with the same pictures, as VOC21 and VOC20 are: what such two have in common is not counted as chance.

    Args:
        areas: Pixel counts by image.
        resamples: R, the number of draws.
        seed: Of the draws.
    """
    images = tuple(sorted(areas))
    counts = np.stack([areas[name].classes for name in images])  # (n, C, 3)
    named = " ".join([str(seed), *(PurePosixPath(name).stem for name in images)])
    generator = np.random.default_rng(int.from_bytes(hashlib.sha256(named.encode()).digest()[:8], "big"))
    return Sampled(
        images,
        hashlib.sha256(np.ascontiguousarray(counts[..., 2]).tobytes()).hexdigest(),
        float(_miou(counts.sum(0))),
        _miou(counts, labelled_only=True),
        _resampled(counts.astype(np.float64), resamples, generator),
    )


def comparable(one: Sampled, other: Sampled) -> bool:
    """Whether both were measured on the same images with the same labels."""
    return one.images == other.images and one.labels == other.labels


def difference(pairs: Sequence[tuple[Sampled, Sampled]]) -> Difference:
    """Compare two methods image by image, on one benchmark or on several.

    The interval is a percentile bootstrap: images are drawn with replacement within each benchmark, the same ones for
    both methods, and the middle 95 percent of the differences, of their mean over the benchmarks, are the interval. A
    draw lacks the rarest classes, so its mIoU is one of other classes than the whole set's: the draws are moved by what
    their mean is off. They scatter too little by the factor sqrt(1 - 1/n) on n images, for which they are widened.

    Args:
        pairs: Per benchmark the method and the reference.

    Raises:
        ValueError: They were not measured on the same images.
    """
    if not all(comparable(one, reference) for one, reference in pairs):
        raise ValueError("the two methods were not measured on the same images: their labelled areas differ")
    gains = [np.nan_to_num(one.each - reference.each) for one, reference in pairs]
    miou = float(np.mean([one.miou - reference.miou for one, reference in pairs]))
    low = high = None
    distinct = sum(map(len, {one.images for one, _ in pairs}))
    if distinct >= FEWEST and all(len(one.images) > 1 for one, _ in pairs):
        drawn = np.mean([_centred(one, reference) for one, reference in pairs], axis=0)
        low, high = (miou + float(value) for value in np.nanpercentile(drawn, (2.5, 97.5)))
    better, worse = (sum(int((sign * gain > 0).sum()) for gain in gains) for sign in (1, -1))
    return Difference(miou, low, high, better, worse, sum(map(len, gains)))


def ranks(values: Sequence[float | None]) -> list[float | None]:
    """The rank of each value, the greatest being 1; equal ones share the mean of their ranks, None has none.

    Example:
        >>> ranks([40.0, None, 50.0, 40.0])
        [2.5, None, 1.0, 2.5]
    """
    known = [value for value in values if value is not None]
    found = iter(rankdata([-value for value in known]).tolist())
    return [None if value is None else float(next(found)) for value in values]


def _centred(one: Sampled, reference: Sampled) -> Floats:
    """(R,) how far the difference in each draw is from that of all images."""
    gains = one.draws - reference.draws
    count = len(one.images)
    return (gains - np.nanmean(gains)) * np.sqrt(count / (count - 1))


def _miou(areas: NDArray[np.int64] | Floats, labelled_only: bool = False) -> Floats:
    """(..., C, 3) to (...): the mean IoU, in percent, over the classes that occur; NaN if none does.

    A class that is predicted and not labelled has IoU 0, or is left out if `labelled_only`.
    """
    agree, predicted, labelled = np.moveaxis(areas.astype(np.float64), -1, 0)
    union = predicted + labelled - agree
    there = labelled > 0 if labelled_only else union > 0
    iou = np.divide(agree, union, out=np.zeros_like(agree), where=there)
    number = there.sum(-1)
    return np.divide(100 * iou.sum(-1), number, out=np.full(number.shape, np.nan), where=number > 0)


def _resampled(areas: Floats, resamples: int, generator: np.random.Generator) -> Floats:
    """(n, C, 3) to (R,): the mIoU over n images drawn with replacement."""
    count = len(areas)
    flat = areas.reshape(count, -1)
    step = max(1, CHUNK // max(count, flat.shape[1]))
    parts = []
    for start in range(0, resamples, step):
        weights = generator.multinomial(count, np.full(count, 1 / count), min(step, resamples - start))  # (r, n)
        parts.append(_miou((weights @ flat).reshape(-1, *areas.shape[1:]), labelled_only=True))
    return np.concatenate(parts)
