"""Checks of arguments, shared by the method's functions and its settings; each says what it expected.

A check of one value returns it as a plain Python value, so that NumPy's numbers are stored as any other.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, fields
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, ClassVar, SupportsIndex, TypeVar

import numpy as np

T = TypeVar("T")
_SMALLEST, _LARGEST = 1.2e-38, 3.4e38  # what fp32 holds, in which settings meet tensors


class UserError(Exception):
    """Something that the user can put right; the message is one sentence that says what and how."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was too little: Python's, a GPU's, or what torch says in a plain RuntimeError (CPU, MPS)."""
    plain = isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in str(error) or "out of memory" in str(error))
    return plain or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's, a GPU's


def shown(value: object) -> str:
    r"""``value`` for an error message: escaped, on one line, and not longer than 80 characters, both ends kept.

    Example:
        >>> shown("two\nlines")
        "'two\\nlines'"
    """
    text = " ".join(ascii(value).split())
    return text if len(text) <= 80 else f"{text[:37]}...{text[-40:]}"  # a path's end is its name


def near(name: object, known: Iterable[str]) -> str:
    """' (did you mean ...?)' where one of the known names is like ``name``, else ''.

    Example:
        >>> near("refocusclip", ["RefocusCLIP", "MeanKK"])
        " (did you mean 'RefocusCLIP'?)"
    """
    lowered = {each.lower(): each for each in known}
    close = get_close_matches(str(name).lower(), lowered, n=1)
    return f" (did you mean {lowered[close[0]]!r}?)" if close else ""


def check_dims(dims: Sequence[int], width: int) -> tuple[int, ...]:
    """Return distraction dimensions as a tuple of ints.

    Args:
        dims: the dimensions; may be empty.
        width: d of the embeddings that they are dimensions of.

    Raises:
        ValueError: one is no integer in 0..width-1.

    Example:
        >>> check_dims([133, 411], width=768)
        (133, 411)
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
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise ValueError(f"{what} must be a list of integers, got {shown(values)}")
    try:
        listed = list(values)
    except TypeError as error:  # an array or tensor of no dimension
        raise ValueError(f"{what} must be a list of integers, got {shown(values)}") from error
    return tuple(_index(what, value) for value in listed)


def check_some_indices(what: str, values: object) -> tuple[int, ...]:
    """As :func:`check_indices`, of at least one."""
    indices = check_indices(what, values)
    if not indices:
        raise ValueError(f"{what} must name at least one, counted from 0, got none")
    return indices


def _index(what: str, value: object) -> int:
    try:
        index = operator.index(value) if isinstance(value, SupportsIndex) and not isinstance(value, bool) else -1
    except TypeError:  # an array of several
        index = -1
    if index < 0:
        raise ValueError(f"{what} must be integers, counted from 0, got {shown(value)}")
    return index


def check_at_least_zero(name: str, value: object) -> float:
    """Return a number >= 0, finite or infinite; raise ValueError otherwise."""
    number = _number(value)
    if not number >= 0:
        raise ValueError(f"{name} must be a number, at least 0, got {shown(value)}")
    return number


def check_above_zero(name: str, value: object) -> float:
    """Return a number > 0 that is finite, both in single precision; raise ValueError otherwise."""
    number = _number(value)
    if not _SMALLEST <= number <= _LARGEST:
        raise ValueError(f"{name} must be a number above 0, got {shown(value)}")
    return number


def check_range(name: str, value: object, low: float, high: float) -> float:
    """Return a number in low..high; raise ValueError otherwise.

    Example:
        >>> check_range("beta", 1, 0, 1)
        1.0
        >>> check_range("beta", 1.5, 0, 1)
        Traceback (most recent call last):
        ValueError: beta must be a number in 0..1, got 1.5
    """
    number = _number(value)
    if not low <= number <= high:
        raise ValueError(f"{name} must be a number in {low:g}..{high:g}, got {shown(value)}")
    return number


def check_whole(name: str, value: object, least: int = 0) -> int:
    """Return an integer (no bool, no float) >= least; raise ValueError otherwise."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {shown(value)}")
    return int(value)


