"""Looking inside: named activations, and plots that take arrays and know no model.

The package can be called: `rfclip.explain(image, classes, out=folder)` is :func:`rfclip.explain.report.explain`.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from rfclip.explain.explanation import Explanation, examine
from rfclip.explain.recorder import Recorder, RecordingError
from rfclip.explain.report import explain

__all__ = ["Explanation", "Recorder", "RecordingError", "examine", "explain"]


class _CallablePackage(types.ModuleType):
    """Lets `rfclip.explain` be both this package and the function that it is named after."""

    def __call__(self, *args: Any, **kwargs: Any) -> Explanation:
        """As :func:`rfclip.explain.report.explain`."""
        return explain(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
