"""Scores from integer areas: exact sums, per-class results, and a run that a kill does not lose.

mmsegmentation's IoUMetric sums float32 histograms and keeps them in memory until the end. Here the areas of
each image are written down at once (:mod:`rfclip.areas`); a run that was killed goes on with the images that
have no line yet, and the scores come from all lines, an image counting once however often it stands there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.dist import all_gather_object, broadcast_object_list, get_dist_info, is_main_process
from mmengine.logging import print_log
from mmseg.evaluation import IoUMetric
from mmseg.registry import DATA_SAMPLERS, METRICS
from numpy.typing import NDArray
from torch.utils.data import Sampler

from rfclip.areas import AreaLog, ImageAreas, count_areas, image_name


@dataclass(frozen=True)
class Scores:
    """What the areas of a whole data set amount to; fractions, NaN where nothing can be said.

    Attributes:
        iou: (C,) intersection over union; NaN for a class that is neither labelled nor predicted, 0 for one
            that is only predicted.
        acc: (C,) share of a class's pixels that were found; NaN for a class that is not labelled.
        pixel_acc: Share of all labelled pixels that were found.
    """

    iou: NDArray[np.float64]
    acc: NDArray[np.float64]
    pixel_acc: float

    def metrics(self) -> dict[str, float]:
        """Means over the classes that are not NaN, in percent, unrounded: mIoU, aAcc, mAcc."""
        return {"mIoU": _mean(self.iou), "aAcc": 100 * self.pixel_acc, "mAcc": _mean(self.acc)}

    def per_class(self, names: Sequence[str]) -> dict[str, dict[str, float | None]]:
        """IoU and Acc of each class in percent, None for NaN."""
        return {
            name: {"IoU": _percent(iou), "Acc": _percent(acc)}
            for name, iou, acc in zip(names, self.iou, self.acc, strict=True)
        }


def score(total: NDArray[np.int64]) -> Scores:
    """Turn summed areas (C, 3) (see :class:`ImageAreas`) into scores, by mmsegmentation's rules."""
    agree, predicted, labelled = total.T.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = agree / (predicted + labelled - agree)
        acc = agree / labelled
        pixel_acc = float(agree.sum() / labelled.sum())
    return Scores(iou, acc, pixel_acc)


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(100 * known.mean()) if known.size else float("nan")


def _percent(value: float) -> float | None:
    return None if np.isnan(value) else float(100 * value)


@DATA_SAMPLERS.register_module()
class UnfinishedSampler(Sampler[int]):
    """The images without a line in the log, dealt to the processes in turn; none twice, none left out.

    Args:
        dataset: The data set.
        log_dir: Folder of the :class:`AreaLog`, or None to take every image.
        run: Whose lines count there.
        seed: Not used: the order is that of the data set.
    """

    def __init__(
        self, dataset: BaseDataset, log_dir: str | None = None, run: str = "", seed: int | None = None
    ) -> None:
        rank, world = get_dist_info()
        todo = [_unfinished(dataset, log_dir, run) if is_main_process() else []]
        broadcast_object_list(todo)  # one view for all: the others may be writing lines soon
        self.indices = todo[0][rank::world]

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def _unfinished(dataset: BaseDataset, log_dir: str | None, run: str) -> list[int]:
    if log_dir is None:
        return list(range(len(dataset)))
    finished = AreaLog(log_dir, run).read(len(dataset.metainfo["classes"]))
    names = (image_name(dataset.get_data_info(index)["img_path"], dataset.data_root) for index in range(len(dataset)))
    return [index for index, name in enumerate(names) if name not in finished]


@METRICS.register_module()
class ExactIoUMetric(IoUMetric):
    """mIoU, aAcc and mAcc of mmsegmentation from exact integer areas, with a line on disk per image.

    Args:
        ignore_index: Label of the pixels that do not count.
        log_dir: Folder of the :class:`AreaLog`; lines that are there already count. None: nothing is kept.
        run: Whose lines they are.
        data_root: Image names are relative to it.
        output_dir: Write each predicted label map there as PNG, in the data set's own label convention.
        collect_device: As in mmengine's BaseMetric.
        prefix: As in mmengine's BaseMetric.
    """

    def __init__(
        self,
        ignore_index: int = 255,
        log_dir: str | None = None,
        run: str = "",
        data_root: str | None = None,
        output_dir: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(ignore_index=ignore_index, output_dir=output_dir, collect_device=collect_device, prefix=prefix)
        self.format_only: bool = False
        self.data_root = data_root
        self.log = AreaLog(log_dir, run, get_dist_info()[0]) if log_dir is not None else None

    def process(self, data_batch: Mapping[str, Any], data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Count, and write down, a batch of predictions. Samples are as mmengine's Evaluator passes them."""
        if self.output_dir is not None:
            self._save_labels(data_batch, data_samples)
        for sample in data_samples:
            prediction = sample["pred_sem_seg"]["data"].squeeze(0)
            label = sample["gt_sem_seg"]["data"].squeeze(0).to(prediction)
            name = image_name(sample["img_path"], self.data_root)
            data = str(sample.get("fingerprint", ""))
            areas = count_areas(name, prediction, label, len(self.dataset_meta["classes"]), self.ignore_index, data)
            if self.log is not None:
                self.log.append(areas)
            self.results.append(areas)

    def _save_labels(self, data_batch: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> None:
        counting, self.format_only = self.format_only, True
        super().process(data_batch, samples)
        self.format_only = counting

    def evaluate(self, size: int) -> dict[str, float]:
        """Score all images: those of every process, and those whose lines were there before.

        Args:
            size: Number of images in the data set.

        Returns:
            mIoU, aAcc and mAcc in percent, rounded to two places like mmsegmentation's, on every process.

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
        """Score a list of areas and print the table of classes."""
        scores = score(np.sum([areas.classes for areas in results], axis=0))
        print_log("\n" + class_table(scores, self.dataset_meta["classes"]), logger="current")
        prefix = f"{self.prefix}/" if self.prefix else ""
        return {prefix + name: round(value, 2) for name, value in scores.metrics().items()}


def class_table(scores: Scores, names: Sequence[str]) -> str:
    """A line per class: name, IoU and Acc in percent, '-' for NaN."""
    width = max(len(name) for name in ("class", *names))
    lines = [f"{'class':{width}}     IoU     Acc"]
    for name, *values in zip(names, scores.iou, scores.acc, strict=True):
        iou, acc = ("-" if np.isnan(value) else f"{100 * value:.2f}" for value in values)
        lines.append(f"{name:{width}}  {iou:>6}  {acc:>6}")
    return "\n".join(lines)
