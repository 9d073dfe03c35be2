"""What a module logs, kept by a test."""

import logging
from collections.abc import Callable
from types import ModuleType

import pytest


class _Keep(logging.Handler):
    def __init__(self, keep: Callable[[str, int], object]) -> None:
        super().__init__()
        self._keep = keep

    def emit(self, record: logging.LogRecord) -> None:
        self._keep(record.getMessage(), record.levelno)


def keep_log(monkeypatch: pytest.MonkeyPatch, module: ModuleType, keep: Callable[[str, int], object]) -> None:
    """Pass the message and the level of whatever a module logs to `keep`, and nowhere else."""
    logger = logging.Logger("kept")
    logger.addHandler(_Keep(keep))
    monkeypatch.setattr(module, "LOG", logger)
