"""PyTorch's zip archives: whole by their own checksums, and TorchScript's read as data, of which nothing runs.

A TorchScript archive, as OpenAI publishes its CLIPs, is a pickle of nested modules beside the tensors and the
code. Here the pickle is read by an unpickler for which every class of the archive is a plain holder of its
attributes; the code is neither compiled nor run, and is read only for the names that it lists as parameters and
buffers of a class, because a state dict holds those and no other tensors.

The archives of torch.save are for torch.load, but some versions of it believe the pickle about the length of a
storage, and read foreign memory where it lies. So that pickle is gone through first, with inert objects in place of
all that it names, and each storage must be as long as its record.

Pickles and tensors come from torch's own reader, so that what is checked is what is loaded.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

_DTYPES = {  # of all storages that PyTorch's unpicklers know
    f"{kind}Storage": dtype
    for kind, dtype in {
        **{"Byte": torch.uint8, "Char": torch.int8, "Bool": torch.bool, "Untyped": torch.uint8},
        **{"Short": torch.int16, "Int": torch.int32, "Long": torch.int64},
        **{"Half": torch.half, "BFloat16": torch.bfloat16, "Float": torch.float, "Double": torch.double},
        **{"ComplexHalf": torch.chalf, "ComplexFloat": torch.cfloat, "ComplexDouble": torch.cdouble},
        **{"QInt8": torch.qint8, "QUInt8": torch.quint8, "QInt32": torch.qint32},
        **{"QUInt4x2": torch.quint4x2, "QUInt2x4": torch.quint2x4},
    }.items()
}
_SLACK = 64 << 20  # bytes; the code, which alone is compressed, takes a few millions
_MOST_MODULES = 20_000
_BLOCK = 1 << 20


class ArchiveError(ValueError):
    """An archive that must not be loaded. The message goes on after 'weights file PATH'."""


def read_archive(path: Path) -> dict[str, Tensor] | None:
    """Return the state dict of a TorchScript archive, or None for an archive of torch.save, which is checked only.

    Raises:
        ArchiveError: a record does not have its checksum or its length, or a tensor exceeds its storage; or the
            archive holds tensors that are not dense, or modules that pack their tensors in a way of their own.
        pickle.UnpicklingError: the pickle of a TorchScript archive names what is not part of one.
        RuntimeError, ValueError, LookupError, TypeError, ...: it is damaged in another way.
    """
    sizes = _checked_records(path)
    reader = torch._C.PyTorchFileReader(str(path))
    names = reader.get_all_records()
    if sorted(sizes) != sorted(name.lower() for name in names):
        raise ArchiveError("has a damaged table of contents, or several records of one name: download it again")
    if "model.json" in sizes:  # here any record may be code
        raise ArchiveError("is a TorchScript archive of the time before PyTorch 1.4: save the model's state_dict()")
    code = [name for name in names if name.startswith("code/") and name.endswith(".py")]
    if "constants.pkl" not in sizes and not code:
        _unpickle(_Inspector, reader, sizes)
        return None
    listed: dict[str, frozenset[str] | None] = {}
    for name in code:
        listed |= _listed_tensors(name, reader.get_record(name).decode())
    views = _collect(_unpickle(_Reader, reader, sizes), listed)
    storages = {view.storage.key: _read_storage(reader, view.storage) for view in views.values()}
    return {
        name: storages[view.storage.key].as_strided(view.shape, view.strides, view.offset)
        for name, view in views.items()
    }


def _checked_records(path: Path) -> dict[str, int]:
    """Return the unpacked bytes of each record by its name in lower case: torch does not tell the case.

    Each record is compared with its checksum, which torch does not look at. A checksum of 0 is none: torch can be
    told to write archives without.
    """
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if sum(info.file_size for info in records) > 2 * path.stat().st_size + _SLACK:
            raise ArchiveError("unpacks to far more than its own size, as no weights do: download it again")
        for info in records:
            if info.CRC and not _is_whole(archive, info):
                raise ArchiveError(
                    f"is damaged: its record {info.filename} is not what its checksum says: download it again"
                )
    return {info.filename.partition("/")[2].lower(): info.file_size for info in records}


def _is_whole(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    """Read a record to its end: zipfile compares the checksum there."""
    try:
        with archive.open(info) as record:
            while record.read(_BLOCK):
                pass
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return False
    return True


def _listed_tensors(record: str, source: str) -> dict[str, frozenset[str] | None]:
    """Return the names that a file of code lists as parameters and buffers, by class; None: the class is no module.

    Archives of the time before buffers were listed count as if all tensors were listed: they are left out.
    """
    module = record.removeprefix("code/").removesuffix(".py").replace("/", ".")
    found: dict[str, frozenset[str] | None] = {}
    for part in re.split(r"^class ", source, flags=re.MULTILINE)[1:]:
        head = part.partition("\n")[0]
        name = f"{module}.{head.partition(':')[0].partition('(')[0]}"
        lists = dict(re.findall(r"^  __(parameters|buffers)__ = \[(.*)\]$", part, re.MULTILINE))
        if not head.endswith("(Module):"):
            found[name] = None
        elif "buffers" in lists:
            found[name] = frozenset(re.findall(r'"([^"]*)"', " ".join(lists.values())))
    return found


def _unpickle(kind: type[_Inspector], reader: Any, sizes: Mapping[str, int]) -> Any:
    """Read the archive's pickle with an unpickler of a kind."""
    pickled = reader.get_record("data.pkl")
    for opcode, argument, _ in pickletools.genops(pickled):
        if "PUT" in opcode.name and isinstance(argument, int) and argument > len(pickled):  # so many are allocated
            raise pickle.UnpicklingError(f"memo {argument}")
    return kind(pickled, sizes).load()


