"""What the demo does with a picture and words, without its widgets; every refusal is one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from rfclip import sample_world
from rfclip.api import OpenVocabSegmenter, Segmentation
from rfclip.explain.explanation import examine
from rfclip.explain.figures import draw, save_all
from rfclip.explain.page import build_page
from rfclip.explain.report import facts_of
from rfclip.images import read_image
from rfclip.run_options import method_block
from rfclip.vocabulary import Vocabulary, load_vocabulary, shipped_vocabularies
from rfclip.words import parse_classes, with_background

MOST_BYTES = 20_000_000  # of an uploaded file
MOST_PIXELS = 16_000_000  # of an uploaded picture
MOST_CHARACTERS = 4000  # of the words
MOST_NAMES = 120  # aliases included
MOST_VALUES = 400_000_000  # pixels times classes: probabilities of 1.6 GB
BACKGROUNDS = ("auto", "words", "none")
METHODS = ("paper", "release", "mean_kk", "naclip", "clear_clip", "sclip", "mask_clip", "vanilla_clip")
PLOTS = ("labels", "attention", "distraction")
THRESHOLD = 0.1  # probability below which a pixel is background, where there is one


def drawn_scene() -> np.ndarray:
    """A scene of the sample world (240, 320, 3), uint8: sky, grass, cat and building."""
    rng = np.random.default_rng(5)
    return sample_world.render(sample_world.layout((240, 320), 4, rng), ["sky", "grass", "cat", "building"], rng).image


SAMPLES = {
    "drawn scene": (drawn_scene, "sky, grass, cat, building"),
    "china": (lambda: load_sample_image("china.jpg"), "sky, temple|pagoda, tree, water"),
    "flower": (lambda: load_sample_image("flower.jpg"), "flower, leaves|grass"),
}


class Studio:
    """One loaded CLIP, and segmenters of all methods that share it.

    Args:
        model, pretrained, device, short_side: as OpenVocabSegmenter takes them.
    """

    def __init__(self, model: str, pretrained: str | None, device: str | None, short_side: int) -> None:
        self._segmenter = OpenVocabSegmenter(model, pretrained or "openai", device, short_side=short_side)

    def segment(self, image: np.ndarray, words: str, background: str, method: str) -> Segmentation:
        """Segment an (H, W, 3) picture; ValueError if the settings or the words cannot be used."""
        vocabulary = read_words(words, background)
        height, width = image.shape[:2]
        if height * width * len(vocabulary.names) > MOST_VALUES:
            raise ValueError(
                f"{len(vocabulary.names)} classes on {width} x {height} pixels need too much memory for this page: "
                "name fewer, take a smaller picture, or use tools/segment.py"
            )
        return self._with(vocabulary, method)(image, vocabulary)

    def explain(self, image: np.ndarray, words: str, background: str, method: str) -> str:
        """Return the page that explains what a method does with an (H, W, 3) picture."""
        vocabulary = read_words(words, background)
        segmenter = self._with(vocabulary, method)
        explanation = examine(segmenter, image, vocabulary)
        pictures = save_all(draw(explanation, PLOTS))
        facts = facts_of(segmenter, explanation)
        return build_page(explanation, pictures, f"What {explanation.methods[1]} does with the picture", facts)

    def _with(self, vocabulary: Vocabulary, method: str) -> OpenVocabSegmenter:
        settings: dict[str, Any] = {"prob_thd": 0.0, "background_index": None}
        if vocabulary.has_background:
            settings = {"prob_thd": THRESHOLD, "background_index": 0}
        return self._segmenter.changed(method=method_block(method), **settings)


def read_words(words: str, background: str) -> Vocabulary:
    """Return the vocabulary that is typed into the page: names, or a shipped vocabulary; never a file.

    Raises:
        ValueError: nothing, too much, or what cannot be read.
    """
    words = (words or "").strip()
    if not words:
        raise ValueError('type the words to look for, such as "sky, temple|pagoda, tree"')
    if len(words) > MOST_CHARACTERS:
        raise ValueError(f"these are {len(words)} characters, and the page takes {MOST_CHARACTERS}: name fewer things")
    if words.lower().endswith((".json", ".txt")):
        raise ValueError("the page reads no vocabulary files: type the words, or use tools/segment.py")
    if background not in BACKGROUNDS:
        raise ValueError(f"background is one of {', '.join(BACKGROUNDS)}, got {background!r}")
    typed = load_vocabulary(words if words in shipped_vocabularies() else parse_classes(words))
    if words not in shipped_vocabularies() and len(typed.queries) > MOST_NAMES:
        raise ValueError(f"these are {len(typed.queries)} names, and the page takes {MOST_NAMES}: name fewer things")
    return with_background(typed, background)


def read_upload(path: str | Path | None) -> np.ndarray:
    """Return an uploaded picture as (H, W, 3) uint8 RGB.

    Raises:
        ValueError: it is too large, or no picture. The sentence does not tell where on this machine it lies.
    """
    if path is None:
        raise ValueError("choose a picture first: drop one on the page, or take a sample")
    path = Path(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"{path.name} is larger than {MOST_BYTES // 10**6} MB: make a smaller copy")
        with Image.open(path) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise ValueError(
                    f"{path.name} has {width} x {height} pixels, and the page takes {MOST_PIXELS // 10**6} million: "
                    "make a smaller copy, or use tools/segment.py"
                )
        return read_image(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, ValueError) and str(error).startswith(path.name):
            raise
        raise ValueError(f"{path.name} cannot be read as a picture: take a PNG, JPEG, WebP, GIF or TIFF") from error


def sample(name: str) -> np.ndarray:
    """Return a sample picture (H, W, 3); ValueError if there is none of that name."""
    if name not in SAMPLES:
        raise ValueError(f"no sample {name!r}; there are {', '.join(SAMPLES)}")
    return np.asarray(SAMPLES[name][0]())