def check_switch(name: str, value: object) -> bool:
    """Return True or False; raise ValueError otherwise."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def check_unless_none(name: str, value: object, check: Callable[..., T], *arguments: Any) -> T | None:
    """Return None as it is, and anything else as another check, which gets `arguments`, returns it."""
    return None if value is None else check(name, value, *arguments)


def check_choice(name: str, value: object, choices: Sequence[str]) -> str:
    """Return one of some words; raise ValueError otherwise.

    Example:
        >>> check_choice("mode", "slid", ["whole", "slide"])
        Traceback (most recent call last):
        ValueError: mode must be one of 'whole', 'slide', got 'slid' (did you mean 'slide'?)
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, choices))}, got {shown(value)}{near(value, choices)}"
        )
    return str(value)


def check_block(what: str, block: object, taker: Callable[..., Any], also: Sequence[str] = ()) -> Mapping[str, Any]:
    """Return a dict of settings whose entries are what its taker takes.

    Args:
        what: the block's name, for errors.
        block: the dict; an mmengine ConfigDict is one.
        taker: the class or function that is called with the entries.
        also: entries that are somebody else's.

    Raises:
        TypeError: no dict, an unknown entry, or one that is missing.
    """
    parameters = [p for p in inspect.signature(taker).parameters.values() if p.kind is not p.VAR_POSITIONAL]
    known = [*also, *(p.name for p in parameters if p.kind is not p.VAR_KEYWORD)]
    takes = f"it takes {', '.join(known)}" if known else "it takes none"
    if not isinstance(block, Mapping):
        raise TypeError(f"{what} must be a dict, got {shown(block)}; {takes}")
    for key in block:
        if key not in known and all(p.kind is not p.VAR_KEYWORD for p in parameters):
            raise TypeError(f"{what} has an unknown entry {shown(key)}{near(key, known)}; {takes}")
    missing = [
        p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD and p.name not in block
    ]
    if missing:
        example = getattr(taker, "example", None)
        cure = f": give {example}" if example else ""
        raise TypeError(f"{what} lacks {', '.join(missing)}{cure}; {takes}")
    return block


def built(what: str, block: object, taker: Callable[..., T]) -> T:
    """Call ``taker`` with the entries of a dict of settings; TypeError as :func:`check_block`."""
    return taker(**check_block(what, block, taker))


def _number(value: object) -> float:
    """A real number, no bool, as a float; NaN for everything else, which no range holds."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]  # Real has no order for mypy


def setting(default: Any, check: Callable[..., Any], *arguments: Any, **facts: Any) -> Any:
    """A field of a :class:`Checked` dataclass.

    Args:
        default: its value where none is given; `...`: one must be given.
        check: is called with the field's name, its value and `arguments`, and returns what is stored.
        facts: what else is known of the field; readers find them in its metadata.
    """
    metadata = {"check": lambda name, value: check(name, value, *arguments), **facts}
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


class Checked:
    """Base of frozen dataclasses of settings: what is built has passed the checks of its fields.

    Attributes:
        block: what stands before a field's name in an error, e.g. 'prior.'.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Share(Checked):
        ...     beta: float = setting(0.7, check_range, 0, 1)
        >>> Share(1)
        Share(beta=1.0)
        >>> Share(2)
        Traceback (most recent call last):
        ValueError: beta must be a number in 0..1, got 2
    """

    block: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Check the fields in their order; ValueError for the first that is wrong."""
        for each in fields(self):  # type: ignore[arg-type]  # its children are dataclasses, it is none
            if "check" in each.metadata:
                value = each.metadata["check"](self.block + each.name, getattr(self, each.name))
                object.__setattr__(self, each.name, value)


def check_grid(shape: Sequence[int], grid: tuple[int, int]) -> None:
    """Raise ValueError unless patches of a shape (B, N, d) stand on a grid (h, w), N = h*w."""
    if len(shape) != 3 or len(grid) != 2 or math.prod(grid) != shape[1]:
        raise ValueError(
            f"patches {tuple(shape)} do not stand on the grid {tuple(grid)}: expected (B, h*w, d), "
            "without the class token"
        )
