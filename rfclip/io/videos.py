"""Reading videos frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

# FFmpeg alone, where OpenCV has it: its other readers take a damaged "t%02d.avi" for the pattern of a picture series.
_READER = cv2.CAP_FFMPEG if cv2.CAP_FFMPEG in cv2.videoio_registry.getBackends() else cv2.CAP_ANY
_COUNTING = {".avi", ".m4v", ".mov", ".mp4"}  # their headers hold the number of frames, those of others a duration


def count_frames(path: Path) -> int:
    """How many frames a video's header announces; 0 if it announces none, or cannot be read."""
    if not path.is_file() or not _is_utf8(path) or _is_playlist(path):
        return 0
    with _opened(path) as video:
        return _announced(video)


def read_frames(path: Path, every: int = 1) -> Iterator[tuple[int, np.ndarray]]:
    """Yield number and pixels, (H, W, 3) uint8 RGB, of each ``every``-th frame, from frame 0 on.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It cannot be read; or, after the last frame that can, some could not, or it breaks off.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no video file {str(path)!r}")
    if _is_playlist(path):
        raise ValueError(f"{str(path)!r} is a playlist, which names other files: give the video itself")
    if not _is_utf8(path):
        raise ValueError(f"OpenCV opens no video whose name is not UTF-8: rename {str(path)!r}")
    number = damaged = missing = 0
    with _opened(path) as video:
        while video.grab():
            missing = _missing(video, path, number + 1)
            if number % every == 0:
                intact, image = video.retrieve()
                if intact:
                    yield number, np.ascontiguousarray(image[..., ::-1])
                damaged += not intact
            number += 1
    if number == 0:
        raise ValueError(f"{str(path)!r} cannot be read as a video")
    if damaged or missing:
        raise ValueError(
            f"{str(path)!r} is damaged: of {number + missing} frames {damaged + missing} could not be read; "
            "the others have results"
        )


@contextmanager
def _opened(path: Path) -> Iterator[cv2.VideoCapture]:
    video = cv2.VideoCapture(str(path.absolute()), _READER)  # absolute: "a:b.avi" alone would be a protocol
    try:
        yield video
    finally:
        video.release()


def _is_playlist(path: Path) -> bool:
    """Whether FFmpeg would open what a file names, on this machine or elsewhere, whatever the file is called."""
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError:
        return False  # FFmpeg cannot read it either
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"#EXTM3U", b"ffconcat")) or b"<MPD" in head


def _is_utf8(path: Path) -> bool:
    """Whether OpenCV can be given the name; of others it crashes."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        return False
    return True


def _announced(video: cv2.VideoCapture) -> int:
    return max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))


def _missing(video: cv2.VideoCapture, path: Path, read: int) -> int:
    """How many announced frames there are behind the last one that was read; 0 if they are few, as headers err."""
    announced, rate = _announced(video), video.get(cv2.CAP_PROP_FPS)
    if path.suffix.lower() not in _COUNTING:  # a rate may vary, and sound may go on for a while
        read = max(read, round((video.get(cv2.CAP_PROP_POS_MSEC) / 1000 + 1) * rate))
    missing = announced - read
    return missing if missing > 1 + announced // 20 else 0
