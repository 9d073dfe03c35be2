"""The progress bar on and off a terminal, and the wrapper that stands for DistributedDataParallel."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from mmengine.model import is_model_wrapper
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from rfclip.plugin import runtime
from rfclip.plugin.runtime import FrozenDistributed, ProgressBarHook


def show(total: int, todo: int, batches: list[int]) -> None:
    runner = SimpleNamespace(test_dataloader=SimpleNamespace(dataset=range(total), sampler=range(todo)))
    hook = ProgressBarHook()
    hook.before_test_epoch(runner)
    for index, size in enumerate(batches):
        hook.after_test_iter(runner, index, outputs=[None] * size)
    hook.after_test_epoch(runner)
    assert hook.bar is None


def test_a_terminal_sees_images_per_second_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    show(total=6, todo=4, batches=[2, 2])
    last = capsys.readouterr().err.split("\r")[-1]
    assert "6/6" in last and "image/s" in last and "<" in last


def test_a_file_sees_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    show(total=6, todo=6, batches=[3, 3])
    captured = capsys.readouterr()
    assert captured.err == "" and captured.out == ""


def test_other_processes_than_the_first_show_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(runtime, "is_main_process", lambda: False)
    show(total=2, todo=2, batches=[2])
    assert capsys.readouterr().err == ""


class Model(nn.Module):
    """Says which of its methods was called, and with what."""

    def forward(self, x: int, sign: int = 1) -> tuple[str, int]:
        return "forward", sign * x

    def test_step(self, data: Any) -> tuple[str, Any]:
        return "test", data

    def val_step(self, data: Any) -> tuple[str, Any]:
        return "val", data


def test_wrapper_passes_calls_on() -> None:
    wrapped = MODEL_WRAPPERS.build(dict(type="FrozenDistributed", module=Model()))
    assert isinstance(wrapped, FrozenDistributed) and is_model_wrapper(wrapped)
    assert wrapped(3, sign=-1) == ("forward", -3)
    assert wrapped.test_step("a") == ("test", "a") and wrapped.val_step("b") == ("val", "b")
