"""The two dataset classes that mmsegmentation lacks, and a look at whether a benchmark's files are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import cv2
from mmseg.datasets import BaseSegDataset, COCOStuffDataset, PascalVOCDataset
from mmseg.registry import DATASETS

from rfclip.areas import DataError, fingerprint
from rfclip.images import DAMAGE

_UNREADABLE: tuple[type[Exception], ...] = (*DAMAGE, cv2.error)
_VOC = PascalVOCDataset.METAINFO
_COCO_THINGS = COCOStuffDataset.METAINFO["classes"][:80]


def voc_palette(count: int) -> list[list[int]]:
    """Return the first ``count`` colours of PASCAL VOC's colour map: all different, black first.

    The bits of the class index are dealt to red, green and blue in turn, highest colour bit first.

    Args:
        count: Number of colours, 0 to 256.
    """
    if not 0 <= count <= 256:
        raise ValueError(f"the VOC colour map has 256 colours, asked for {count}")
    return [[_spread_bits(index >> channel) for channel in range(3)] for index in range(count)]


def _spread_bits(value: int) -> int:
    """Take bits 0, 3 and 6 of ``value`` to bits 7, 6 and 5."""
    return sum((value >> 3 * k & 1) << 7 - k for k in range(3))


@DATASETS.register_module()
class PascalVOC20Dataset(BaseSegDataset):
    """PASCAL VOC 2012 without its background: the masks' zero becomes the ignored label.

    Args:
        ann_file: List of image names, relative to ``data_root``.
        img_suffix: Suffix of the images.
        seg_map_suffix: Suffix of the masks.
        reduce_zero_label: Take 1 off every label; only ``False`` for masks that were stored that way.
        **kwargs: Further arguments of mmseg's BaseSegDataset.
    """

    METAINFO: ClassVar[dict[str, Any]] = dict(classes=_VOC["classes"][1:], palette=_VOC["palette"][1:])

    def __init__(
        self,
        ann_file: str,
        img_suffix: str = ".jpg",
        seg_map_suffix: str = ".png",
        reduce_zero_label: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            ann_file=ann_file,
            img_suffix=img_suffix,
            seg_map_suffix=seg_map_suffix,
            reduce_zero_label=reduce_zero_label,
            **kwargs,
        )


@DATASETS.register_module()
class COCOObjectDataset(BaseSegDataset):
    """COCO-Object: the 80 things of COCO 2017, everything else (void included) is background, label 0.

    Args:
        img_suffix: Suffix of the images.
        seg_map_suffix: Suffix of the masks that datasets/cvt_coco_object.py writes.
        **kwargs: Further arguments of mmseg's BaseSegDataset.
    """

    METAINFO: ClassVar[dict[str, Any]] = dict(classes=("background", *_COCO_THINGS), palette=voc_palette(81))

    def __init__(self, img_suffix: str = ".jpg", seg_map_suffix: str = "_instanceTrainIds.png", **kwargs: Any) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)


class CheckedPipeline:
    """A data set's transforms, whose errors name the image and whose samples know the fingerprint of their files.

    Args:
        pipeline: The transforms, from what the data set knows of an image to what the model gets.
    """

    def __init__(self, pipeline: Callable[[dict[str, Any]], Any]) -> None:
        self.pipeline = pipeline

    def __call__(self, info: dict[str, Any]) -> Any:
        """Transform; ``info`` is the data set's own of one image.

        Raises:
            DataError: The image or its label map is missing or damaged.
        """
        files = " or its labels ".join(str(info[key]) for key in ("img_path", "seg_map_path") if key in info)
        try:
            data = fingerprint(info)
            transformed = self.pipeline(info)
        except _UNREADABLE as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{files} cannot be read ({type(error).__name__}: {reason})") from error
        transformed["data_samples"].set_metainfo({"fingerprint": data})
        return transformed


def missing_data(dataset: Mapping[str, Any]) -> str | None:
    """Look for the folders and the list of a dataset config on disk.

    Args:
        dataset: The dataset part of a config: ``data_root``, ``data_prefix`` and, if any, ``ann_file``.

    Returns:
        One sentence naming what is missing and where to read the cure, or None if all is there.
    """
    root = Path(dataset.get("data_root") or ".")
    parts = [*dataset.get("data_prefix", {}).values(), dataset.get("ann_file", "")]
    for path in (root, *(root / part for part in parts if part)):
        if not path.exists():
            return f"{path} not found: see datasets/README.md"
    return None
