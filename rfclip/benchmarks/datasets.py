"""The two dataset classes that mmsegmentation lacks, how a data set's files are read, and whether they are there."""

from __future__ import annotations

import io
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from mmcv.transforms import LoadImageFromFile, RandomFlip
from mmengine import fileio
from mmengine.dataset import Compose
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS

from rfclip.io.formats import NotReadError, open_picture
from rfclip.io.images import DAMAGE
from rfclip.runs.areas import DataError, fingerprint
from rfclip.words.vocabulary import dataset_facts

_UNREADABLE: tuple[type[Exception], ...] = (*DAMAGE, cv2.error)


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

    METAINFO: ClassVar[dict[str, Any]] = dict(dataset_facts()["PascalVOC20Dataset"])

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
        seg_map_suffix: Suffix of the masks that `rfclip prepare coco-object` writes.
        **kwargs: Further arguments of mmseg's BaseSegDataset.
    """

    METAINFO: ClassVar[dict[str, Any]] = dict(dataset_facts()["COCOObjectDataset"])

    def __init__(self, img_suffix: str = ".jpg", seg_map_suffix: str = "_instanceTrainIds.png", **kwargs: Any) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)


class ExactLabels(LoadAnnotations):
    """mmsegmentation's LoadAnnotations for label maps of any depth: it casts to 8 bits, where 261 becomes class 5.

    They are read by Pillow, whatever `imdecode_backend` is, and only of the kinds that pictures are read of.

    Args:
        like: Whose settings it takes over.
        void: Label of what does not count: zeros where 1 is taken off, and classes that the data set leaves out.
    """

    def __init__(self, like: LoadAnnotations, void: int = 255) -> None:
        self.__dict__.update(vars(like))
        self.void = void

    def _load_seg_map(self, results: dict[str, Any]) -> None:
        """Read the label map, and rename its values as mmsegmentation does.

        Raises:
            DataError: It is no image of one whole number per pixel, or two settings contradict each other.
            OSError: It is not there, or damaged.
        """
        path, reduce = results["seg_map_path"], bool(results.get("reduce_zero_label", False))
        if self.reduce_zero_label not in (None, reduce):
            raise DataError(
                f"reduce_zero_label is {self.reduce_zero_label} in LoadAnnotations, but {reduce} in the data set: "
                "set it in the data set alone"
            )
        try:
            with open_picture(io.BytesIO(fileio.get(path, backend_args=self.backend_args))) as image:
                found = np.asarray(image)
        except NotReadError as error:
            raise DataError(f"label map {path} is {error.kind}, which is not read: save it as PNG") from error
        if found.ndim != 2 or found.dtype.kind not in "bui":
            kind = f"{found.shape[2]} channels of colour" if found.ndim == 3 else f"numbers of type {found.dtype}"
            raise DataError(f"label map {path} holds {kind}, expected one class index per pixel: convert it")
        labels = found.astype(np.int64)
        if reduce:
            labels = np.where((labels == 0) | (labels == self.void), self.void, labels - 1)
        renamed = labels.copy()
        for old, new in (results.get("label_map") or {}).items():
            renamed[labels == old] = new
        lowest, highest = renamed.min(initial=0), renamed.max(initial=0)
        narrow = np.uint8 if lowest >= 0 and highest <= 255 else np.int32  # 8 bits are quicker, and resized as ever
        results["gt_seg_map"] = renamed.astype(narrow)
        results["seg_fields"].append("gt_seg_map")


class CheckedPipeline:
    """A data set's transforms, whose errors name the image and whose samples know the fingerprint of their files.

    Args:
        pipeline: The transforms, from what the data set knows of an image to what the model gets.
        void: As in :class:`ExactLabels`, which replaces LoadAnnotations.

    Raises:
        ValueError: Label maps would be flipped.
    """

    def __init__(self, pipeline: Compose, void: int = 255) -> None:
        steps = [ExactLabels(step, void) if type(step) is LoadAnnotations else step for step in pipeline.transforms]
        self.pipeline = Compose(steps)
        labels = [index for index, step in enumerate(steps) if isinstance(step, ExactLabels)]
        if labels and any(isinstance(step, RandomFlip) for step in steps[labels[0] :]):
            raise ValueError(
                "RandomFlip after LoadAnnotations flips the label maps too, but results are flipped back: put "
                "LoadAnnotations behind it"
            )
        loaders = [step.imdecode_backend for step in steps if isinstance(step, LoadImageFromFile)]
        self.decoder = loaders[0] if loaders else "cv2"

    def __call__(self, info: dict[str, Any]) -> Any:
        """Transform; ``info`` is the data set's own of one image.

        Raises:
            DataError: The image or its label map is missing, damaged, or not what it should be.
        """
        known: dict[str, Any] = {key: info[key] for key in ("img_path", "reduce_zero_label") if key in info}
        files = " or its labels ".join(str(info[key]) for key in ("img_path", "seg_map_path") if info.get(key))
        try:
            data = fingerprint(info)
            transformed = self.pipeline(info)
        except DataError:
            raise
        except _UNREADABLE as error:
            raise DataError(f"{files} cannot be read ({type(error).__name__}: {words(error)})") from error
        if transformed is None:
            raise DataError(f"a step of the pipeline drops {files}, but every image counts: take that step out")
        if "data_samples" not in transformed:
            raise DataError("the pipeline of the data set must end in dict(type='PackSegInputs')")
        transformed["data_samples"].set_metainfo({**known, "fingerprint": data, "decoder": self.decoder})
        return transformed


def words(error: BaseException) -> str:
    """The sentence of an error, on one line; of an assertion without one, what it asserts and where."""
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    first = error
    while (before := first.__cause__ or first.__context__) is not None:
        first = before
    if not isinstance(first, AssertionError) or str(first):
        return text
    frame = traceback.extract_tb(first.__traceback__)[-1]
    place = f"{Path(frame.filename).name}, line {frame.lineno}"
    return " ".join([*([text] if text else []), f"a check without words failed: {frame.line} ({place})"])


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
