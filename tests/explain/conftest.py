"""A segmenter that explains quickly, and its explanation of a small picture."""

import numpy as np
import pytest

from rfclip.explain import examine
from rfclip.segment.api import OpenVocabSegmenter

CLASSES = ["sky", ["temple", "pagoda"], "<tree> & 'bush'"]


@pytest.fixture
def classes():
    """Three classes; a name of the last one would break a careless page."""
    return CLASSES


@pytest.fixture
def segmenter(clip_files, tmp_path, monkeypatch):
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "cache"))
    return OpenVocabSegmenter(
        **clip_files,
        device="cpu",
        templates=["a {}."],
        method={"type": "RefocusCLIP", "distraction_dims": [5, 23]},
        short_side=64,
    )


@pytest.fixture
def photo():
    """(100, 150, 3) uint8: smooth colours with some noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:100, :150]
    smooth = 128 + 100 * np.sin(y[..., None] / 15 + np.arange(3)) * np.cos(x[..., None] / 20)
    return (smooth + rng.normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def explanation(segmenter, photo):
    return examine(segmenter, photo, CLASSES, point=(149, 0))
