"""Pictures on disk: finding them in files and folders, and reading them, videos frame by frame."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rfclip.io import videos
from rfclip.io.formats import SUFFIXES
from rfclip.io.images import frame_count, read_image, read_with_notes, sentence
from rfclip.segment.names import ResultNames, is_result, resolved

VIDEOS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}
# kinds of files that nobody expects to be segmented, so that leaving them out needs no word
UNRELATED = {"", ".csv", ".db", ".htm", ".html", ".ini", ".ipynb", ".json", ".jsonl", ".log", ".md", ".npy", ".npz"}
UNRELATED |= {".pdf", ".pkl", ".pt", ".pth", ".py", ".rst", ".safetensors", ".sh", ".tsv", ".txt", ".xml", ".yaml"}
UNRELATED |= {".yml", ".zip"}


@dataclass(frozen=True)
class Picture:
    """An image file or a video.

    Attributes:
        path: Where it is.
        name: Of its results: a path below the output folder, without ending, parts joined by '/'.
    """

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        """Whether it is read frame by frame; by the ending of its name."""
        return _is_video(self.path)


@dataclass(frozen=True, eq=False)
class Frame:
    """One image to segment.

    Attributes:
        name: Of its result, as in :class:`Picture`.
        image: (H, W, 3) uint8 RGB.
        path: Of the file.
        notes: Clauses on what the user should know about it.
    """

    name: str
    image: np.ndarray
    path: Path
    notes: tuple[str, ...] = ()

    @property
    def note(self) -> str | None:
        """The clauses as a sentence about the file, or None."""
        return sentence(str(self.path), self.notes)


class Found(NamedTuple):
    """What a search gave.

    Attributes:
        pictures: None twice, and no two results of one name.
        problems: A sentence for each source that is no file and no folder with pictures.
        notes: A sentence for each folder in which something was left out.
    """

    pictures: list[Picture]
    problems: list[str]
    notes: list[str]


def find_pictures(sources: Sequence[str | Path], out: str | Path) -> Found:
    """List the pictures of files and folders.

    Folders are searched with all folders in them, in alphabetical order, for the endings of images and videos; hidden
    files, earlier results and, if it lies in the folder, the output folder are left out; links to folders are not
    followed. Pictures that would share a result name get their endings added ("photo_png" and "photo_jpg"); so does
    one whose result would overwrite a picture, or the result of another one. Where that does not help, a number
    follows.

    Args:
        sources: Files and folders.
        out: Where results go.

    Raises:
        ValueError: A folder of pictures is the output folder.
    """
    found: dict[Path, tuple[Path, str]] = {}  # resolved path: path as given, wanted name
    problems: list[str] = []
    notes: list[str] = []
    for source in map(Path, sources):
        try:
            wanted = _in_folder(source, Path(out), problems, notes) if source.is_dir() else _alone(source)
        except OSError as error:
            wanted = []
            problems.append(_sentence(error))
        for path, name in wanted:
            found.setdefault(resolved(path), (path, name))
    names = ResultNames(Path(out), inputs=set(found))
    counts = Counter(wanted.casefold() for _, wanted in found.values())
    pictures = [
        Picture(path, names.name(path, wanted, counts[wanted.casefold()] > 1, _is_video(path)))
        for path, wanted in found.values()
    ]
    return Found(pictures, problems, notes)


def count_frames(picture: Picture, every: int = 1) -> int:
    """How many frames :func:`read_frames` will give; of a video, as many as its header announces."""
    return max(1, -(-videos.count_frames(picture.path) // every)) if picture.is_video else 1


def read_frames(picture: Picture, every: int = 1, bands: Sequence[int] | None = None) -> Iterator[Frame]:
    """Read an image, or each ``every``-th frame of a video.

    Args:
        picture: What to read.
        every: Of a video, each so-many-th frame.
        bands: As :func:`rfclip.io.images.read_image` takes them.

    Raises:
        FileNotFoundError, ValueError: It is not there, or cannot be read; of a video perhaps only after some frames.
    """
    if picture.is_video:
        for number, image in videos.read_frames(picture.path, every):
            yield Frame(f"{picture.name}/frame_{number:06d}", read_image(image, bands), picture.path)
        return
    image, clauses = read_with_notes(picture.path, bands)
    yield Frame(picture.name, image, picture.path, (*_held(picture.path), *clauses))


def _alone(path: Path) -> list[tuple[Path, str]]:
    """A file as given, with its wanted name."""
    path.stat()  # says why if it is not there
    return [(path, path.stem if path.stem.strip(".") else path.name)]


def _in_folder(folder: Path, out: Path, problems: list[str], notes: list[str]) -> list[tuple[Path, str]]:
    """The pictures below a folder, with their paths in it, less the ending, as wanted names."""
    if resolved(folder) == resolved(out):
        raise ValueError(
            f"{out} is the folder of the pictures: the results would be taken for pictures the next time; "
            "give another --out"
        )
    files, links = _files(folder, resolved(out), problems)
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES | VIDEOS]
    others = Counter(path.suffix.lower() for path in files)
    for known in SUFFIXES | VIDEOS | UNRELATED:
        del others[known]
    found = [path for path in pictures if not is_result(path)]
    kinds = ", ".join(sorted(others))
    counts = {
        (f"file of a kind that is not read ({kinds})", f"files of kinds that are not read ({kinds})"): others.total(),
        ("link to a folder", "links to folders"): links,
        ("result of an earlier run", "results of an earlier run"): len(pictures) - len(found),
    }
    left_out = ", ".join(f"{count} {one if count == 1 else more}" for (one, more), count in counts.items() if count)
    if left_out:
        cure = "; pictures of other kinds are read once they are saved as JPEG or PNG" if others.total() else ""
        notes.append(f"{folder}: left out {left_out}{cure}")
    if not found:
        problems.append(f"{folder}: no picture in this folder")
    return [(path, path.relative_to(folder).with_suffix("").as_posix()) for path in found]


def _files(folder: Path, out: Path, problems: list[str]) -> tuple[list[Path], int]:
    """All files below a folder but for hidden ones and the output folder, sorted; and the number of links to folders.

    A folder that cannot be opened is a problem.
    """
    files, links = [], 0
    for place, folders, names in os.walk(folder, onerror=lambda error: problems.append(_sentence(error))):
        folders[:] = [name for name in folders if not name.startswith(".") and resolved(Path(place, name)) != out]
        links += sum(Path(place, name).is_symlink() for name in folders)
        files += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(files), links


def _sentence(error: OSError) -> str:
    return f"{error.filename}: {(error.strerror or str(error)).lower()}"


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS


def _held(path: Path) -> list[str]:
    """A clause about an image file that holds several images."""
    try:
        frames = frame_count(path)
    except ValueError:  # only its later frames are bad
        return []
    return [f"holds {frames} images; the first one was taken"] if frames > 1 else []
