"""What a test set lists, and what is wrong with it: said in one sentence before any work is done."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from rfclip.benchmarks.datasets import missing_data
from rfclip.benchmarks.label_checks import shortened
from rfclip.benchmarks.test_set import loads_labels, named_infos, part_configs, parts, type_name
from rfclip.runs.files import whole
from rfclip.words.vocabulary import Vocabulary

_LISTED = {"pipeline": [], "test_mode": True, "lazy_init": False}  # of a data set that is not read


def list_dataset(cfg: Config) -> Any:
    """The test set without its pipelines: names and METAINFO.

    Raises:
        FileNotFoundError: Folders or lists are missing, hold no image, or no label map.
        ValueError: An image is listed twice, a part is of a kind that cannot be listed, or classes cannot be told
            apart.
    """
    init_default_scope("mmseg")
    for part in part_configs(cfg):
        missing = missing_data(part)
        if missing is not None:
            raise FileNotFoundError(missing)
        _check_listed(part)
    listed = deepcopy(cfg)
    for part in part_configs(listed):
        part.update(_LISTED)
    dataset = DATASETS.build(listed.test_dataloader.dataset)
    dataset.full_init()
    images = [info["img_path"] for _, info in named_infos(dataset)]
    counts = Counter(map(whole, images))  # however they are spelt
    twice = next((image for image in images if counts[whole(image)] > 1), None)
    if twice is not None:
        lists = ", ".join(
            dict.fromkeys(str(part.ann_file or part.data_prefix.get("img_path")) for part in parts(dataset))
        )
        raise ValueError(f"{twice} stands {counts[whole(twice)]} times in {lists}: take out what is double")
    _check_names(dataset, cfg.test_evaluator)
    return dataset


def check_vocabulary(vocabulary: Vocabulary, dataset: Any) -> None:
    """See that row i of the vocabulary is class i of the data set, as far as their names tell.

    Raises:
        ValueError: Another number of classes, or a name that stands in the place of another class.
    """
    classes = [_plain(name) for name in dataset.metainfo["classes"]]
    rows = [{_plain(name) for name in row} for row in vocabulary.names]
    if len(rows) != len(classes):
        raise ValueError(f"the vocabulary has {len(rows)} classes, but the data set has {len(classes)}")
    off = [index for index, name in enumerate(classes) if name not in rows[index]]
    for index in off:
        there = next((other for other in off if classes[index] in rows[other]), None)
        if there is not None:
            names = dataset.metainfo["classes"]
            raise ValueError(
                f"the vocabulary has '{names[index]}' in row {there} (counted from 0), where the data set has "
                f"'{names[there]}'; '{names[index]}' is its class {index}: write the rows in the data set's order, "
                f"{shortened(names)}"
            )


def unread(dataset: Any) -> list[str]:
    """A sentence for each part whose folder holds pictures under another spelling of its suffix, .JPG beside .jpg."""
    return [sentence for part in parts(dataset) if (sentence := _unread_of(part)) is not None]


def _check_listed(part: Mapping[str, Any]) -> None:
    """See that a part lists images, that some of them are there, and some of their label maps.

    Raises:
        FileNotFoundError, ValueError: As :func:`list_dataset`.
    """
    kind = DATASETS.get(part["type"]) if isinstance(part.get("type"), str) else part.get("type")
    needed = inspect.signature(kind).parameters.get("ann_file") if kind is not None else None
    if needed is not None and needed.default is needed.empty and not part.get("ann_file"):
        name = type_name(part)
        raise ValueError(
            f"{name} needs ann_file, a list of image names; take BaseSegDataset for folders without a list"
        )
    dataset = DATASETS.build({**part, **_LISTED, "lazy_init": True})
    if not isinstance(dataset, BaseDataset):
        raise ValueError(f"test_dataloader.dataset must be a BaseDataset of mmengine, got {type(dataset).__name__}")
    listed = dataset.ann_file if Path(dataset.ann_file or ".").is_file() else ""
    if listed and type(dataset).load_data_list is BaseSegDataset.load_data_list:
        _check_lines(Path(listed), Path(dataset.data_prefix.get("img_path") or "."))
    infos = dataset.load_data_list()
    if not infos and listed:
        raise FileNotFoundError(f"{listed} (ann_file) names no image: write one name per line, without suffix")
    if infos:
        _check_indices(part.get("indices"), len(infos))
    if loads_labels(part) and infos and not any(info.get("seg_map_path") for info in infos):
        raise ValueError(
            "the pipeline reads label maps (LoadAnnotations), but the data set knows none: give "
            "data_prefix.seg_map_path, or take LoadAnnotations out for label maps without scores, and give --out"
        )
    if loads_labels(part) and not listed and getattr(dataset, "img_suffix", None) == "":
        raise ValueError(
            "img_suffix is empty, so that label maps cannot be told from the names of the pictures: give the suffix, "
            "or list the names in ann_file"
        )
    if getattr(dataset, "backend_args", None):
        return  # elsewhere than on this disk
    for key, suffix in (("img_path", "img_suffix"), ("seg_map_path", "seg_map_suffix")):
        paths = [Path(info[key]) for info in infos if info.get(key)]
        folder = dataset.data_prefix.get(key)
        if folder is not None and not any(path.is_file() for path in paths) and (paths or key == "img_path"):
            raise FileNotFoundError(_none_there(dataset, Path(folder or "."), paths, suffix))


def _check_lines(path: Path, folder: Path) -> None:
    """See that every line of a list is a name in a folder."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error}): save it as such, with one name per line") from error
    blank = sum(not line.strip() for line in text.splitlines())
    absolute = next((line for line in text.splitlines() if Path(line.strip()).is_absolute()), None)
    if text.startswith("\ufeff"):
        raise ValueError(f"{path} starts with a byte order mark, a part of the first name then: save it without")
    if blank:
        raise ValueError(f"{path} has {blank} blank lines, and every line is a name: take them out")
    if "\0" in text:
        raise ValueError(f"{path} holds zero bytes, which no name can: save it as UTF-8 text")
    if absolute is not None:
        raise ValueError(f"{path} has the line {absolute!r}, but names are relative to {folder}, without suffix")


