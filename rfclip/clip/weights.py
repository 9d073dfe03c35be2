"""Weight files as named tensors: read without running what stands in them, checked, compared, hashed."""

from __future__ import annotations

import hashlib
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rfclip.clip.torch_archives import ArchiveError, read_archive

_Content = TypeVar("_Content")
SIZE_ENTRIES = ("input_resolution", "context_length", "vocab_size")
_OWN_PARTS = {  # of a CLIP, in open_clip's layout and in transformers'
    *("visual", "text", "transformer", "token_embedding", "ln_final"),
    *("vision_model", "text_model", "visual_projection", "text_projection"),
}
_OWN_FILE = "a TorchScript archive of OpenAI, a .pt/.pth/.bin state dict or a .safetensors file"
_PARSE_ERRORS = (  # what the readers raise on arbitrary bytes; found by feeding them damaged files
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    EOFError,
    MemoryError,
    SyntaxError,
    struct.error,
    zipfile.BadZipFile,
    SafetensorError,
)


class WeightsError(ValueError):
    """Weights, or the architecture for them, cannot be used. The message is a sentence with the cure."""


class WeightsNotFoundError(WeightsError, FileNotFoundError):
    """There is no such file, or it cannot be downloaded."""


@dataclass(frozen=True, eq=False)
class WeightFile:
    """What a file holds.

    Attributes:
        path: the file.
        tensors: CPU tensors by name, as precise as in the file, without the size entries.
        torchscript: the file is a TorchScript archive, as OpenAI publishes its CLIPs.
        has_sizes: the file holds OpenAI's three entries input_resolution, context_length and vocab_size.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    torchscript: bool
    has_sizes: bool


def read_weights(path: Path, nested: Sequence[str] = ()) -> WeightFile:
    """Read a weight file of any accepted layout, decided by its content and not by its name.

    No code in the file is compiled or run, and no tensor reaches beyond its data: of TorchScript archives the state
    dict is read as data (see `rfclip.clip.torch_archives`); other PyTorch files are unpickled with weights_only;
    safetensors files hold nothing but tensors. Zip archives are compared with their own checksums. A state dict may
    be nested under 'state_dict'; a prefix that all its names share, such as 'module.' or 'model._orig_mod.', is
    taken off.

    Args:
        path: the file.
        nested: names under one of which the state dict may be nested too.

    Raises:
        WeightsNotFoundError: there is no such file.
        WeightsError: the file is truncated, damaged, not regular or of another kind, would run code on loading,
            holds a state dict under several of the names `nested`, or holds a tensor that is sparse, nested,
            quantized or without values.
    """
    if not path.exists():
        raise WeightsNotFoundError(f"weights file {path} does not exist: give the path of {_OWN_FILE}")
    if not path.is_file():  # reading a pipe would wait for ever
        raise WeightsError(f"weights file {path} cannot be read (not a regular file): give {_OWN_FILE}")
    head = _read(path, _first_bytes)
    if head.startswith(b"PK\x03\x04"):
        scripted = _read(path, read_archive)
        if scripted is not None:
            return _weight_file(path, scripted, True, nested)
    pickled = head.startswith((b"PK", b"\x80")) and not _is_safetensors(head, path.stat().st_size)
    read: Callable[[Path], object] = _read_pickle if pickled else load_file
    return _weight_file(path, _read(path, read), False, nested)


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(9)


def _is_safetensors(head: bytes, size: int) -> bool:
    """Tell by the header: its length as a little-endian number of 8 bytes, then JSON."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size


def _read(path: Path, read: Callable[[Path], _Content]) -> _Content:
    try:
        return read(path)
    except ArchiveError as error:
        raise WeightsError(f"weights file {path} {error}") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"weights file {path} is damaged, or holds Python objects beside tensors, which are not loaded "
            "because that can run code: save the model's state_dict() alone"
        ) from error
    except OSError as error:
        raise WeightsError(f"weights file {path} cannot be read ({error}): give {_OWN_FILE}") from error
    except _PARSE_ERRORS as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> WeightsError:
    return WeightsError(
        f"weights file {path} ({path.stat().st_size} bytes) is truncated, damaged or no weights file "
        f"({type(error).__name__}): download it again; accepted is {_OWN_FILE}"
    )


def _read_pickle(path: Path) -> object:
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
        return torch.load(file, map_location="cpu", weights_only=True)


def _weight_file(path: Path, content: object, torchscript: bool, nested: Sequence[str]) -> WeightFile:
    content = _inner(path, content, nested)
    if isinstance(content, Mapping) and not content:
        raise WeightsError(f"weights file {path} holds no state dict, nor any tensor: save the model's state_dict()")
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"weights file {path} holds no state dict but a {type(content).__name__}: save the model's state_dict()"
        )
    entries = _without_prefix({str(name): value for name, value in content.items()})
    odd = [name for name, value in entries.items() if isinstance(value, Tensor) and not _is_dense(value)]
    if odd:
        raise WeightsError(
            f"weights file {path} holds tensors that are sparse, nested, quantized or without values "
            f"({', '.join(odd[:3])}): save them as dense CPU tensors"
        )
    sizes = {name for name in SIZE_ENTRIES if isinstance(entries.get(name), (Tensor, int, float))}
    weights = {name: value for name, value in entries.items() if name not in sizes}
    strange = [name for name, value in weights.items() if not isinstance(value, Tensor)]
    if strange:
        raise WeightsError(
            f"weights file {path} holds entries that are no tensors ({', '.join(strange[:3])}): save the "
            "model's state_dict(), alone or under the key 'state_dict'"
        )
    return WeightFile(path, weights, torchscript, len(sizes) == len(SIZE_ENTRIES))


