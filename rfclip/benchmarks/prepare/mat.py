"""Reading one array of a MATLAB file."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from scipy.io import loadmat
from scipy.io.matlab import MatReadError

# What loadmat raises for damaged files: it takes the numbers in them for sizes, offsets and names
MAT_ERRORS = (
    MatReadError, NotImplementedError, zlib.error, ValueError, TypeError, EOFError, LookupError, ArithmeticError,
    NameError, MemoryError,
)  # fmt: skip


def read_variable(path: Path, name: str, origin: str) -> Any:
    """A variable of a .mat file.

    Args:
        path: The file.
        name: The variable's name.
        origin: In words, which files hold it; for the error.

    Raises:
        ValueError: There is none, or the file is damaged.
    """
    try:
        content = loadmat(path, variable_names=[name])
    except MAT_ERRORS as error:
        raise ValueError(f"is no readable .mat file ({error})") from error
    if name not in content:
        raise ValueError(f"holds no array {name}; expected {origin}")
    return content[name]