def _check_indices(indices: Any, count: int) -> None:
    """See that the images of a data set's ``indices`` are some, and there; a number above all takes all."""
    listed = list(indices) if isinstance(indices, (list, tuple)) else [indices]
    whole_numbers = all(isinstance(index, int) and not isinstance(index, bool) for index in listed)
    there = all(-count <= index < count for index in listed) if whole_numbers and listed != [indices] else True
    if indices is not None and not (indices and whole_numbers and there):
        raise ValueError(
            f"test_dataloader.dataset.indices leaves no image, or names one that is not there: got {indices}, expected "
            f"a number of images, or a list of some of 0..{count - 1}"
        )


def _none_there(dataset: Any, folder: Path, paths: Sequence[Path], setting: str) -> str:
    """Why there is no file for any image, from what lies in the folder instead."""
    found = _files_in(folder)
    kinds = Counter(path.suffix or "no suffix" for path in found)
    held = ", ".join(f"{n} file{'s' * (n > 1)} with {kind}" for kind, n in kinds.most_common(3))
    example = f", such as {found[0].relative_to(folder).as_posix()}" if found else ""
    suffix = getattr(dataset, setting, "")
    wanted = f"no file ends in {suffix} ({setting}) in {folder}"
    if paths:
        wanted = f"{paths[0]} is not there, nor is any other of the {len(paths)} expected files ({setting} {suffix})"
        return f"{wanted}; {folder} holds {held or 'no file'}{example}"
    return f"{wanted}, which holds {held or 'no file'}{example}"


def _check_names(dataset: Any, evaluator: Mapping[str, Any]) -> None:
    """See that results can be filed by class.

    Raises:
        ValueError: No list of classes, a repeated one, parts with other classes, or more than labels can tell apart.
    """
    classes = dataset.metainfo["classes"]
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"metainfo.classes must be a list of names, got {classes!r}")
    for part in parts(dataset):
        if list(part.metainfo["classes"]) != list(classes):
            raise ValueError("the data sets of a ConcatDataset must have the same classes, in the same order")
    for name, count in Counter(classes).items():
        if count > 1:
            where = [index for index, other in enumerate(classes) if other == name]
            raise ValueError(
                f"the data set has {count} classes '{name}' ({', '.join(map(str, where))}, counted from 0), whose "
                "results could not be told apart: give each a name of its own in metainfo.classes"
            )
    if len(classes) > 255:
        _check_many(len(classes), dataset, evaluator.get("ignore_index", 255))


def _check_many(count: int, dataset: Any, ignored: int) -> None:
    if ignored < count:
        raise ValueError(
            f"the data set has {count} classes, and label {ignored} (test_evaluator.ignore_index), which does not "
            "count, is one of them: give an ignore_index above all classes, such as 65535"
        )
    if any(part.metainfo.get("label_map") for part in parts(dataset)):
        raise ValueError(
            f"of a data set with {count} classes no part can be taken, because label 255 would stand for the others: "
            "write label maps of these classes, and take BaseSegDataset"
        )


def _unread_of(part: Any) -> str | None:
    suffix, folder = getattr(part, "img_suffix", ""), Path(part.data_prefix.get("img_path") or ".")
    if not suffix.startswith(".") or Path(part.ann_file or ".").is_file() or not folder.is_dir():
        return None
    others = [path for path in _files_in(folder) if path.suffix != suffix and _kind(path.suffix) == _kind(suffix)]
    if not others:
        return None
    return (
        f"{len(others)} files in {folder.name} are not read, such as {others[0].relative_to(folder).as_posix()}: "
        f"img_suffix is {suffix}, so rename them, or list them in a ConcatDataset"
    )


def _kind(suffix: str) -> str:
    return {".jpeg": ".jpg", ".tiff": ".tif"}.get(suffix.lower(), suffix.lower())


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _plain(name: object) -> str:
    return " ".join(str(name).lower().replace("_", " ").replace("-", " ").split())
