"""A segmentation as one HTML page: opacity, a legend, and the class under the pointer."""

from __future__ import annotations

import base64
import html
import io
import json
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image

from rfclip.segment.api import Segmentation

TEMPLATE = Path(__file__).parent / "viewer.html"
LONGEST_SIDE = 1280  # pixels of the page's picture; a larger one is shown smaller
MOST_CLASSES = 256  # a label is one byte of the page's label map


def viewer(result: Segmentation, opacity: float = 0.55) -> str:
    """Return the page of a segmentation that kept its probabilities; it loads nothing from anywhere.

    Args:
        result: at most 256 classes.
        opacity: share of the labels' colours at the beginning, 0..1.

    Raises:
        ValueError: too many classes, no probabilities, or an opacity that is no share.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity is a share, 0..1, got {opacity}")
    if len(result.names) > MOST_CLASSES:
        raise ValueError(f"the page shows at most {MOST_CLASSES} classes, got {len(result.names)}: name fewer")
    if result.probs is None:
        raise ValueError("the page shows probabilities: build the OpenVocabSegmenter with keep_probs=True")
    height, width = result.labels.shape
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    certainty = np.take_along_axis(result.probs, result.labels[None], axis=0)[0]  # of the class that is shown
    counts = np.bincount(result.labels.ravel(), minlength=len(result.names))
    data = {
        "width": size[0],
        "height": size[1],
        "names": result.names,
        "colours": result.colours,
        "legend": [
            {"index": int(index), "share": f"{counts[index] / result.labels.size:.1%}"}
            for index in np.argsort(-counts, kind="stable")
            if counts[index]
        ],
        "picture": _data_url(Image.fromarray(result.image).resize(size, Image.Resampling.BILINEAR)),
        "labels": _data_url(_resized(result.labels, size)),
        "certainty": _data_url(_resized(certainty * 255 + 0.5, size)),
        "map": _data_url(result.label_image()),  # to be saved, at the picture's own size
    }
    text = json.dumps(data).replace("<", "\\u003c")
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(data=text, opacity=round(opacity * 100))


def frame(page: str, title: str) -> str:
    """Return an iframe that shows a page; its scripts run, and reach nothing outside of it.

    The page says how tall it is, and head.html makes the frame so.
    """
    return (
        f'<iframe title="{html.escape(title)}" sandbox="allow-scripts allow-downloads" srcdoc="{html.escape(page)}" '
        'style="width: 100%; height: 46rem; border: 0; background: #fff"></iframe>'
    )


def _resized(values: np.ndarray, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
