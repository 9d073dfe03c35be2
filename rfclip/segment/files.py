"""Segment files: one result per picture, and a picture that cannot be read does not stop the others."""

from __future__ import annotations

import csv
import dataclasses
import errno
import io
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from rfclip.checks import is_out_of_memory
from rfclip.io.fonts import printable
from rfclip.io.images import sentence
from rfclip.io.paths import without_paths
from rfclip.methods.base import describe as describe_method
from rfclip.segment.api import OpenVocabSegmenter
from rfclip.segment.find import Frame, Picture, count_frames, read_frames
from rfclip.segment.names import source_of
from rfclip.segment.overlay import OPACITY
from rfclip.version import __version__
from rfclip.words.vocabulary import Vocabulary

Say = Callable[[str], object]
TABLE = "summary.csv"
# errors that come of the name of one result, so that the next picture may do better
_NAME_ERRORS = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ENOTDIR, errno.EEXIST, errno.EISDIR}


@dataclass(frozen=True)
class Outcome:
    """What became of a list of pictures.

    Attributes:
        done: Number of images and video frames with a result.
        problems: A sentence for each picture that gave none.
    """

    done: int
    problems: tuple[str, ...]


def prepare_folder(out: str | Path) -> None:
    """Make the folder of the results, and see that something can be written there.

    Raises:
        OSError: It cannot; the sentence names the folder.
    """
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        reason = "a file stands there" if error.errno == errno.EEXIST else str(error.strerror or error).lower()
        raise OSError(f"no results can be written to {out}: {reason}; give another --out") from error


def segment_files(
    segmenter: OpenVocabSegmenter,
    vocabulary: Vocabulary,
    pictures: Sequence[Picture],
    out: str | Path,
    *,
    probs: bool = False,
    every: int = 1,
    bands: Sequence[int] | None = None,
    opacity: float = OPACITY,
    settings: dict[str, Any] | None = None,
    say: Say = tqdm.write,
    warn: Say = tqdm.write,
) -> Outcome:
    """Segment images and videos, and write NAME_labels.png, NAME_overlay.png and NAME.json for each image or frame.

    Of more than one, summary.csv lists the share of each class in each of them; it is written anew by each run.

    Args:
        segmenter: The model.
        vocabulary: The classes.
        pictures: From :func:`rfclip.segment.find.find_pictures`.
        out: Folder of the results.
        probs: Also write NAME_probs.npz; the segmenter must keep them.
        every: Of a video, each so-many-th frame.
        bands: Which bands, counted from 1, are red, green and blue; None: see :func:`rfclip.io.images.read_image`.
        opacity: Share of the labels' colours in the overlays, 0..1.
        settings: Further entries of the JSON's `settings`.
        say: Takes a line per result.
        warn: Takes a line per problem.

    Raises:
        OSError: Results cannot be written, because the disk is full, say; what is finished stays.
    """
    done, problems = 0, []
    prepare_folder(out)
    expected = [count_frames(one, every) for one in pictures]
    writer = _Writer(segmenter, vocabulary, Path(out), probs, opacity, settings or {})
    if segmenter.loaded.note is not None:
        say(segmenter.loaded.note)
    with _table(Path(out), sum(expected) > 1) as table, tqdm(total=sum(expected), unit="image", disable=None) as bar:
        for picture, frames in zip(pictures, expected, strict=True):
            end = bar.n + frames
            try:
                for frame, seconds in _timed(picture, every, bands):
                    lines, rows = writer.write(picture, frame, seconds)
                    csv.writer(table).writerows(rows)
                    done += 1
                    bar.update()
                    for line in lines:
                        say(printable(line))
            except (_UnreadableError, MemoryError, RuntimeError, OSError) as error:
                problems.append(_sentence(picture, error, done))
                warn(printable(problems[-1]))
            bar.update(max(0, end - bar.n))  # also for what could not be read
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
        opacity: float,
        settings: dict[str, Any],
    ) -> None:
        started = time.perf_counter()
        segmenter.prepare(vocabulary)
        self.words_seconds = time.perf_counter() - started
        self.segmenter, self.vocabulary, self.out = segmenter, vocabulary, out
        self.probs, self.opacity = probs, opacity
        self.settings = {**describe(segmenter), "words": vocabulary.names, **settings}

    def write(self, picture: Picture, frame: Frame, read_seconds: float) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Returns the lines that report the result, and the rows of the table: picture, result, class, share."""
        started = time.perf_counter()
        result = self.segmenter(frame.image, self.vocabulary)
        seconds = {
            "read": round(read_seconds, 4),
            "words": round(self.words_seconds, 4),  # once for all pictures
            "segment": round(time.perf_counter() - started, 4),
        }
        target = self.out / frame.name
        note = sentence(str(picture.path), [*frame.notes, *result.notes])
        facts = {
            "image": str(picture.path),
            "source": source_of(picture.path, target.parent),
            "note": " ".join(filter(None, [note, self.segmenter.loaded.note])) or None,
            "seconds": seconds,
            "settings": self.settings,
        }
        result.save(target.parent, target.name, self.probs, facts, self.opacity)
        lines = [f"{target}_overlay.png: {result.summary()}", *filter(None, [note])]
        return lines, [(picture.path, frame.name, *entry) for entry in result.shares().items()]


def describe(segmenter: OpenVocabSegmenter) -> dict[str, Any]:
    """The settings of a segmenter that its results hang on, for a JSON file; paths are cut to their last part."""
    loaded, settings = segmenter.loaded, dataclasses.asdict(segmenter.settings)
    del settings["keep_probs"]
    if segmenter.settings.refiner is not None:
        settings["refiner"] = {"type": type(segmenter.settings.refiner).__name__, **settings["refiner"]}
    return without_paths(
        {
            "version": __version__,
            "model": loaded.architecture,
            "origin": loaded.origin,
            "weights_sha256": loaded.weights_hash,
            "device": str(segmenter.device),
            "precision": segmenter.engine.precision,
            "method": describe_method(segmenter.method),
            "templates": len(segmenter.engine.templates),
            "short_side": segmenter.short_side,
            **settings,
        }
    )


def _timed(picture: Picture, every: int, bands: Sequence[int] | None) -> Any:
    """Frames with the seconds that reading each took; errors of reading become :class:`_UnreadableError`."""
    frames = read_frames(picture, every, bands)
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


def _table(out: Path, wanted: bool) -> Any:
    """An open file for the table, with its head."""
    if not wanted:
        return io.StringIO()
    file = (out / TABLE).open("w", encoding="utf-8", errors="backslashreplace", newline="")
    csv.writer(file).writerow(["file", "result", "class", "share"])
    return file


def _sentence(picture: Picture, error: Exception, done: int) -> str:
    """What to say of an error that concerns this picture alone; any other is raised."""
    if isinstance(error, _UnreadableError):
        return str(error)
    if isinstance(error, OSError):
        if error.errno in _NAME_ERRORS:
            return f"{picture.path}: its result cannot be written: {error}"
        raise OSError(f"{picture.path}: its result cannot be written: {error}; results finished: {done}") from error
    if is_out_of_memory(error):
        return f"{picture.path}: not enough memory for a picture of this size; make a smaller copy"
    raise error
