"""What a run writes beside its scores: label maps and paintings, each under its picture's own path."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine import fileio
from mmengine.structures import PixelData
from mmengine.visualization import Visualizer
from PIL import Image

from rfclip.clip.weights import hash_file
from rfclip.plugin.loading import BACKEND, decoded
from rfclip.runs.areas import image_name


@dataclass(frozen=True)
class RunFiles:
    """The files that a run was asked for.

    Attributes:
        out: Folder of the predicted label maps, or None for no label maps.
        show_dir: Folder of the painted pictures, or None for none.
        image_root: A picture's file has the path in `out` and `show_dir` that the picture has in this folder; None: it
            is called as the picture is.
        keep_suffix: Whether the suffix of the picture stays in the name (a.jpg.png): two differ in nothing else.
    """

    out: str | None = None
    show_dir: str | None = None
    image_root: str | None = None
    keep_suffix: bool = False

    def paths(self, image: str | Path) -> dict[str, Path]:
        """Where the files of a picture are, by kind: 'out' and 'show_dir', as far as they were asked for."""
        folders = {"out": self.out, "show_dir": self.show_dir}
        name = _inside(image, self.image_root)
        name = name.with_name(f"{name.name}.png") if self.keep_suffix else name.with_suffix(".png")
        return {kind: Path(folder, name) for kind, folder in folders.items() if folder is not None}

    def are_there(self, image: str | Path, written: Mapping[str, str]) -> bool:
        """Whether all files of a picture are what a run wrote; `written` is what :meth:`write` returned then."""
        paths = self.paths(image).items()
        return all(path.is_file() and written.get(kind) == _fingerprint(path) for kind, path in paths)

    def write(self, sample: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, str]:
        """Write the files of one picture.

        Args:
            sample: What mmengine's Evaluator hands to a metric: `img_path`, `pred_sem_seg` and, if any, `gt_sem_seg`
                and `reduce_zero_label`, by which the label map gets the data set's own convention.
            meta: `classes`, C names, and for paintings `palette`; label maps have 16 bits where 8 are too few for the
                last class.

        Returns:
            A fingerprint of each file, by kind.
        """
        paths = self.paths(sample["img_path"])
        for path in paths.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        if "out" in paths:
            first = int(bool(sample.get("reduce_zero_label", False)))
            labels = sample["pred_sem_seg"]["data"].squeeze(0).cpu().numpy() + first
            depth = np.uint8 if len(meta["classes"]) - 1 + first <= 255 else np.uint16
            Image.fromarray(labels.astype(depth)).save(paths["out"])
        if "show_dir" in paths:
            _paint(sample, meta, paths["show_dir"])
        return {kind: _fingerprint(path) for kind, path in paths.items()}


def common_folder(folders: Iterable[str | Path]) -> str | None:
    """The folder that all lie in, spelt as they are; None if some are relative and some not, or they share none."""
    plain = {os.path.normpath(folder) for folder in folders}
    try:
        return os.path.commonpath(plain)
    except ValueError:  # relative and absolute ones, or several drives
        return None


def whole(path: str | Path) -> str:
    """The path from the root of the file system, without '..'; links are not followed."""
    return os.path.normpath(Path(path).absolute())


def _inside(image: str | Path, root: str | None) -> Path:
    """The path of a picture in a folder; of one elsewhere its own, below the root of the file system."""
    if root is None:
        return Path(Path(image).name)
    name = Path(image_name(whole(image), whole(root)))
    return name.relative_to(name.anchor)


def _paint(sample: Mapping[str, Any], meta: Mapping[str, Any], path: Path) -> None:
    """The labels, if there are any, and the prediction on the picture, side by side, by mmsegmentation's visualizer.

    The picture is decoded as the network's was.
    """
    content, ours = fileio.get(sample["img_path"]), sample.get("decoder") == BACKEND
    image = (decoded(content, sample["img_path"])[0] if ours else mmcv.imfrombytes(content))[..., ::-1]
    visualizer: Any = Visualizer.get_current_instance()
    panels = []
    for key in ("gt_sem_seg", "pred_sem_seg"):
        if key in sample:  # not by add_datasample, which draws in the first process only
            labels = PixelData(data=sample[key]["data"].cpu().numpy())
            panels.append(visualizer._draw_sem_seg(image, labels, meta["classes"], meta["palette"]))
    mmcv.imwrite(mmcv.rgb2bgr(np.hstack(panels)), str(path))
    if not path.is_file():
        raise OSError(f"{path} could not be written")


def _fingerprint(path: Path) -> str:
    return hash_file(path)[:16]
