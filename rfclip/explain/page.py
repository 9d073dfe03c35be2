"""The HTML page of an explanation: one file with everything in it, readable without JavaScript."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from PIL import Image

from rfclip.explain import style
from rfclip.explain.explanation import Explanation
from rfclip.explain.figures import PLOTS

TEMPLATE = Path(__file__).parent / "page.html"
_PERCENTILE = 99.7  # attention above it has the last colour


def build_page(
    explanation: Explanation, pictures: Mapping[str, bytes], title: str, facts: Mapping[str, str], mark: str = ""
) -> str:
    """Put a page together.

    Args:
        explanation: what the clickable maps show.
        pictures: name of a plot (see figures.PLOTS) -> its PNG, in the order in which they are shown.
        title: heading of the page.
        facts: name -> value, shown below the heading.
        mark: by which the picture is known again, see rfclip.segment.names.mark_of.

    Returns:
        HTML that loads nothing from anywhere.
    """
    moments = "in each layer" if explanation.after is None else "before (above) and after (below) redistribution"
    values = {
        "title": html.escape(title),
        "mark": html.escape(mark),
        "facts": "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(text)}</dd>" for key, text in facts.items()),
        "moments": moments,
        "sections": "\n".join(_section(name, png) for name, png in pictures.items()),
        "data": json.dumps(page_data(explanation)).replace("<", "\\u003c"),
    }
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values)


def page_data(explanation: Explanation) -> dict[str, Any]:
    """What the page's script reads. A matrix is a grey N x N PNG, 255 * sqrt(attention * N / top), clipped."""
    arrays = {"before": explanation.before, "after": explanation.after}
    moments = {name: array for name, array in arrays.items() if array is not None}
    count = explanation.before.shape[-1]
    top = max(float(np.percentile(np.stack(list(moments.values())), _PERCENTILE)) * count, 1e-6)
    layers = [
        {
            "name": name,
            "distractors": np.flatnonzero(explanation.distractors[index]).tolist(),
            "moments": [
                {"name": moment, "matrix": _data_url(as_grey(array[index] * count / top))}
                for moment, array in moments.items()
            ],
        }
        for index, name in enumerate(style.layer_names(explanation.layers))
    ]
    return {
        "grid": list(explanation.grid),
        "point": list(explanation.point),
        "top": top,
        "colours": [to_hex(colormaps[style.SEQUENTIAL](index)) for index in range(256)],
        "picture": _data_url(explanation.seen),
        "layers": layers,
    }


def as_grey(share: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Shares of the top of the scale as bytes, in square-root steps like style.shared_scale."""
    return (255 * np.sqrt(np.clip(share, 0, 1)) + 0.5).astype(np.uint8)


def _section(name: str, png: bytes) -> str:
    plot = PLOTS[name]
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    title, caption = html.escape(plot.title), html.escape(plot.caption)
    return (
        f'<section id="{name}"><h2>{title}</h2><p>{caption}</p>'
        f'<figure><img src="{source}" alt="{title}"></figure></section>'
    )


def _data_url(array: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
