"""mmseg's loading of images with one more decoder, that of :mod:`rfclip.io.images`."""

from __future__ import annotations

import logging
import re
from typing import Any

import mmcv
import mmengine.fileio
import numpy as np
from mmcv.transforms import LoadImageFromFile as MmcvLoader
from mmengine.logging import print_log
from mmseg.registry import TRANSFORMS

from rfclip.io.images import decode, is_plain_jpeg, sentence

BACKEND = "rfclip"  # of LoadImageFromFile in our configs


@TRANSFORMS.register_module()
class LoadImageFromFile(MmcvLoader):
    """mmcv's transform of this name, with one more decoder: `imdecode_backend="rfclip"`.

    It gives what :func:`rfclip.io.images.read_image` gives, and says once per kind what was guessed. JPEGs of 8-bit
    grey or RGB are decoded by OpenCV as without it, so that the numbers of the benchmarks are those of mmseg. With any
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
        image, clauses = decoded(mmengine.fileio.get(path, backend_args=self.backend_args), path)
        kind = re.sub(r"[\d.]+", "", " ".join(clauses))
        if clauses and kind not in self._said:
            self._said.add(kind)
            print_log(f"{sentence(path, clauses)} (said once of its kind)", "current", logging.WARNING)
        return image


def decoded(content: bytes, path: str) -> tuple[np.ndarray, list[str]]:
    """What the transform makes of a file's bytes: (H, W, 3) BGR uint8, and what was guessed, as clauses.

    Raises:
        ValueError: no readable picture; the sentence names `path`.
    """
    if not is_plain_jpeg(content):
        pixels, clauses = decode(content, path)
        return np.ascontiguousarray(pixels[..., ::-1]), clauses
    image = mmcv.imfrombytes(content, flag="color", backend="cv2")
    if image is None:
        raise ValueError(f"{path!r} cannot be read as an image: OpenCV decodes none of it")
    return image, []
