"""Label maps to label maps by a look-up table: what the converters share.

An output file is written under another name and then renamed, so that it is whole or not there; outputs that are
there already are kept, so a conversion that was interrupted goes on.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

NO_LABEL = -1  # in a table: this value must not occur
STALE = 600  # seconds after which a file under construction belongs to a run that was killed
# What the readers raise for damaged files
READ_ERRORS: tuple[type[Exception], ...] = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError),
    *(MemoryError, Image.DecompressionBombError),
)
KILLED = "the process that read it was killed: too little memory, or the file crashes the reader; copy it again"
Reader = Callable[[Path], np.ndarray]


@dataclass(frozen=True, eq=False)
class Job:
    """One file to convert.

    Attributes:
        source: Label map to read.
        target: PNG to write.
        table: int array; the value v becomes table[v]. NO_LABEL: v must not occur.
        expected: In words, what values `source` should hold; for the error.
    """

    source: Path
    target: Path
    table: np.ndarray
    expected: str


def table_of(pairs: Iterable[tuple[int, int]], size: int = 256, default: int = NO_LABEL) -> np.ndarray:
    """A look-up table of `size` entries from (value, label) pairs; other values become `default`."""
    table = np.full(size, default, np.int64)
    for value, label in pairs:
        table[value] = label
    return table


def look_up(labels: np.ndarray, table: np.ndarray, expected: str = "") -> np.ndarray:
    """Replace each value (H, W) by its entry in the table; uint8.

    Raises:
        ValueError: A value has no entry.
    """
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        raise ValueError(f"is no label map: expected one whole number per pixel, got {labels.shape} {labels.dtype}")
    values = np.unique(labels)
    strange = [int(value) for value in values if not 0 <= value < len(table) or table[value] == NO_LABEL]
    if strange:
        raise ValueError(f"holds the values {strange[:5]}; expected {expected}")
    return table[labels].astype(np.uint8)


def read_png(path: Path) -> np.ndarray:
    """The values of a label map; of a palette image, its indices."""
    with Image.open(path, formats=["PNG"]) as image:
        return np.array(image)


def convert(job: Job, read: Reader = read_png) -> str | None:
    """Convert one file unless its result is there; returns None, or a sentence about what went wrong."""
    try:
        if is_whole(job.target):
            return None
        labels = look_up(read(job.source), job.table, job.expected)
    except READ_ERRORS as error:
        return f"{job.source}: {error or type(error).__name__}"
    save(labels, job.target)
    return None


def save(labels: np.ndarray, target: Path) -> None:
    """Write a PNG so that it is whole or not there."""
    _write(target, lambda part: Image.fromarray(labels).save(part, format="PNG"))


def _write(target: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write beside the target under another name, then rename that."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        write(part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def is_whole(path: Path) -> bool:
    """Whether a PNG is there to its end: its checksums are right. Something else's half file is not."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.verify()
    except READ_ERRORS:
        return False
    return path.read_bytes()[-8:-4] == b"IEND"


def run(jobs: Sequence[Job], out: Path, workers: int, read: Reader = read_png) -> list[Job]:
    """Convert all files, with a progress bar, and say which could not be.

    Args:
        jobs: What to do.
        out: Folder that every target must be in.
        workers: Processes.
        read: Reads a source.

    Returns:
        The jobs whose label map is there now.

    Raises:
        ValueError: A target is not inside `out`.
        OSError: A file cannot be written.
    """
    for folder in sorted({job.target.parent for job in jobs}):
        inside(folder, out).mkdir(parents=True, exist_ok=True)
        for part in folder.glob(".*.part"):
            if time.time() - part.stat().st_mtime > STALE:
                part.unlink(missing_ok=True)
    work = partial(convert, read=read)
    results = _in_processes(work, jobs, workers) if workers > 1 and len(jobs) > 1 else map(work, jobs)
    problems = list(tqdm(results, total=len(jobs), unit="image", disable=None))
    for problem in filter(None, problems):
        print(f"error: {problem}", file=sys.stderr)
    done = [job for job, problem in zip(jobs, problems, strict=True) if problem is None]
    print(f"{len(done)} of {len(jobs)} label maps are in {out}")
    return done


def status(done: Sequence[Job], jobs: Sequence[Job]) -> int:
    """The exit status of a script: 0 if everything was done."""
    return 0 if len(done) == len(jobs) else 1


def _in_processes(work: Callable[[Job], str | None], jobs: Sequence[Job], workers: int) -> Iterator[str | None]:
    """The results in order. Where a process is killed, one process goes on, so that it shows with which file."""
    done = 0
    while done < len(jobs):
        try:
            with ProcessPoolExecutor(workers) as pool:
                chunk = max(1, min(64, (len(jobs) - done) // (4 * workers))) if workers > 1 else 1
                for result in pool.map(work, jobs[done:], chunksize=chunk):
                    yield result
                    done += 1
        except BrokenProcessPool:
            if workers == 1:
                yield f"{jobs[done].source}: {KILLED}"
                done += 1
            workers = 1


def inside(folder: Path, out: Path) -> Path:
    """The folder, if it lies in `out`, links followed.

    Raises:
        ValueError: It does not.
    """
    if not folder.resolve().is_relative_to(out.resolve()):
        raise ValueError(
            f"{folder} leads out of {out}, to {folder.resolve()}: nothing is written there; remove the link, or give "
            "another folder with -o"
        )
    return folder


def read_list(path: Path, archive: str) -> list[str]:
    """The names in a list of images.

    Args:
        path: The list.
        archive: Where it comes from; for the error.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It is no UTF-8 text.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found: it is part of {archive}")
    try:
        return path.read_text(encoding="utf-8").split()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error}): take it from {archive}") from error


def save_list(names: Sequence[str], target: Path, out: Path) -> None:
    """Write a list of images, a name per line, so that it is whole or not there.

    Raises:
        ValueError: `target` is not inside `out`.
    """
    inside(target.parent, out).mkdir(parents=True, exist_ok=True)
    _write(target, lambda part: part.write_text("".join(f"{name}\n" for name in names), encoding="utf-8"))
    print(f"{target}: {len(names)} images")


def show_images(source: Path, target: Path, out: Path) -> None:
    """Let `target` be a link to the folder of the images, relative if both lie side by side; keep what is there."""
    if target.exists():
        return
    if not source.is_dir():
        print(f"note: no images in {source}; put them into {target}", file=sys.stderr)
        return
    inside(target.parent, out).mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # a link to where the images were
    target.symlink_to(os.path.relpath(source.resolve(), target.parent.resolve()), target_is_directory=True)
    print(f"{target} is a link to {source}")
