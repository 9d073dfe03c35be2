"""Times of things that are to be compared, taken in turns so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Spread:
    """What repeats of a measurement gave: median, least and greatest."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Sum up at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 2) -> str:
        """Return 'median (least to greatest)'."""
        return f"{self.median:.{digits}f} ({self.least:.{digits}f} to {self.greatest:.{digits}f})"


def take_turns(tasks: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Time each task `repeats` times, in rounds of one run each after a warm-up round.

    Every other round runs backwards, so that no task always follows the same one.

    Args:
        tasks: by name.
        repeats: rounds, at least 1.

    Returns:
        Seconds, name -> round -> seconds; rounds of different tasks belong together.
    """
    names = list(tasks)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        tasks[name]()
    for turn in range(repeats):
        for name in names if turn % 2 == 0 else names[::-1]:
            seconds[name].append(_seconds(tasks[name]))
    return seconds


def ratios(seconds: Sequence[float], reference: Sequence[float]) -> Spread:
    """Return how many times as long as the reference of the same round a task took."""
    return Spread.of([mine / other for mine, other in zip(seconds, reference, strict=True)])


def _seconds(task: Callable[[], object]) -> float:
    _wait()
    start = time.perf_counter()
    task()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    """Let the GPU, if there is one, finish what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
