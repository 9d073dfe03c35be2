"""Tests of tensors on another device: `pytest --device cuda`.

The tests stay as they are: what they call is wrapped, so that its arguments go to the device and its results come back.
Code that makes a tensor on the wrong device fails there.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from types import FunctionType, ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

HOME = torch.device("cpu")


def wrap_imports(module: ModuleType, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the functions and classes that a test module has of rfclip work on a device."""
    for name, value in vars(module).copy().items():
        if isinstance(value, FunctionType) and value.__module__.startswith("rfclip."):
            monkeypatch.setattr(module, name, there(value, device))
        elif inspect.isclass(value) and value.__module__.startswith("rfclip."):
            wrap_methods(value, device, monkeypatch)


def wrap_methods(cls: type, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what an instance can be asked for work on a device; what it takes in a constructor stays as it is."""
    for owner in cls.__mro__:
        for name, value in vars(owner).copy().items():
            ours = isinstance(value, FunctionType) and value.__module__.startswith("rfclip.")
            if ours and (not name.startswith("_") or name == "__call__") and not hasattr(value, "__wrapped_for__"):
                monkeypatch.setattr(owner, name, there(value, device))


def there(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """The function with arguments that are taken to a device, and a result that is taken home."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return moved(function(*moved(args, device, HOME), **moved(kwargs, device, HOME)), HOME, device)
        finally:
            for value in (*args, *kwargs.values()):
                if isinstance(value, nn.Module):
                    value.to(HOME)

    run.__wrapped_for__ = device  # type: ignore[attr-defined]  # a mark on a function
    return run


def moved(value: Any, to: torch.device, back: torch.device) -> Any:
    """A value with all its tensors on a device; functions in it take theirs from there and give them back there."""
    if isinstance(value, (Tensor, nn.Module)):
        return value.to(to)
    if isinstance(value, dict):
        return {key: moved(each, to, back) for key, each in value.items()}
    if type(value) in (tuple, list):
        return type(value)(moved(each, to, back) for each in value)
    if isinstance(value, Iterator):
        return (moved(each, to, back) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        changed = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
        held = {name: each for name, each in changed.items() if isinstance(each, Tensor)}
        return replace(value, **moved(held, to, back)) if held else value
    if isinstance(value, FunctionType) and not hasattr(value, "__wrapped_for__"):
        return there_and_back(value, back, to)
    if hasattr(value, "record"):
        return _Recorder(value)
    return value


def there_and_back(function: Callable[..., Any], inside: torch.device, outside: torch.device) -> Callable[..., Any]:
    """A function whose tensors are on one device, for a caller whose tensors are on another."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        return moved(function(*moved(args, inside, outside), **moved(kwargs, inside, outside)), outside, inside)

    return run


class _Recorder:
    """A recorder that is shown copies at home."""

    def __init__(self, recorder: Any) -> None:
        self._recorder = recorder

    def record(self, name: str, layer: int | None, value: Tensor) -> None:
        self._recorder.record(name, layer, value.to(HOME))
