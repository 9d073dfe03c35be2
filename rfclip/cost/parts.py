"""Where the time of a method goes, by the functions that it calls."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable
from types import CodeType, FrameType

ALL = 0.98  # of the whole; a function in which another takes more only hands on
LEAST = 0.02  # of the whole; what takes less is summed up
REST = "rest"
_SEEN_THROUGH = ("<", "decorate_context", "decorate_autocast")  # comprehensions and torch's decorators


def time_parts(task: Callable[[], object], function: Callable[..., object]) -> dict[str, float]:
    """Share out the time of a function, while a task calls it, among the functions that it calls itself.

    A function that only hands on to another one is looked through.

    Only what Python waits for is seen: on a GPU, which computes on its own, the shares mean nothing.

    Args:
        task: calls the function at least once, in this thread.
        function: its decorators are looked through.

    Returns:
        Name -> share (0..1), the largest first and 'rest' last; empty if the function was not called.
    """
    running: list[tuple[CodeType, float]] = []
    spent: dict[CodeType | None, dict[CodeType, float]] = {}  # by caller

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            running.append((frame.f_code, time.perf_counter()))
        elif event == "return" and running and running[-1][0] is frame.f_code:
            code, start = running.pop()
            if not code.co_name.startswith(_SEEN_THROUGH):
                mine = spent.setdefault(_caller(running), {})
                mine[code] = mine.get(code, 0.0) + time.perf_counter() - start

    sys.setprofile(watch)
    try:
        task()
    finally:
        sys.setprofile(None)
    entry: CodeType = inspect.unwrap(function).__code__
    whole = sum(called.get(entry, 0.0) for called in spent.values())
    while whole and (only := [code for code, seconds in spent.get(entry, {}).items() if seconds > ALL * whole]):
        entry = only[0]
    large = sorted(
        (part for part in spent.get(entry, {}).items() if part[1] >= LEAST * whole), key=lambda part: -part[1]
    )
    shares = {code.co_name: seconds / whole for code, seconds in large}
    return {**shares, REST: max(0.0, 1 - sum(shares.values()))} if whole else {}


def _caller(running: list[tuple[CodeType, float]]) -> CodeType | None:
    """The innermost function that runs and is more than a wrapper or a comprehension."""
    return next((code for code, _ in reversed(running) if not code.co_name.startswith(_SEEN_THROUGH)), None)
