"""Whose fault an error is: what the user can put right is a sentence, everything else is shown with its traceback."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from opcode import opmap
from pathlib import Path
from types import FrameType

from rfclip.data import PACKAGE

_CHECKS = (ValueError, TypeError, RuntimeError, ImportError)  # what the package's own checks raise


def users_error(error: Exception) -> str | None:
    """The sentence of an error that the user can put right; None for any other error.

    The user's are: what files and the system refuse; a package or module that is not installed; too little memory;
    and what a ``raise`` statement of this package says, because that is a check. The same types of errors from
    elsewhere, also from a library that this package called wrongly, are no answer to anything that the user gave.
    """
    from rfclip.checks import UserError, is_out_of_memory
    from rfclip.io.fonts import printable

    if is_out_of_memory(error):
        return "not enough memory: take a smaller picture or --short-side, fewer classes, or another --device"
    if isinstance(error, ModuleNotFoundError) and error.name and "." not in error.name:
        return f"the package {error.name} is not installed: pip install it, or rfclip again with all that it needs"
    checked = isinstance(error, _CHECKS) and not isinstance(error, NotImplementedError) and _is_raised_here(error)
    return printable(" ".join(str(error).split())) if checked or isinstance(error, (UserError, OSError)) else None


def blame(error: Exception, imports: Sequence[str]) -> str:
    """Who is to be told of an error that is not the user's: whoever wrote the module of the user's, or this project."""
    kind = f"{type(error).__name__}: {error}".splitlines()[0]
    modules = {name.removesuffix(".py").rpartition("/")[2] for name in imports}
    for frame in reversed([frame for frame, _ in _frames(error)]):
        if frame.f_globals.get("__name__") in modules:
            return f"{kind}; it arises in {frame.f_code.co_filename}, which --import brought"
        if _is_here(frame):
            break
    return f"{kind}; this is a fault of rfclip and not yours: please report the lines above and what `rfclip info` says"


def import_users(module: str) -> None:
    """Import a module of the user's by its name or by the path of its file; it may lie in the working folder.

    Raises:
        UserError: There is no such module.
    """
    from rfclip.checks import UserError

    folder, name = (Path(module).parent, Path(module).stem) if module.endswith(".py") else (Path(), module)
    if str(folder.absolute()) not in sys.path:
        sys.path.insert(0, str(folder.absolute()))
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise
        raise UserError(f"no module {module!r} for --import: give its name, or the path of its .py file") from error


def _is_raised_here(error: Exception) -> bool:
    """Whether a ``raise`` statement of this package made the error, and not a call of something that failed."""
    frames = _frames(error)
    if not frames or not _is_here(frames[-1][0]):
        return False
    frame, instruction = frames[-1]
    return frame.f_code.co_code[instruction] == opmap["RAISE_VARARGS"]


def _is_here(frame: FrameType) -> bool:
    return Path(frame.f_code.co_filename).is_relative_to(PACKAGE)


def _frames(error: Exception) -> list[tuple[FrameType, int]]:
    """The frames that an error passed, the one where it arose last, and where in their code they were."""
    frames, step = [], error.__traceback__
    while step is not None:
        frames.append((step.tb_frame, step.tb_lasti))
        step = step.tb_next
    return frames
