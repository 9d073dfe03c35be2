"""Scores from integer areas: exact sums, per-class results, and a run that a kill does not lose.

mmsegmentation's IoUMetric sums float32 histograms and keeps them in memory until the end. Here the areas of
each image are written down at once (:mod:`rfclip.runs.areas`); a run that was killed goes on with the images that
have no line yet, and the scores come from all lines, an image counting once however often it stands there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, broadcast_object_list, get_dist_info, is_main_process
from mmengine.logging import print_log
from mmseg.evaluation import IoUMetric
from mmseg.registry import DATA_SAMPLERS, METRICS
from numpy.typing import NDArray
from torch.utils.data import Sampler

from rfclip.benchmarks.test_set import named_infos
from rfclip.checks import check_above_zero, check_switch, check_whole
from rfclip.runs.areas import AreaLog, DataError, ImageAreas, count_areas, image_name
from rfclip.runs.files import RunFiles

MEASURES = {"mFscore": ("Fscore", "Precision", "Recall"), "mDice": ("Dice",)}  # mmsegmentation's, beside mIoU


@dataclass(frozen=True)
class Scores:
    """What the areas of a whole data set amount to; fractions, NaN where nothing can be said.

    Attributes:
        iou: (C,) intersection over union; NaN for a class that is neither labelled nor predicted, 0 for one
            that is only predicted.
        acc: (C,) share of a class's pixels that were found; NaN for a class that is not labelled.
        pixel_acc: Share of all labelled pixels that were found.
        more: (C,) each of the other measures that were asked for, by name: Fscore, Precision, Recall, Dice.
    """

    iou: NDArray[np.float64]
    acc: NDArray[np.float64]
    pixel_acc: float
    more: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def by_class(self) -> dict[str, NDArray[np.float64]]:
        """All that is measured per class, (C,) each, by name."""
        return {"IoU": self.iou, "Acc": self.acc, **self.more}

    def metrics(self) -> dict[str, float]:
        """Means over the classes that are not NaN, in percent, unrounded: mIoU, aAcc, mAcc, and mFscore and so on."""
        more = {f"m{name}": _mean(values) for name, values in self.more.items()}
        return {"mIoU": _mean(self.iou), "aAcc": 100 * self.pixel_acc, "mAcc": _mean(self.acc), **more}

    def per_class(self, names: Sequence[str]) -> dict[str, dict[str, float | None]]:
        """IoU and Acc, and what else is measured, of each class in percent, None for NaN."""
        rows = zip(*self.by_class.values(), strict=True)
        percent = ([None if np.isnan(share) else float(100 * share) for share in row] for row in rows)
        return {name: dict(zip(self.by_class, row, strict=True)) for name, row in zip(names, percent, strict=True)}


def score(total: NDArray[np.int64], metrics: Iterable[str] = (), beta: float = 1.0) -> Scores:
    """Turn summed areas (C, 3) (see :class:`ImageAreas`) into scores, by mmsegmentation's rules.

    Args:
        total: The areas.
        metrics: What else to measure: 'mFscore' for Fscore, Precision and Recall, 'mDice' for Dice. As in
            mmsegmentation an F-score is NaN, and no part of the mean, where precision and recall are both 0 or one of
            them is NaN.
        beta: Weight of the recall in the F-score, above 0.
    """
    agree, predicted, labelled = total.T.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = agree / (predicted + labelled - agree)
        recall = agree / labelled
        precision = agree / predicted
        every = {
            "Fscore": (1 + beta**2) * precision * recall / (beta**2 * precision + recall),
            "Precision": precision,
            "Recall": recall,
            "Dice": 2 * agree / (predicted + labelled),
        }
        pixel_acc = float(agree.sum() / labelled.sum())
    return Scores(iou, recall, pixel_acc, {name: every[name] for metric in metrics for name in MEASURES[metric]})


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(100 * known.mean()) if known.size else float("nan")


@DATA_SAMPLERS.register_module()
class UnfinishedSampler(Sampler[int]):
    """The images without a line in the log, dealt to the processes in turn; none twice, none left out.

    Args:
        dataset: The data set.
        log_dir: Folder of the :class:`AreaLog`, or None to take every image.
        run: Whose lines count there.
        seed: Not used: the order is that of the data set.
    """

    def __init__(self, dataset: Any, log_dir: str | None = None, run: str = "", seed: int | None = None) -> None:
        rank, world = get_dist_info()
        todo = [[*range(len(dataset))]]
        if log_dir is not None and is_main_process():
            finished = AreaLog(log_dir, run).read(len(dataset.metainfo["classes"]))
            todo = [[index for index, (name, _) in enumerate(named_infos(dataset)) if name not in finished]]
        broadcast_object_list(todo)  # one view for all: the others may be writing lines soon
        self.indices = todo[0][rank::world]

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


@METRICS.register_module()
class ExactIoUMetric(IoUMetric):
    """mIoU, aAcc and mAcc of mmsegmentation from exact integer areas, with a line on disk per image.

    Args:
        ignore_index: Label of the pixels that do not count.
        iou_metrics: What else to measure: 'mFscore', 'mDice'; see :func:`score`.
        beta: Of the F-score.
        format_only: Write files alone: labels are not looked at, and all scores are NaN.
        log_dir: Folder of the :class:`AreaLog`; lines that are there already count. None: nothing is kept.
        run: Whose lines they are.
        data_root: Image names are relative to it.
        output_dir: Write each predicted label map there as PNG, in the data set's own label convention.
        show_dir: Write each picture there, painted.
        image_root: Both under the path that the image has in this folder.
        keep_suffix: As in :class:`RunFiles`.
        collect_device: As in mmengine's BaseMetric.
        prefix: As in mmengine's BaseMetric.
    """

    def __init__(
        self,
        ignore_index: int = 255,
        iou_metrics: Sequence[str] = (),
        beta: float = 1.0,
        format_only: bool = False,
        log_dir: str | None = None,
        run: str = "",
        data_root: str | None = None,
        output_dir: str | None = None,
        show_dir: str | None = None,
        image_root: str | None = None,
        keep_suffix: bool = False,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        check_whole("test_evaluator.ignore_index", ignore_index)
        check_above_zero("test_evaluator.beta", beta)
        check_switch("test_evaluator.format_only", format_only)
        super().__init__(ignore_index=ignore_index, collect_device=collect_device, prefix=prefix)
        self.more, self.beta = tuple(iou_metrics), beta
        self.labelled = not format_only
        self.data_root = data_root
        self.files = RunFiles(output_dir, show_dir, image_root, keep_suffix)
        self.log = AreaLog(log_dir, run, get_dist_info()[0]) if log_dir is not None else None

    def process(self, data_batch: Mapping[str, Any], data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Count, and write down, a batch of predictions. Samples are as mmengine's Evaluator passes them."""
        classes = len(self.dataset_meta["classes"])
        for sample in data_samples:
            areas = self._count(sample, classes)
            areas = replace(areas, written=self.files.write(sample, self.dataset_meta))
            if self.log is not None:
                self.log.append(areas)
            self.results.append(areas)

    def _count(self, sample: Mapping[str, Any], classes: int) -> ImageAreas:
        """The areas of one image.

        Raises:
            DataError: It has no labels, or of another size.
        """
        prediction = sample["pred_sem_seg"]["data"].squeeze(0)
        name, data = image_name(sample["img_path"], self.data_root), str(sample.get("fingerprint", ""))
        if not self.labelled:
            label = torch.full_like(prediction, self.ignore_index)
        elif "gt_sem_seg" not in sample:
            raise DataError(f"{name} came out of the pipeline without labels, so it has no score: test it with --out")
        else:
            label = sample["gt_sem_seg"]["data"].squeeze(0).to(prediction)
        areas = count_areas(name, prediction, label, classes, self.ignore_index, data)
        taken_off = int(bool(sample.get("reduce_zero_label", False)))
        return areas if areas.strange is None else replace(areas, strange=areas.strange + taken_off)

    def evaluate(self, size: int) -> dict[str, float]:
        """Score all images: those of every process, and those whose lines were there before.

        Args:
            size: Number of images in the data set.

        Returns:
            mIoU, aAcc, mAcc and what else was asked for in percent, rounded to two places like mmsegmentation's, on
            every process; nothing without labels.

        Raises:
            RuntimeError: Images are missing.
        """
        gathered = [areas for part in all_gather_object(self.results) for areas in part]
        self.results.clear()
        metrics: list[dict[str, float] | None] = [None]
        if is_main_process():
            metrics = [self.compute_metrics(self._all_images(gathered, size))]
        broadcast_object_list(metrics)
        return metrics[0] or {}

    def _all_images(self, gathered: Iterable[ImageAreas], size: int) -> list[ImageAreas]:
        images = self.log.read(len(self.dataset_meta["classes"])) if self.log is not None else {}
        for areas in gathered:
            if self.log is not None and areas.image not in images:  # of a machine with a disk of its own
                self.log.append(areas)
            images[areas.image] = areas
        if len(images) != size:
            raise RuntimeError(f"the data set has {size} images, but areas of {len(images)} images were found")
        return list(images.values())

    def compute_metrics(self, results: list[ImageAreas]) -> dict[str, float]:
        """Score a list of areas and print the table of classes; nothing without labels."""
        if not self.labelled:
            return {}
        scores = score(np.sum([areas.classes for areas in results], axis=0), self.more, self.beta)
        print_log("\n" + class_table(scores, self.dataset_meta["classes"]), logger="current")
        prefix = f"{self.prefix}/" if self.prefix else ""
        return {prefix + name: round(value, 2) for name, value in scores.metrics().items()}


def class_table(scores: Scores, names: Sequence[str]) -> str:
    """A line per class: name, IoU, Acc and what else is measured in percent, '-' for NaN."""
    width = max(len(name) for name in ("class", *names))
    columns = {name: max(6, len(name)) for name in scores.by_class}
    lines = [f"{'class':{width}}" + "".join(f"  {name:>{wide}}" for name, wide in columns.items())]
    for name, *values in zip(names, *scores.by_class.values(), strict=True):
        cells = ("-" if np.isnan(value) else f"{100 * value:.2f}" for value in values)
        row = "".join(f"  {cell:>{wide}}" for cell, wide in zip(cells, columns.values(), strict=True))
        lines.append(f"{name:{width}}{row}")
    return "\n".join(lines)
