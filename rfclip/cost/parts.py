"""Where the time of a method goes, by the functions that it calls."""

from __future__ import annotations

import cProfile
import inspect
import pstats
from collections.abc import Callable
from types import CodeType

LEAST = 0.02  # of the whole; what takes less is summed up
REST = "rest"


def time_parts(task: Callable[[], object], function: Callable[..., object]) -> dict[str, float]:
    """Share out the time of a function, while a task calls it, among the functions that it calls itself.

    Only what Python waits for is seen: on a GPU, which computes on its own, the shares mean nothing.

    Args:
        task: calls the function at least once.
        function: its decorators are looked through.

    Returns:
        Name -> share (0..1), the largest first and 'rest' last; empty if the function was not called.
    """
    profile = cProfile.Profile()
    profile.runcall(task)
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    code: CodeType = inspect.unwrap(function).__code__
    place = (code.co_filename, code.co_firstlineno, code.co_name)
    if place not in stats:
        return {}
    whole = stats[place][3]
    parts: dict[str, float] = {}
    for (_, _, name), (*_, callers) in stats.items():
        if place in callers and not name.startswith("<"):  # comprehensions are part of the function
            parts[name] = parts.get(name, 0.0) + callers[place][3] / whole
    large = {name: share for name, share in parts.items() if share >= LEAST}
    ordered = dict(sorted(large.items(), key=lambda part: -part[1]))
    return {**ordered, REST: max(0.0, 1 - sum(large.values()))}
