"""What the demo does with a picture and words, without its widgets; every refusal is one sentence."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from rfclip.benchmarks.configs import method_block, profiles
from rfclip.explain.explanation import examine
from rfclip.explain.figures import draw, save_all
from rfclip.explain.page import build_page
from rfclip.explain.report import facts_of
from rfclip.io import sample_world
from rfclip.io.images import frame_count, image_size, read_with_notes
from rfclip.methods import METHODS
from rfclip.segment.api import OpenVocabSegmenter, Segmentation
from rfclip.words.typed import parse_classes, with_background
from rfclip.words.vocabulary import Vocabulary, load_vocabulary, shipped_vocabularies

MOST_BYTES = 20_000_000  # of an uploaded file
MOST_PIXELS = 16_000_000  # of an uploaded picture
PREVIEW_SIDE = 1000  # pixels of the picture that is shown before it is segmented
MOST_CHARACTERS = 4000  # of the words
MOST_NAMES = 120  # aliases included
MOST_VALUES = 400_000_000  # pixels times classes: probabilities of 1.6 GB
BACKGROUNDS = ("auto", "words", "none")
PLOTS = ("labels", "attention", "distraction")
EXPLAINED_PIXELS = 2_000_000  # the figures show no more of a picture
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


def methods() -> tuple[str, ...]:
    """What can be chosen: the profiles, the paper's first, and the registered methods that have none and need none."""
    kinds = {method_block(name)["type"] for name in profiles()}
    own = [name for name in METHODS.complete() if name not in kinds]
    return (*sorted(profiles(), key=lambda name: name != "paper"), *own)


class Studio:
    """One loaded CLIP, and segmenters of all methods that share it; several threads may use it at a time.

    Args:
        model, pretrained, device, short_side, quick_gelu, origin: as OpenVocabSegmenter takes them.
    """

    def __init__(
        self,
        model: str,
        pretrained: str | None,
        device: str | None,
        short_side: int,
        quick_gelu: bool | None = None,
        origin: str | None = None,
    ) -> None:
        self._segmenter = OpenVocabSegmenter(
            model, pretrained or "openai", device, short_side=short_side, quick_gelu=quick_gelu, origin=origin
        )
        self.note = self._segmenter.loaded.note  # what its user must know of the model, or None
        self._built: dict[tuple[str, int | None], OpenVocabSegmenter] = {}
        self._lock = Lock()

    def segment(self, image: np.ndarray, words: str, background: str, method: str) -> Segmentation:
        """Segment an (H, W, 3) picture; ValueError if the settings or the words cannot be used."""
        vocabulary = read_words(words, background)
        _check_size(image, vocabulary)
        return self._with(vocabulary, method)(image, vocabulary)

    def explain(self, image: np.ndarray, words: str, background: str, method: str) -> str:
        """Return the page that explains what a method does with an (H, W, 3) picture; a large one is made smaller."""
        vocabulary = read_words(words, background)
        copy = reduced(image, EXPLAINED_PIXELS)
        _check_size(copy, vocabulary)
        segmenter = self._with(vocabulary, method)
        explanation = examine(segmenter, copy, vocabulary)
        pictures = save_all(draw(explanation, PLOTS))
        facts = facts_of(segmenter, explanation)
        if copy is not image:
            facts["Picture"] += f" (a smaller copy: the picture has {image.shape[1]} x {image.shape[0]} pixels)"
        return build_page(explanation, pictures, f"What {explanation.methods[1]} does with the picture", facts)

    def _with(self, vocabulary: Vocabulary, method: str) -> OpenVocabSegmenter:
        """A method's segmenter, built at its first use: without a cache on disk that calibrates."""
        if method not in methods():
            raise ValueError(f"method is one of {', '.join(methods())}, got {method!r}")
        key = (method, vocabulary.background)
        with self._lock:
            if key not in self._built:
                threshold = THRESHOLD if vocabulary.has_background else 0.0
                self._built[key] = self._segmenter.changed(method_block(method), threshold, vocabulary.background)
            return self._built[key]


def reduced(image: np.ndarray, pixels: int) -> np.ndarray:
    """An (H, W, 3) uint8 picture with about so many pixels at most; itself if it has no more."""
    height, width = image.shape[:2]
    scale = (pixels / (height * width)) ** 0.5
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def _check_size(image: np.ndarray, vocabulary: Vocabulary) -> None:
    height, width = image.shape[:2]
    if height * width * len(vocabulary.names) > MOST_VALUES:
        raise ValueError(
            f"{len(vocabulary.names)} classes on {width} x {height} pixels need too much memory for this page: "
            "name fewer, take a smaller picture, or use rfclip segment"
        )


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
        raise ValueError("the page reads no vocabulary files: type the words, or use rfclip segment")
    if background not in BACKGROUNDS:
        raise ValueError(f"background is one of {', '.join(BACKGROUNDS)}, got {background!r}")
    typed = load_vocabulary(words if words in shipped_vocabularies() else parse_classes(words))
    if words not in shipped_vocabularies() and len(typed.queries) > MOST_NAMES:
        raise ValueError(f"these are {len(typed.queries)} names, and the page takes {MOST_NAMES}: name fewer things")
    return with_background(typed, background)


def read_upload(path: str | Path | None) -> tuple[np.ndarray, str]:
    """Return an uploaded picture as (H, W, 3) uint8 RGB, and a line that says what it is.

    Raises:
        ValueError: it is too large, or no picture. The sentence does not tell where on this machine it lies.
    """
    if path is None:
        raise ValueError("choose a picture first: drop one on the page, or take a sample")
    path = Path(path)
    try:
        _check_file(path)
        (image, clauses), frames = read_with_notes(path), _frames(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, ValueError) and str(error).startswith(path.name):
            raise
        raise ValueError(f"{path.name} cannot be read as a picture: take a PNG, JPEG, WebP, GIF or TIFF") from error
    note = f", the first of {frames} frames" if frames > 1 else ""
    note += "".join(f"; {clause}" for clause in clauses)
    return image, f"{path.name}: {image.shape[1]} x {image.shape[0]} pixels{note}"


def _check_file(path: Path) -> None:
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path.name} is larger than {MOST_BYTES // 10**6} MB: make a smaller copy")
    height, width = image_size(path)
    if width * height > MOST_PIXELS:
        raise ValueError(
            f"{path.name} has {width} x {height} pixels, and the page takes {MOST_PIXELS // 10**6} million: "
            "make a smaller copy, or use rfclip segment"
        )


def _frames(path: Path) -> int:
    try:
        return frame_count(path)
    except (OSError, EOFError, ValueError, SyntaxError):  # only its later frames are bad
        return 1


def thumbnail(image: np.ndarray) -> np.ndarray:
    """A small copy of an (H, W, 3) uint8 picture; one that is too slim to be seen becomes wider."""
    longest = max(image.shape[:2])
    scale = min(1.0, PREVIEW_SIDE / longest)
    width, height = (max(round(side * scale), round(longest * scale / 16), 1) for side in image.shape[1::-1])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def sample(name: str) -> np.ndarray:
    """Return a sample picture (H, W, 3); ValueError if there is none of that name."""
    if name not in SAMPLES:
        raise ValueError(f"no sample {name!r}; there are {', '.join(SAMPLES)}")
    return np.asarray(SAMPLES[name][0]())
