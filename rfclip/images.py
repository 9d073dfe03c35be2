"""Reading pictures of any kind as RGB, and the resize rule of the configs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

LONG_SIDE = 2048  # pixels; no side becomes longer, whatever the short side is

ImageSource = str | Path | Image.Image | np.ndarray


def read_image(source: ImageSource) -> np.ndarray:
    """Return a picture as (H, W, 3) uint8 RGB.

    Turned as its EXIF tag says; grey becomes RGB, 16 bits become 8, CMYK is converted, what is transparent is laid on
    white, and of an animation the first frame is taken.

    Args:
        source: a path, a PIL image, or an (H, W, 3) uint8 RGB array, which is returned as it is.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no readable picture, or an array of another shape or type.
        TypeError: something else.
    """
    if isinstance(source, np.ndarray):
        return _checked_array(source)
    if isinstance(source, Image.Image):
        return _as_rgb(source)
    if not isinstance(source, (str, Path)):
        raise TypeError(f"an image is a path, a PIL image or a uint8 RGB array (H, W, 3), got {type(source).__name__}")
    if not Path(source).is_file():
        raise FileNotFoundError(f"no image file {str(source)!r}")
    try:
        with Image.open(source) as image:
            return _as_rgb(image)
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ValueError(
            f"{str(source)!r} claims to have more than {most // 10**6} million pixels, and such files "
            "can be made to fill the memory, so Pillow reads none: make a smaller copy"
        ) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{str(source)!r} cannot be read as an image: {error}") from error


def frame_count(path: str | Path) -> int:
    """How many frames an image file holds; above 1 it is animated, and :func:`read_image` takes the first."""
    with Image.open(path) as image:
        return getattr(image, "n_frames", 1)


def resize_short_side(image: np.ndarray, short_side: int) -> np.ndarray:
    """Resize (H, W, 3) uint8 to a short side in pixels, keeping the aspect ratio: the rule of the configs.

    That is mmcv's Resize with scale (2048, short side) and keep_ratio: bilinear, long side at most 2048.
    """
    height, width = image.shape[:2]
    scale = min(LONG_SIDE / max(height, width), short_side / min(height, width))
    size = (max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5)))
    return image if size == (width, height) else cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def _checked_array(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(f"an image array must be (H, W, 3) uint8 RGB and not empty, got {array.shape} {array.dtype}")
    return array


def _as_rgb(image: Image.Image) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        top = 255 if values.max(initial=0) <= 255 else 65535
        image = Image.fromarray((values.clip(0, top) / top * 255 + 0.5).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.asarray(image.convert("RGB"))
