"""Segment files: one result per picture, and a picture that cannot be read does not stop the others."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from rfclip.api import OpenVocabSegmenter, Segmentation
from rfclip.manifest import without_paths
from rfclip.pictures import Frame, Picture, count_frames, read_frames
from rfclip.version import __version__
from rfclip.vocabulary import Vocabulary

Say = Callable[[str], object]


@dataclass(frozen=True)
class Outcome:
    """What became of a list of pictures.

    Attributes:
        done: Number of images and video frames with a result.
        problems: A sentence for each picture that gave none.
    """

    done: int
    problems: tuple[str, ...]


def segment_files(
    segmenter: OpenVocabSegmenter,
    vocabulary: Vocabulary,
    pictures: Sequence[Picture],
    out: str | Path,
    *,
    probs: bool = False,
    every: int = 1,
    settings: dict[str, Any] | None = None,
    say: Say = tqdm.write,
    warn: Say = tqdm.write,
) -> Outcome:
    """Segment images and videos, and write NAME_labels.png, NAME_overlay.png and NAME.json for each image or frame.

    Args:
        segmenter: The model.
        vocabulary: The classes.
        pictures: From :func:`rfclip.pictures.find_pictures`.
        out: Folder of the results.
        probs: Also write NAME_probs.npz; the segmenter must keep them.
        every: Of a video, each so-many-th frame.
        settings: Further entries of the JSON's `settings`.
        say: Takes a line per result.
        warn: Takes a line per problem.

    Raises:
        OSError: A result cannot be written; what is finished stays.
    """
    done, problems = 0, []
    writer = _Writer(segmenter, vocabulary, Path(out), probs, settings or {})
    with tqdm(total=sum(count_frames(one, every) for one in pictures), unit="image", disable=None) as bar:
        for picture in pictures:
            try:
                for frame, seconds in _timed(picture, every):
                    say(writer.write(picture, frame, seconds))
                    done += 1
                    bar.update()
            except (_UnreadableError, MemoryError, torch.OutOfMemoryError) as error:
                problems.append(_sentence(picture, error))
                warn(problems[-1])
    return Outcome(done, tuple(problems))


class _UnreadableError(Exception):
    """A picture cannot be read; the sentence says why."""


class _Writer:
    """Segments frames and writes their results."""

    def __init__(
        self,
        segmenter: OpenVocabSegmenter,
        vocabulary: Vocabulary,
        out: Path,
        probs: bool,
        settings: dict[str, Any],
    ) -> None:
        started = time.perf_counter()
        segmenter.prepare(vocabulary)
        self.words_seconds = time.perf_counter() - started
        self.segmenter, self.vocabulary, self.out, self.probs = segmenter, vocabulary, out, probs
        self.settings = {**describe(segmenter), "words": vocabulary.names, **settings}

    def write(self, picture: Picture, frame: Frame, read_seconds: float) -> str:
        """Returns the line that reports the result."""
        started = time.perf_counter()
        result = self.segmenter(frame.image, self.vocabulary)
        seconds = {
            "read": round(read_seconds, 4),
            "words": round(self.words_seconds, 4),  # once for all pictures
            "segment": round(time.perf_counter() - started, 4),
        }
        target = self.out / frame.name
        facts = {"image": str(picture.path), "note": frame.note, "seconds": seconds, "settings": self.settings}
        result.save(target.parent, target.name, self.probs, facts)
        return "\n".join(filter(None, [f"{target}_overlay.png: {summary(result)}", frame.note]))


def describe(segmenter: OpenVocabSegmenter) -> dict[str, Any]:
    """The settings of a segmenter that its results hang on, for a JSON file; paths are cut to their last part."""
    loaded, settings = segmenter.loaded, dataclasses.asdict(segmenter.settings)
    del settings["keep_probs"]
    return without_paths(
        {
            "version": __version__,
            "model": loaded.architecture,
            "origin": loaded.origin,
            "weights_sha256": loaded.weights_hash,
            "device": str(segmenter.device),
            "precision": segmenter.precision,
            "method": {"type": type(segmenter.method).__name__, **dataclasses.asdict(segmenter.method)},
            "templates": len(segmenter.templates),
            "short_side": segmenter.short_side,
            **settings,
        }
    )


def summary(result: Segmentation, most: int = 5) -> str:
    """The classes with the largest areas, at most `most`, e.g. "sky 41.0 %, tree 30.2 %"."""
    ranked = sorted(result.shares().items(), key=lambda entry: -entry[1])
    return ", ".join(f"{name} {100 * share:.1f} %" for name, share in ranked[:most] if share > 0)


def _timed(picture: Picture, every: int) -> Any:
    """Frames with the seconds that reading each took; errors of reading become :class:`_UnreadableError`."""
    frames = read_frames(picture, every)
    while True:
        started = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large, and below the limit
                frame = next(frames, None)
        except (OSError, ValueError) as error:
            raise _UnreadableError(str(error)) from error
        if frame is None:
            return
        yield frame, time.perf_counter() - started


def _sentence(picture: Picture, error: BaseException) -> str:
    if isinstance(error, _UnreadableError):
        return str(error)
    return f"{picture.path}: not enough memory for a picture of this size; make a smaller copy"
