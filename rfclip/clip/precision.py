"""In which precision things are computed: that of clip.precision, whatever the caller has set for torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def at_least_fp32(tensor: Tensor) -> torch.dtype:
    """The dtype to compute in: fp32 for half precision, the tensor's own otherwise."""
    return torch.promote_types(tensor.dtype, torch.float32)


def as_fp32(images: Tensor) -> Tensor:
    """Images in fp32, if they are of a floating-point type; others as they are, for the tower to refuse."""
    return images.float() if images.is_floating_point() else images


def own_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function whose result is not to hang on a torch.autocast around its caller.

    Inside, autocast is off: only the tower has one, that of clip.precision.

    Raises:
        ValueError: when it is called while torch's default dtype is not float32.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        check_fp32("torch's default dtype", torch.get_default_dtype())
        with _no_autocast():
            return function(*args, **kwargs)

    return run


def check_fp32(what: str, dtype: torch.dtype) -> None:
    """Raise ValueError, naming clip.precision, unless a dtype is float32."""
    if dtype != torch.float32:
        raise ValueError(
            f"{what} must be torch.float32, got {dtype}: the weights and all sums stay in it, and "
            "clip.precision='bf16' or 'fp16' lets the image tower, and nothing else, compute in half precision"
        )


@contextmanager
def _no_autocast() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(torch.autocast("cpu", enabled=False))
        for device, backend in (("cuda", torch.cuda), ("mps", torch.backends.mps)):
            if backend.is_available():
                stack.enter_context(torch.autocast(device, enabled=False))
        yield
