"""Where the time of a function goes."""

from __future__ import annotations

import time
from functools import wraps
from typing import Any

from rfclip.cost.parts import REST, time_parts


def short() -> None:
    time.sleep(0.01)


def long() -> None:
    short()
    time.sleep(0.05)


def decorated(function: Any) -> Any:
    @wraps(function)
    def run() -> None:
        function()

    return run


@decorated
def whole() -> None:
    long()
    short()
    [short() for _ in range(2)]


def test_shares_are_those_of_the_functions_that_are_called_directly():
    parts = time_parts(lambda: whole(), whole)
    assert next(iter(parts)) == "long" and list(parts)[-1] == REST
    assert "short" in parts and "sleep" not in parts
    assert abs(sum(parts.values()) - 1) < 1e-9


def test_a_function_that_is_not_called_has_no_parts():
    assert time_parts(short, whole) == {}
