"""What is shared with mmsegmentation: methods and refiners stand in its registry, our log in its log."""

from __future__ import annotations

import logging

from mmengine.logging import print_log
from mmseg.registry import MODELS

from rfclip import methods  # the package, so that all of them are there
from rfclip.refiners import REFINERS


class ToCurrentLogger(logging.Handler):
    """Passes records on to mmengine's current logger, and so to the screen and to a run's log file."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on."""
        print_log(record.getMessage(), "current", record.levelno)


methods.METHODS.share(MODELS)
REFINERS.share(MODELS)
_LOG = logging.getLogger("rfclip")
if not any(isinstance(handler, ToCurrentLogger) for handler in _LOG.handlers):
    _LOG.addHandler(ToCurrentLogger())
    _LOG.setLevel(logging.INFO)
