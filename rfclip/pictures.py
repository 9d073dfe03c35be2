"""Pictures on disk: finding them, naming their results, and reading videos frame by frame."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from rfclip.images import frame_count, read_image

IMAGES = {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"}
IMAGES |= {".tif", ".tiff", ".webp"}
VIDEOS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}
ENDINGS = ("_labels.png", "_overlay.png", ".json", "_probs.npz")  # of the files that a result consists of


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
        return self.path.suffix.lower() in VIDEOS


@dataclass(frozen=True, eq=False)
class Frame:
    """One image to segment.

    Attributes:
        name: Of its result, as in :class:`Picture`.
        image: (H, W, 3) uint8 RGB.
        note: Something the user should know about it, or None.
    """

    name: str
    image: np.ndarray
    note: str | None = None


def find_pictures(sources: Sequence[str | Path], out: str | Path) -> tuple[list[Picture], list[str]]:
    """List the pictures of files and folders; none twice, and no two results of one name.

    Folders are searched with all folders in them, in alphabetical order, for the endings of images and videos; hidden
    files and the output folder are left out. Pictures that would share a result name get their endings added
    ("photo_png" and "photo_jpg"); so does one whose result would overwrite a picture, or the result of another one.
    Where that does not help, a number follows.

    Args:
        sources: Files and folders.
        out: Where results go.

    Returns:
        The pictures, and a sentence for each source that is no file and no folder with pictures.

    Raises:
        ValueError: A folder of pictures is the output folder.
    """
    found: dict[Path, tuple[Path, str]] = {}  # resolved path: path as given, wanted name
    problems = []
    for source in map(Path, sources):
        wanted = _in_folder(source, Path(out)) if source.is_dir() else [(source, source.stem)]
        if not wanted:
            problems.append(f"{source}: no picture in this folder")
        elif not source.exists():
            problems.append(f"{source}: no such file or folder")
        else:
            for path, name in wanted:
                found.setdefault(path.resolve(), (path, name))
    names = _Names(Path(out), inputs=set(found))
    counts = Counter(wanted.casefold() for _, wanted in found.values())
    return [names.name(path, wanted, counts[wanted.casefold()] > 1) for path, wanted in found.values()], problems


def count_frames(picture: Picture, every: int = 1) -> int:
    """How many frames :func:`read_frames` will give; of a video, as many as its header announces."""
    if not picture.is_video:
        return 1
    video = cv2.VideoCapture(str(picture.path))
    frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
    video.release()
    return max(1, -(-frames // every))


def read_frames(picture: Picture, every: int = 1) -> Iterator[Frame]:
    """Read an image, or each ``every``-th frame of a video.

    Raises:
        FileNotFoundError, ValueError: It is not there, or cannot be read.
    """
    if not picture.is_video:
        image = read_image(picture.path)
        yield Frame(picture.name, image, _note(picture.path))
        return
    video = cv2.VideoCapture(str(picture.path))
    try:
        number = 0
        while video.grab():
            if number % every == 0:
                intact, image = video.retrieve()
                if intact:
                    name = f"{picture.name}/frame_{number:06d}"
                    yield Frame(name, np.ascontiguousarray(image[..., ::-1]))
            number += 1
    finally:
        video.release()
    if number == 0:
        raise ValueError(f"{str(picture.path)!r} cannot be read as a video")


class _Names:
    """Gives each picture a result name that no other has."""

    def __init__(self, out: Path, inputs: set[Path]) -> None:
        self.out = out
        self.inputs = inputs
        self.images: set[str] = set()
        self.videos: set[str] = set()

    def name(self, path: Path, wanted: str, shared: bool) -> Picture:
        """Take the first name that is free; `shared`: another picture wants the same."""
        longer = wanted + path.suffix.lower().replace(".", "_")
        candidates = chain([] if shared else [wanted], [longer], (f"{longer}-{n}" for n in count(2)))
        picture = next(one for one in (Picture(path, name) for name in candidates) if not self._taken(one))
        (self.videos if picture.is_video else self.images).add(picture.name.casefold())
        return picture

    def _taken(self, picture: Picture) -> bool:
        key = picture.name.casefold()  # some file systems take no notice of case
        if key in self.images or key in self.videos:
            return True
        if picture.is_video:
            return any(name.startswith(f"{key}/") for name in self.images)
        if any(key.startswith(f"{name}/") for name in self.videos):
            return True
        files = [Path(f"{self.out / picture.name}{ending}") for ending in ENDINGS]
        return any(file.resolve() in self.inputs for file in files) or _of_another(files[2], picture.path)


def _in_folder(folder: Path, out: Path) -> list[tuple[Path, str]]:
    """The pictures below a folder, with their paths in it, less the ending, as wanted names."""
    if folder.resolve() == out.resolve():
        raise ValueError(
            f"{out} is the folder of the pictures: the results would be taken for pictures the next time; "
            "give another --out"
        )
    found = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if hidden or path.suffix.lower() not in IMAGES | VIDEOS or path.is_dir():
            continue
        if out.resolve() not in path.resolve().parents:
            found.append((path, inside.with_suffix("").as_posix()))
    return found


def _of_another(facts: Path, path: Path) -> bool:
    """Whether a result's JSON is there that belongs to another picture."""
    try:
        return json.loads(facts.read_text(encoding="utf-8"))["image"] != str(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError, KeyError, TypeError):
        return True


def _note(path: Path) -> str | None:
    """A sentence about an image file that holds several images."""
    try:
        frames = frame_count(path)
    except (OSError, EOFError, ValueError, SyntaxError, Image.DecompressionBombError):  # only its later frames are bad
        return None
    return f"{path} holds {frames} images; the first one was taken" if frames > 1 else None