def _inner(path: Path, content: object, nested: Sequence[str]) -> object:
    """Return the state dict that a checkpoint holds under 'state_dict' or one of the names `nested`, or the content."""
    if not isinstance(content, Mapping):
        return content
    if isinstance(content.get("state_dict"), Mapping):
        return content["state_dict"]
    held = [name for name in nested if isinstance(content.get(name), Mapping)]
    if len(held) > 1:
        raise WeightsError(
            f"weights file {path} holds several models ({', '.join(held)}): save the state_dict() of the one that is "
            "meant"
        )
    return content[held[0]] if held else content


def _without_prefix(entries: dict[str, Any]) -> dict[str, Any]:
    """Take off what wrappers put before all names (module., model., _orig_mod., ...), but no part of the model.

    A wrapper may be called as a part is; what holds an image tower is none. OpenAI's size entries may stand outside.
    """
    sizes = {name: value for name, value in entries.items() if name in SIZE_ENTRIES}
    rest = {name: value for name, value in entries.items() if name not in sizes}
    while all("." in name for name in rest):
        first = {name.partition(".")[0] for name in rest}
        inner = {name.partition(".")[2]: value for name, value in rest.items()}
        if len(first) != 1 or (first <= _OWN_PARTS and not any(name.startswith("visual.") for name in inner)):
            break
        rest = inner
    return {**rest, **sizes}


def _is_dense(tensor: Tensor) -> bool:
    plain = tensor.layout == torch.strided and not tensor.is_nested and not tensor.is_quantized
    return plain and tensor.device.type == "cpu"  # meta tensors have shapes alone


def load_strictly(model: nn.Module, tensors: Mapping[str, Tensor], source: str, architecture: str) -> None:
    """Copy tensors into a model; each of its tensors must be there, in its shape, and no other.

    Args:
        model: changed in place.
        tensors: by name; floating-point values of any precision are converted to the model's.
        source: where the tensors come from, for messages.
        architecture: what the model is, for messages.

    Raises:
        WeightsError: naming the first missing, unexpected, misshapen or unusable tensors.
    """
    wanted = model.state_dict()
    fitted = _reconcile(wanted, {**dict(model.named_buffers()), **wanted}, tensors)
    problems = [
        *_listed("missing", [name for name in wanted if name not in fitted]),
        *_listed("unexpected", [name for name in fitted if name not in wanted]),
        *_listed("other shape", _misshapen(wanted, fitted)),
        *_listed("not floating point or not finite", _unusable(wanted, fitted)),
    ]
    if problems:
        prefix = _prefix_of_some(wanted, fitted)
        cure = "give the model name that the weights were made for (nothing is resized or left random)"
        if prefix:
            cure = f"not all names begin with {prefix!r}, so it stays: save the state_dict() of the CLIP alone"
        raise WeightsError(f"the weights in {source} are not those of {architecture}: {'; '.join(problems)}; {cure}")
    model.load_state_dict(fitted)


def _prefix_of_some(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Return what stands before the name of a missing tensor, or ''."""
    missing = wanted.keys() - given.keys()
    for name in given.keys() - wanted.keys():
        parts = name.split(".")
        for count in range(1, len(parts)):
            if ".".join(parts[count:]) in missing:
                return ".".join(parts[:count]) + "."
    return ""


def _reconcile(
    wanted: Mapping[str, Tensor], held: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Undo differences between open_clip's versions, and of TorchScript, that change no value.

    Args:
        wanted: the model's state dict.
        held: the same with the buffers that the model computes itself, such as the causal mask.
        tensors: what is to be loaded.
    """
    fitted = {name: tensor for name, tensor in tensors.items() if name in wanted or not _same(held.get(name), tensor)}
    for name in ("logit_scale", "logit_bias"):
        if name in fitted and name in wanted and fitted[name].numel() == wanted[name].numel():
            fitted[name] = fitted[name].reshape(wanted[name].shape)
    positions = "text.transformer.embeddings.position_ids"  # 0, 1, 2, ...: no longer stored
    if positions not in wanted:
        fitted.pop(positions, None)
    return fitted


def _same(own: Tensor | None, given: Tensor) -> bool:
    return own is not None and own.shape == given.shape and torch.equal(own, given.to(own.dtype))


def _misshapen(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]


def _unusable(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    return [
        name
        for name, tensor in wanted.items()
        if name in tensors
        and tensors[name].shape == tensor.shape
        and tensor.is_floating_point()
        and not (tensors[name].is_floating_point() and bool(tensors[name].float().isfinite().all()))
    ]


def _listed(what: str, names: list[str], shown: int = 3) -> list[str]:
    """Return one phrase such as '7 missing (a, b, c, ...)', or none."""
    if not names:
        return []
    more = ", ..." if len(names) > shown else ""
    return [f"{len(names)} {what} ({', '.join(names[:shown])}{more})"]


def hash_tensors(tensors: Mapping[str, Tensor], extra: str = "") -> str:
    """Return the sha256 of named tensors (names, types, shapes, values), in hex; their order does not count.

    Args:
        tensors: of any device.
        extra: whatever else makes the difference.
    """
    digest = hashlib.sha256(extra.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
