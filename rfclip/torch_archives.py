"""PyTorch's zip archives, checked before torch reads them: nothing in them runs, no record is too short.

torch.jit.load compiles the code of a TorchScript archive and meanwhile runs three things in it: `__setstate__`,
the default values of parameters, and the values of class attributes. Here every source must parse, define no
`__setstate__`, and have literals in the other two places; objects of compiled extensions are refused. What is
left are bodies of functions, which nobody calls.

torch.jit.load, and torch.load of some versions, believe the pickles about the length of a storage and a tensor's
place in it, and read foreign memory where they lie. Here the pickles are gone through with inert objects in place
of everything that they name, and each storage must be as long as its record, each tensor within its storage.

Code and pickles come from torch's own reader, so that what is checked is what is loaded.
"""

from __future__ import annotations

import ast
import io
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

_ITEM_SIZES = {  # in bytes, of all storages that PyTorch's unpicklers know
    f"{kind}Storage": size
    for size, kinds in {
        1: "Byte Char Bool Untyped QInt8 QUInt8 QUInt4x2 QUInt2x4",
        2: "Short Half BFloat16",
        4: "Int Float QInt32 ComplexHalf",
        8: "Long Double ComplexFloat",
        16: "ComplexDouble",
    }.items()
    for kind in kinds.split()
}
_LITERAL = (
    *(ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.UnaryOp, ast.unaryop, ast.expr_context),
    *(ast.Name, ast.Attribute, ast.Subscript),  # the types in __annotations__["0"] = Type
)
_SLACK = 64 << 20  # bytes; the code, which alone is compressed, takes a few millions


class ArchiveError(ValueError):
    """An archive that must not be loaded. The message goes on after 'weights file PATH'."""


def check_archive(path: Path) -> bool:
    """Tell whether a zip archive is TorchScript, and refuse it if torch could not load it safely.

    Raises:
        ArchiveError: it would run code on loading, or its records are not those that its pickles describe.
        RuntimeError, ValueError, SyntaxError, LookupError, TypeError, ...: it is damaged.
    """
    sizes = _record_sizes(path)
    reader = torch._C.PyTorchFileReader(str(path))
    if sorted(sizes) != sorted(name.lower() for name in reader.get_all_records()):
        raise ArchiveError("has a damaged table of contents, or several records of one name: download it again")
    torchscript = "constants.pkl" in sizes or any(name.startswith("code/") for name in sizes)
    if "model.json" in sizes:  # here any record may be code
        raise ArchiveError("is a TorchScript archive of the time before PyTorch 1.4: save the model's state_dict()")
    for name in sizes:
        if name.endswith(".py"):
            _check_source(name, reader.get_record(name).decode("ascii"))
    for folder in ("data", "constants"):
        if f"{folder}.pkl" in sizes:
            _check_pickle(reader.get_record(f"{folder}.pkl"), folder, sizes, torchscript)
    return torchscript


def _record_sizes(path: Path) -> dict[str, int]:
    """Return the unpacked bytes of each record by its name in lower case: torch does not tell the case."""
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename.partition("/")[2].lower(): info.file_size for info in archive.infolist()}
        unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > 2 * path.stat().st_size + _SLACK:
        raise ArchiveError("unpacks to far more than its own size, as no weights do: download it again")
    return sizes


def _check_source(name: str, source: str) -> None:
    """Refuse code that runs while it is compiled, and what Python and TorchScript might read differently."""
    if not re.fullmatch(r"[\n -~]*", source) or '"""' in source or "'''" in source:
        raise ArchiveError(f"holds code that PyTorch did not write ({name}): save the model's state_dict()")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on doubtful but valid expressions
        tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            values = [*node.args.defaults, *node.args.kw_defaults]
        elif isinstance(node, ast.ClassDef):
            values = [line.value for line in node.body if isinstance(line, (ast.Assign, ast.AnnAssign))]
        else:
            continue
        if node.name == "__setstate__" or not all(map(_is_literal, values)):
            raise ArchiveError(
                f"holds code that would run on loading ({name}, line {node.lineno}): save the model's state_dict()"
            )


def _is_literal(value: ast.expr | None) -> bool:
    return value is None or all(isinstance(node, _LITERAL) for node in ast.walk(value))


def _check_pickle(pickled: bytes, folder: str, sizes: Mapping[str, int], torchscript: bool) -> None:
    for opcode, argument, _ in pickletools.genops(pickled):
        if "PUT" in opcode.name and isinstance(argument, int) and argument > len(pickled):  # so many are allocated
            raise pickle.UnpicklingError(f"memo {argument}")
    _Inspector(pickled, folder, sizes, torchscript).load()


class _Inert:
    """Stands for whatever a pickle names: takes everything, does nothing."""

    def __init__(self, *args: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, item: object) -> None: ...

    def extend(self, items: object) -> None: ...


class _Inspector(pickle.Unpickler):
    """Goes through a pickle, imports nothing, and compares what it says of tensors with the records."""

    def __init__(self, pickled: bytes, folder: str, sizes: Mapping[str, int], torchscript: bool) -> None:
        super().__init__(io.BytesIO(pickled))
        self._folder, self._sizes, self._torchscript = folder, sizes, torchscript

    def find_class(self, module: str, name: str) -> Any:
        """Return the name of a storage's type, the check of a tensor's place, or an inert class."""
        if f"{module}.{name}".startswith("__torch__.torch.classes"):
            raise ArchiveError(f"holds an object of a compiled extension ({name}): save the model's state_dict()")
        if module in ("torch", "torch.storage") and name in _ITEM_SIZES:
            return name
        if self._torchscript and name.startswith("_rebuild"):
            if name != "_rebuild_tensor_v2":
                raise ArchiveError(f"holds tensors that are not dense ({name}): save the model's state_dict()")
            return _check_view
        return _Inert

    def persistent_load(self, pid: Any) -> int:
        """Return how many values a storage has; torch takes any type that it does not know for another."""
        _, kind, key, _, count = pid
        record = f"{self._folder}/{key}"
        found, expected = self._sizes.get(record.lower()), count * _ITEM_SIZES[kind]
        if found != expected:
            what = "no record" if found is None else f"{found} bytes in record"
            raise ArchiveError(f"is damaged: it has {what} {record}, expected {expected} bytes: download it again")
        return int(count)


def _check_view(count: int, offset: int, shape: Sequence[int], strides: Sequence[int], *_: object) -> _Inert:
    """Do nothing if a tensor lies within the `count` values of its storage."""
    steps = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
    if min(offset, *shape, *strides, 0) < 0 or (0 not in shape and offset + sum(steps) >= count):
        raise ArchiveError(f"is damaged: a tensor of shape {tuple(shape)} exceeds its storage: download it again")
    return _Inert()
