"""Names of results: no two pictures share one, and none overwrites a picture or the result of another one."""

from __future__ import annotations

import hashlib
import json
import os
import re
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

ENDINGS = ("_labels.png", "_overlay.png", ".json", "_probs.npz")  # of the files that a result consists of
FIRST_FRAME = "frame_000000"
_KEYS = {"size", "names", "colours", "shares"}  # of a result's JSON
_MARK = re.compile(r'<meta name="rfclip-picture" content="([0-9a-f]+)">')  # of a page that explains a picture
_HEAD = 2000  # characters of a page in which it stands
_BYTES = 240  # of a part of a name: file systems take 255, and the endings need some


class ResultNames:
    """Gives each picture a result name that no other has.

    Args:
        out: Folder of the results.
        inputs: All pictures, resolved.
    """

    def __init__(self, out: Path, inputs: set[Path]) -> None:
        self.out = out
        self.inputs = inputs
        self.images: set[str] = set()
        self.videos: set[str] = set()

    def name(self, path: Path, wanted: str, shared: bool, is_video: bool) -> str:
        """Take the first name that is free; `shared`: another picture wants the same."""
        longer = wanted + path.suffix.lower().replace(".", "_")
        candidates = chain([] if shared else [wanted], [longer], (f"{longer}-{n}" for n in count(2)))
        name = next(one for one in map(_fitting, candidates) if not self._taken(path, one, is_video))
        (self.videos if is_video else self.images).add(name.casefold())
        return name

    def _taken(self, path: Path, name: str, is_video: bool) -> bool:
        key = name.casefold()  # some file systems take no notice of case
        if key in self.images or key in self.videos:
            return True
        if is_video:
            if any(image.startswith(f"{key}/") for image in self.images):
                return True
            return _of_another(self.out / name / FIRST_FRAME, path)
        if any(key.startswith(f"{video}/") for video in self.videos):
            return True
        files = [Path(f"{self.out / name}{ending}") for ending in ENDINGS]
        return any(resolved(file) in self.inputs for file in files) or _of_another(self.out / name, path)


def free_name(folder: Path, path: Path | None, source: str) -> str:
    """A name for the results of a picture, in a folder: that of its file, or "image", and free or its own.

    Args:
        folder: Of the results.
        path: The picture's file, if it has one.
        source: What is in the result's JSON under that name, see :func:`known_as`.
    """
    if path is not None:
        return ResultNames(folder, {resolved(path)}).name(path, path.stem.strip(".") or "image", False, False)
    names = chain(["image"], (f"image-{number}" for number in count(2)))
    return next(
        name
        for name in names
        if _is_free(folder / f"{name}.json", source) and not _page_of_another(folder / f"{name}.html", source)
    )


def _is_free(file: Path, source: str) -> bool:
    """Whether no results lie there, or those of this source, or what an interrupted run left."""
    if not os.path.lexists(file):
        return True
    facts = _facts(file)
    return facts is not None and facts.get("source") == source


def source_of(path: Path, folder: Path) -> str:
    """A picture's path seen from the folder of its result, so that it is found again wherever one stands."""
    try:
        return Path(os.path.relpath(resolved(path), resolved(folder))).as_posix()
    except ValueError:  # on another drive
        return resolved(path).as_posix()


def known_as(path: Path | None, image: np.ndarray, folder: Path) -> str:
    """By what a folder's results know their picture (H, W, 3): its path, or its pixels if it has none."""
    if path is not None:
        return source_of(path, folder)
    digest = hashlib.sha256(f"{image.shape}".encode() + image.tobytes())
    return f"pixels of sha256 {digest.hexdigest()[:16]}"


def mark_of(source: str) -> str:
    """What stands for a picture in the page that explains it; of :func:`known_as`, without telling the path."""
    return hashlib.sha256(source.encode(errors="surrogateescape")).hexdigest()[:16]


def _page_of_another(page: Path, source: str) -> bool:
    """Whether a page of this name explains another picture; one without a mark is taken for none."""
    try:
        with page.open(encoding="utf-8", errors="replace") as file:
            found = _MARK.search(file.read(_HEAD))
    except OSError:
        return False
    return found is not None and found[1] != mark_of(source)


def is_result(path: Path) -> bool:
    """Whether a PNG is labels or an overlay: beside it lies a JSON that says so."""
    for ending in ENDINGS[:2]:
        if path.name.endswith(ending):
            return set(_facts(path.with_name(path.name.removesuffix(ending) + ".json")) or ()) >= _KEYS
    return False


def resolved(path: Path) -> Path:
    """The path without links; one that goes in circles stays as it is, where Path.resolve may raise."""
    return Path(os.path.realpath(path))


def _of_another(target: Path, path: Path) -> bool:
    """Whether there is a JSON, or a page, of this result name that does not belong to the picture.

    A JSON that cannot be read is what an interrupted run left, if labels lie beside it.
    """
    if _page_of_another(Path(f"{target}.html"), source_of(path, target.parent)):
        return True
    file = Path(f"{target}.json")
    if not os.path.lexists(file):
        return False
    facts = _facts(file)
    if facts is None:
        return not Path(f"{target}{ENDINGS[0]}").exists()
    if "source" in facts:
        return resolved(file.parent / str(facts["source"])) != resolved(path)
    return "image" not in facts or resolved(Path(str(facts["image"]))) != resolved(path)  # an early result


def _facts(file: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if it cannot be read."""
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else {}


def _fitting(name: str) -> str:
    """The name with parts that are too long for a file system cut, and told apart by a hash."""
    return "/".join(map(_cut, name.split("/")))


def _cut(part: str) -> str:
    if len(os.fsencode(part)) <= _BYTES:
        return part
    mark = "~" + hashlib.sha256(os.fsencode(part)).hexdigest()[:8]
    while len(os.fsencode(part + mark)) > _BYTES:
        part = part[:-1]
    return part + mark