class _Storage(NamedTuple):
    """A storage as the pickle speaks of it: its record in data/, its type, and how many values it has."""

    key: str
    dtype: torch.dtype
    length: int


class _View(NamedTuple):
    """A tensor as the pickle speaks of it."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _read_storage(reader: Any, storage: _Storage) -> Tensor:
    """Return a storage as a tensor (count,)."""
    if storage.length == 0:
        return torch.empty(0, dtype=storage.dtype)
    return torch.frombuffer(bytearray(reader.get_record(f"data/{storage.key}")), dtype=storage.dtype)


class _Inert:
    """Stands for whatever a pickle names: takes everything, does nothing."""

    def __init__(self, *args: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, item: object) -> None: ...

    def extend(self, items: object) -> None: ...


class _Inspector(pickle.Unpickler):
    """Goes through a pickle, imports nothing, and compares the storages with their records."""

    def __init__(self, pickled: bytes, sizes: Mapping[str, int]) -> None:
        super().__init__(io.BytesIO(pickled))
        self._sizes = sizes

    def find_class(self, module: str, name: str) -> Any:
        """Return the name of a storage's type, or an inert class."""
        return name if module in ("torch", "torch.storage") and name in _DTYPES else _Inert

    def persistent_load(self, pid: Any) -> _Storage:
        """Return a storage; torch takes any type that it does not know for another."""
        _, kind, key, _, count = pid
        record, dtype = f"data/{key}", _DTYPES[kind]
        found, expected = self._sizes.get(record.lower()), count * dtype.itemsize
        if found != expected:
            what = "no record" if found is None else f"{found} bytes in record"
            raise ArchiveError(f"is damaged: it has {what} {record}, expected {expected} bytes: download it again")
        return _Storage(str(key), dtype, int(count))


class _Holder:
    """An object of a class of the archive: its attributes and no behaviour."""

    kind: str
    state: object

    def __new__(cls, *_: object) -> _Holder:
        holder = super().__new__(cls)
        holder.state = {}
        return holder

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Reader(_Inspector):
    """Reads the pickle of a TorchScript archive; what is no part of one is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a class or function; each reading has classes of its own, so none can be spoilt."""
        full = f"{module}.{name}"
        if module.split(".")[0] == "__torch__":
            return type(name, (_Holder,), {"kind": full})
        if full == "torch._utils._rebuild_tensor_v2":
            return self._view
        if name.startswith("_rebuild"):
            raise ArchiveError(f"holds tensors that are not dense ({name}): save the model's state_dict()")
        if module == "torch.jit._pickle":
            return self._first
        if full in ("collections.OrderedDict", "torch.device", "builtins.complex"):
            return type(name, (_Inert,), {})
        found = super().find_class(module, name)
        if found is _Inert:
            raise pickle.UnpicklingError(f"{full} is no part of TorchScript")
        return found

    def _first(self, value: object, *_: object) -> object:
        """Stand for torch.jit._pickle's functions, which give a list or dict its type."""
        return value

    def _view(
        self, storage: _Storage, offset: int, shape: Sequence[int], strides: Sequence[int], *rest: object
    ) -> _View:
        """Return a tensor that lies within its storage."""
        if any(rest[2:]):  # to be conjugated or negated
            raise ArchiveError("holds tensors that are not plain values: save the model's state_dict()")
        steps = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
        if min(offset, *shape, *strides, 0) < 0 or (0 not in shape and offset + sum(steps) >= storage.length):
            raise ArchiveError(f"is damaged: a tensor of shape {tuple(shape)} exceeds its storage: download it again")
        return _View(storage, offset, tuple(shape), tuple(strides))


def _collect(root: Any, listed: Mapping[str, frozenset[str] | None]) -> dict[str, _View]:
    """Return the parameters and buffers of a module and all modules in it, by dotted name."""
    found: dict[str, _View] = {}
    modules = [("", root)]
    for prefix, module in modules:  # grows meanwhile
        if len(modules) > _MOST_MODULES:
            raise ArchiveError(f"nests more than {_MOST_MODULES} modules, as no model does: download it again")
        if not isinstance(module.state, Mapping):
            raise ArchiveError(
                f"holds a module that packs its tensors in a way of its own ({module.kind}): save the model's "
                "state_dict()"
            )
        names = listed.get(module.kind, frozenset(module.state))
        if names is None:
            continue
        for name, value in module.state.items():
            if isinstance(value, _View) and name in names:
                found[prefix + name] = value
            elif isinstance(value, _Holder):
                modules.append((f"{prefix}{name}.", value))
    return found
