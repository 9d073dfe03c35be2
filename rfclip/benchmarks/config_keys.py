"""Dotted keys of --cfg-options: mmengine takes any, so that a misspelt one changes nothing and says nothing."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmseg.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS, VISUALIZERS
from torch.utils.data import DataLoader

from rfclip.benchmarks.label_checks import shortened

_REGISTRIES = (MODELS, DATASETS, TRANSFORMS, METRICS, HOOKS, VISUALIZERS)
_TOP = {  # what is read of a config beside the arguments of mmengine's Runner
    "benchmark", "test_pipeline", "custom_imports", "model_wrapper_cfg", "compile", "sync_bn", "tta_model",
    "tta_pipeline", "find_unused_parameters", "activation_checkpointing", "efficient_conv_bn_eval",
}  # fmt: skip
_OPTIONS = {"work_dir": "--work-dir", "launcher": "--launcher"}  # the command line's own, whatever the config says
_LOADER = {"dataset", "num_batch_per_epoch", "disable_subprocess_warning"}  # mmengine's, beside those of torch
_ENTRIES = {  # what mmsegmentation's data sets read in these blocks of theirs
    "data_prefix": {"img_path", "seg_map_path"},
    "metainfo": {"classes", "palette"},
}
_MMENGINES = ("_delete_", "_scope_")  # entries that every block may have
_NEARER = 0.8
_NEAR = 0.75  # similarity of two names, 0 to 1, from which one may be the other misspelt


def check_keys(cfg: Config, entries: Mapping[str, Any]) -> None:
    """Look for keys that nothing reads.

    Args:
        cfg: The config before the entries are merged in.
        entries: Values by dotted key, as --cfg-options gives them.

    Raises:
        ValueError: A key that nothing reads, or that is one letter or two off another one; the sentence names that.
    """
    typed = deepcopy(cfg)
    typed.merge_from_dict({key: value for key, value in entries.items() if key.endswith(".type")})
    for key, value in entries.items():
        for dotted in _dotted(key, value):
            _check(typed, dotted.split("."))


def warn_of_near_keys(cfg: Config) -> None:
    """Warn of entries of a config file that look like a misspelt one: mmengine passes over what it does not know."""
    known = _readable(cfg._cfg_dict, "")[0]
    for key in cfg._cfg_dict:
        near = get_close_matches(key, sorted(known), 1, _NEARER) if key not in known else []
        if near and not key.endswith("pipeline"):  # variables of many configs
            print_log(f"nothing reads the config's entry '{key}': did you mean {near[0]}?", "current", logging.WARNING)


def _dotted(key: str, value: Any) -> Iterator[str]:
    """The key, and those of dicts below it that are merged into what is there."""
    yield key
    if isinstance(value, Mapping) and not value.keys() & {"_delete_", "type"}:
        for inner, content in value.items():
            yield from _dotted(f"{key}.{inner}", content)


def _check(cfg: Config, parts: Sequence[str]) -> None:
    if parts[0] in _OPTIONS:
        raise ValueError(f"--cfg-options {parts[0]} is not read: give {_OPTIONS[parts[0]]}")
    block: Any = cfg._cfg_dict
    for depth, part in enumerate(parts):
        if isinstance(block, (list, tuple)):
            if not part.isdigit() or int(part) >= len(block):
                place = ".".join(parts[:depth])
                raise ValueError(f"{place} is a list of {len(block)}, so {part!r} is no entry: count from 0")
            block = block[int(part)]
            continue
        if not isinstance(block, Mapping):
            return  # None, or a value that a dict replaces: whoever builds it says whether it fits
        _check_part(block, parts, depth)
        block = block.get(part, {} if part in _ENTRIES else None)


def _check_part(block: Mapping[str, Any], parts: Sequence[str], depth: int) -> None:
    """See that one part of a key is an entry that is read, in a block that may not have it yet."""
    part, place = parts[depth], ".".join(parts[:depth])
    names, complete = _readable(block, place)
    if part in names or part in _MMENGINES or (not complete and part in block):
        return
    near = get_close_matches(part, sorted({*names, *block}), 1, _NEAR)
    if not complete and not near:
        return
    where = f"in {place}" if place else "of the config"
    cure = f"there are {shortened(sorted(names))}"
    if part in block:
        cure = "it is a variable of the config file, which was used when the file was read: give the entry it went into"
    elif near:
        cure = f"did you mean {'.'.join([*parts[:depth], near[0], *parts[depth + 1 :]])}?"
    raise ValueError(f"--cfg-options {'.'.join(parts)}: nothing reads an entry '{part}' {where}; {cure}")


def _readable(block: Mapping[str, Any], place: str) -> tuple[set[str], bool]:
    """The names that are read in a block, and whether those are all."""
    if not place:
        return {*inspect.signature(Runner).parameters, "auto_scale_lr"} - {"cfg"} | _TOP, True
    if place == "test_dataloader":
        return _LOADER | {*inspect.signature(DataLoader).parameters}, True
    known = _ENTRIES.get(place.rpartition(".")[2])
    if known is not None:
        return known | set(block), True
    kind = block.get("type")
    if isinstance(kind, str):
        kind = next((found for registry in _REGISTRIES if (found := _get(registry, kind)) is not None), None)
    if not inspect.isclass(kind):
        return set(block), False
    names: set[str] = {"type"}
    for depth, base in enumerate(base for base in kind.__mro__ if "__init__" in vars(base)):
        parameters = [*inspect.signature(vars(base)["__init__"]).parameters.values()][1:]
        names |= {one.name for one in parameters if one.kind is not one.VAR_KEYWORD}
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            return names, depth == 0  # what came through a **settings may have been read on the way
    return names, False


def _get(registry: Any, kind: str) -> Any:
    try:
        return registry.get(kind)
    except KeyError:  # an unknown scope
        return None
