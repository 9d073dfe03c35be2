"""Methods beside each other: one protocol, the same images, and how sure a difference is."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfclip.io import tables
from rfclip.runs.areas import ImageAreas
from rfclip.runs.manifest import Results
from rfclip.runs.reference import HEADING, published, published_miou, unlike

FEWEST = 10  # images; of fewer, an interval would say nothing
CHUNK = 2**24  # numbers in memory at once while resampling
COLUMNS = (
    "benchmark",
    "method",
    "images",
    "mIoU",
    "difference",
    "better / worse",
    "images/s",
    "memory MiB",
    "published*",
)


@dataclass(frozen=True, eq=False)
class Measured:
    """One method on one benchmark.

    Attributes:
        method: Name of the profile.
        results: The run's results.json: metrics in percent, and its manifest.
        areas: Pixel counts by image.
        memory: Peak memory of the process in MiB, or None.
    """

    method: str
    results: Results
    areas: Mapping[str, ImageAreas]
    memory: float | None = None


@dataclass(frozen=True)
class Difference:
    """A method minus the reference, over the same images.

    Attributes:
        miou: Difference of the mIoU in percent points.
        low, high: Its interval of 95 percent, by resampling the images; None if they are too few.
        better, worse: Images with a higher, and with a lower, mean IoU than the reference's, over the classes that are
            labelled in the image: a few stray pixels of another class count as errors there, not as a class of IoU 0.
        images: Number of images.
    """

    miou: float
    low: float | None
    high: float | None
    better: int
    worse: int
    images: int


def difference(
    areas: NDArray[np.int64], reference: NDArray[np.int64], resamples: int = 2000, seed: int = 0
) -> Difference:
    """Compare two methods image by image.

    The interval is a percentile bootstrap: images are drawn with replacement, the same ones for both methods, the
    mIoU of each is taken over the classes that are labelled in what was drawn, and the middle 95 percent of the
    differences are the interval. A draw lacks the rarest classes, so its mIoU is one of other classes than the whole
    set's: the draws are moved by what their mean is off.

    Args:
        areas: (n, C, 3) of the method: per image and class the pixels that agree, are predicted, are labelled.
        reference: (n, C, 3) of the reference, the same images in the same order.
        resamples: Number of draws.
        seed: Of the draws.

    Raises:
        ValueError: Different shapes, or other labels: these are not the same images.
    """
    if areas.shape != reference.shape or not np.array_equal(areas[..., 2], reference[..., 2]):
        raise ValueError("the two methods were not measured on the same images: their labelled areas differ")
    count = len(areas)
    both = np.stack([areas, reference], 1).astype(np.float64)  # (n, 2, C, 3)
    whole = _miou(both.sum(0))
    miou = float(whole[0] - whole[1])
    each = _miou(both, labelled_only=True)  # (n, 2); NaN for an image without any class
    gain = np.nan_to_num(each[:, 0] - each[:, 1])
    low = high = None
    if count >= FEWEST:
        draws = _resampled(both, resamples, np.random.default_rng(seed))
        gains = draws[:, 0] - draws[:, 1]
        gains += miou - np.nanmean(gains)
        low, high = (float(value) for value in np.nanpercentile(gains, (2.5, 97.5)))
    return Difference(miou, low, high, int((gain > 0).sum()), int((gain < 0).sum()), count)


def compare(benchmark: str, measured: Sequence[Measured], resamples: int = 2000) -> list[dict[str, Any]]:
    """A row per method; the first method is the reference of the others.

    Args:
        benchmark: Its name.
        measured: The methods.
        resamples: See :func:`difference`.

    Raises:
        ValueError: They were not measured under one protocol, or not on the same images, or have no scores.
    """
    reference = measured[0]
    if reference.results["metrics"]["mIoU"] is None:
        raise ValueError(f"{benchmark} has no scores, because nothing is labelled: there is nothing to compare")
    rows = []
    for one in measured:
        manifest = one.results["manifest"]
        differing = unlike(reference.results["manifest"], manifest)
        if differing or one.areas.keys() != reference.areas.keys():
            raise ValueError(
                f"{benchmark}: {one.method} and {reference.method} differ in more than the method "
                f"({', '.join(differing) or 'images'}): run both again, without --resume"
            )
        row = {
            "benchmark": benchmark,
            "method": one.method,
            "mIoU": one.results["metrics"]["mIoU"],
            "images": len(one.areas),
            "images_per_second": manifest["time"]["images_per_second"] if manifest["time"]["images"] else None,
            "memory_mib": one.memory,
            "published": published_miou(benchmark, manifest["profile"], manifest["pamr"], manifest["protocol"]),
            "difference": None,
        }
        if one is not reference:
            row["difference"] = asdict(difference(_stacked(one), _stacked(reference), resamples))
        rows.append(row)
    return rows


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table for a terminal, with footnotes."""
    return "\n".join([tables.aligned(COLUMNS, map(_cells, rows)), "", *footnotes(rows)])


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table in Markdown, with footnotes and the published table."""
    parts = [tables.markdown(COLUMNS, map(_cells, rows)), *(f"{note}\n" for note in footnotes(rows))]
    asked = dict.fromkeys(row["benchmark"] for row in rows)
    known = [name for name in asked if any(name in row["mIoU"] for row in published()["main"])]
    if known:
        beside = ([row["method"], *(str(row["mIoU"].get(name, "-")) for name in known)] for row in published()["main"])
        parts += [f"{HEADING}:\n", tables.markdown(["method", *known], beside)]
    return "\n".join(parts)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as comma-separated values; each number of a difference has a column of its own."""
    lines = [
        {
            **{key: value for key, value in row.items() if key != "difference"},
            **{f"difference_{key}": value for key, value in (row["difference"] or {}).items()},
        }
        for row in rows
    ]
    file = io.StringIO()
    writer = csv.DictWriter(file, dict.fromkeys(key for line in lines for key in line), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def footnotes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What must stand below the table."""
    references = dict.fromkeys(str(row["method"]) for row in rows if row["difference"] is None)
    return [
        f"difference: mIoU minus that of {', '.join(references)}, in points, and its interval of 95 % over the images "
        f"(paired bootstrap; none below {FEWEST} images). better / worse: images with a higher / lower mean IoU over "
        "the classes labelled in them.",
        f"* {HEADING}. Published numbers have protocols of their own (resolution, names, data): they are no reference "
        "for a difference.",
    ]


def _cells(row: Mapping[str, Any]) -> list[str]:
    found = row["difference"]
    interval = "" if not found or found["low"] is None else f" [{found['low']:+.2f}, {found['high']:+.2f}]"
    return [
        str(row["benchmark"]),
        str(row["method"]),
        str(row["images"]),
        tables.number(row["mIoU"], 2, "-"),
        f"{found['miou']:+.2f}{interval}" if found else "-",
        f"{found['better']} / {found['worse']}" if found else "-",
        tables.number(row["images_per_second"], 2, "-"),
        tables.number(row["memory_mib"], 0, "-"),
        tables.number(row["published"], 1, "-"),
    ]


def _stacked(measured: Measured) -> NDArray[np.int64]:
    return np.stack([measured.areas[name].classes for name in sorted(measured.areas)])


def _miou(areas: NDArray[np.float64], labelled_only: bool = False) -> NDArray[np.float64]:
    """(..., C, 3) to (...): the mean IoU, in percent, over the classes that occur; NaN if none does.

    A class that is predicted and not labelled has IoU 0, or is left out if `labelled_only`.
    """
    agree, predicted, labelled = np.moveaxis(areas, -1, 0)
    union = predicted + labelled - agree
    there = labelled > 0 if labelled_only else union > 0
    iou = np.divide(agree, union, out=np.zeros_like(agree), where=there)
    number = there.sum(-1)
    return np.divide(100 * iou.sum(-1), number, out=np.full(number.shape, np.nan), where=number > 0)


def _resampled(areas: NDArray[np.float64], resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(n, 2, C, 3) to (resamples, 2): the mIoU of both over images drawn with replacement."""
    count = len(areas)
    flat = areas.reshape(count, -1)
    step = max(1, CHUNK // max(count, flat.shape[1]))
    parts = []
    for start in range(0, resamples, step):
        weights = rng.multinomial(count, np.full(count, 1 / count), min(step, resamples - start))  # (r, n)
        parts.append(_miou((weights @ flat).reshape(-1, *areas.shape[1:]), labelled_only=True))
    return np.concatenate(parts)
