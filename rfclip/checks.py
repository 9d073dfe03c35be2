"""Checks of arguments, shared by the method's functions and its settings; each says what it expected."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import SupportsIndex, TypeGuard


def check_dims(dims: Sequence[int], width: int) -> tuple[int, ...]:
    """Return distraction dimensions as a tuple of ints.

    Args:
        dims: the dimensions; may be empty.
        width: d of the embeddings that they are dimensions of.

    Raises:
        ValueError: one is no integer in 0..width-1.
    """
    result = check_indices("distraction dimensions", dims)
    outside = [dim for dim in result if dim >= width]
    if outside:
        raise ValueError(
            f"distraction dimensions {outside} do not exist in embeddings of width {width} (0..{width - 1}): "
            "they belong to the weights, so give those of this model, or 'auto' in a config"
        )
    return result


def check_indices(what: str, values: object) -> tuple[int, ...]:
    """Return a list of integers counted from 0 as a tuple; raise ValueError otherwise, also for bools."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise ValueError(f"{what} must be a list of integers, got {values!r}")
    return tuple(_index(what, value) for value in values)


def _index(what: str, value: object) -> int:
    try:
        index = operator.index(value) if isinstance(value, SupportsIndex) and not isinstance(value, bool) else -1
    except TypeError:  # an array of several
        index = -1
    if index < 0:
        raise ValueError(f"{what} must be integers, counted from 0, got {value!r}")
    return index


def check_at_least_zero(name: str, value: object) -> None:
    """Raise ValueError unless value is a number >= 0, finite or infinite."""
    if not _is_number(value) or not value >= 0:
        raise ValueError(f"{name} must be a number, at least 0, got {value!r}")


def check_above_zero(name: str, value: object) -> None:
    """Raise ValueError unless value is a finite number > 0."""
    if not _is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number above 0, got {value!r}")


def check_range(name: str, value: object, low: float, high: float) -> None:
    """Raise ValueError unless value is a number in low..high."""
    if not _is_number(value) or not low <= value <= high:
        raise ValueError(f"{name} must be a number in {low:g}..{high:g}, got {value!r}")


def check_whole(name: str, value: object, least: int = 0) -> None:
    """Raise ValueError unless value is an integer (no bool, no float) >= least."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


def check_switch(name: str, value: object) -> None:
    """Raise ValueError unless value is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise ValueError unless value is one of some words."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)


def check_grid(shape: Sequence[int], grid: tuple[int, int]) -> None:
    """Raise ValueError unless patches of a shape (B, N, d) stand on a grid (h, w), N = h*w."""
    if len(shape) != 3 or len(grid) != 2 or math.prod(grid) != shape[1]:
        raise ValueError(
            f"patches {tuple(shape)} do not stand on the grid {tuple(grid)}: expected (B, h*w, d), "
            "without the class token"
        )
