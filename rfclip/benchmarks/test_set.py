"""The test set of a config: its parts, its images and their names, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from rfclip.runs.areas import image_name
from rfclip.runs.files import RunFiles, common_folder, whole

_SAMPLERS = ("UnfinishedSampler", "DefaultSampler")  # every image once, in whatever order
_LEFT_OUT = {  # entries of test_dataloader by which images would be missing
    "num_batch_per_epoch": "would leave images out: take test_dataloader.dataset.indices, a number or a list",
    "batch_sampler": "is not used, because a test shows every image once: give test_dataloader.batch_size alone",
}

_TEXTS = ("data_root", "ann_file", "img_suffix", "seg_map_suffix")


def type_name(block: Mapping[str, Any]) -> str:
    """The ``type`` of a block, without the scope before it; '' if there is none."""
    kind = block.get("type", "")
    return kind.rpartition(".")[2] if isinstance(kind, str) else getattr(kind, "__name__", str(kind))


def part_configs(cfg: Config) -> list[Any]:
    """The blocks of a config's test set: those that ConcatDataset joins, or the one.

    Raises:
        ValueError: There is no test set, or one whose images do not stand there once each.
    """
    loader = cfg.get("test_dataloader")
    if not isinstance(loader, Mapping) or not isinstance(loader.get("dataset"), Mapping):
        raise ValueError(f"the config needs test_dataloader=dict(dataset=dict(type=...), ...), got {loader!r}")
    return _parts(loader["dataset"])


def _parts(block: Any) -> list[Any]:
    if not isinstance(block, Mapping):
        raise ValueError(f"test_dataloader.dataset must be a data set or a ConcatDataset of some, got {block!r}")
    if type_name(block) == "ConcatDataset":
        if not block.get("datasets"):
            raise ValueError("ConcatDataset needs datasets, a list of data sets")
        return [part for inner in block["datasets"] for part in _parts(inner)]
    if "dataset" in block or "datasets" in block:
        raise ValueError(
            "test_dataloader.dataset must be a data set or a ConcatDataset of some, because a test counts every image "
            f"once; got {type_name(block)}: give the data set inside it"
        )
    return [block]


def check_loader(cfg: Config) -> None:
    """See that a test loads every image once; ``drop_last`` is taken out.

    Raises:
        ValueError: A setting would leave images out, or show some twice.
    """
    for part in part_configs(cfg):
        _check_part(part)
    loader = cfg.test_dataloader
    for key, why in _LEFT_OUT.items():
        if loader.get(key) is not None:
            raise ValueError(f"test_dataloader.{key} {why}")
    sampler = loader.get("sampler")
    if sampler is not None and type_name(sampler) not in _SAMPLERS:
        raise ValueError(
            f"test_dataloader.sampler must be one of {', '.join(_SAMPLERS)}, because a test shows every image once; "
            f"got {type_name(sampler)}: for a part of the images take test_dataloader.dataset.indices"
        )
    if loader.pop("drop_last", False):
        print_log("test_dataloader.drop_last is not used: the last batch counts, even if it is not full.", "current")


def _check_part(part: Mapping[str, Any]) -> None:
    """See that what is read of a data set's block, here and in mmseg, is of the type that it is taken for."""
    prefix, pipeline = part.get("data_prefix", {"img_path": ""}), part.get("pipeline", [])
    folders = list(prefix.values()) if isinstance(prefix, Mapping) and "img_path" in prefix else [None]
    if not all(isinstance(folder, str) for folder in folders):
        raise ValueError(f"data_prefix of a data set must be dict(img_path=..., seg_map_path=...), got {prefix!r}")
    if not isinstance(pipeline, (list, tuple)):
        raise ValueError(f"pipeline of a data set must be a list of transforms, got {pipeline!r}")
    for key in _TEXTS:
        value = part.get(key) or ""
        if not isinstance(value, str) or (part.get(key, "") is None and key != "data_root"):
            raise ValueError(f"{key} of a data set must be a text, got {part[key]!r}")


def parts(dataset: Any) -> list[BaseDataset]:
    """The data sets that one joins, or itself."""
    inner = getattr(dataset, "datasets", None)
    return [dataset] if inner is None else [part for one in inner for part in parts(one)]


def data_root(dataset: Any) -> str | None:
    """The folder that names of images are relative to; of several data sets, the one that all lie in."""
    roots = [getattr(part, "data_root", None) for part in parts(dataset)]
    return roots[0] if len(roots) == 1 else common_folder(root or "." for root in roots)


def named_infos(dataset: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name, relative to :func:`data_root`, and what the data set knows, of each image."""
    root = data_root(dataset)
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        yield image_name(info["img_path"], root), info


def run_files(dataset: Any, out: str | None, show_dir: str | None) -> RunFiles:
    """The files that a run writes for the images of a data set.

    Raises:
        ValueError: They would overwrite images, label maps, or each other.
    """
    infos = [info for _, info in named_infos(dataset)]
    images = [Path(whole(info["img_path"])) for info in infos]
    root = common_folder(whole(part.data_prefix.get("img_path") or ".") for part in parts(dataset))
    if root is None or not all(path.is_relative_to(root) for path in images):
        root = common_folder(path.parent for path in images)
    for keep_suffix in (False, True):
        files = RunFiles(out, show_dir, root, keep_suffix)
        names = [path for image in images for path in files.paths(image).values()]
        if len(set(names)) == len(names):
            break
    else:
        raise ValueError(f"--out and --show-dir need folders of their own, got {out} and {show_dir}")
    read = {Path(info[key]).resolve() for info in infos for key in ("img_path", "seg_map_path") if info.get(key)}
    lost = [path for path in names if path.resolve() in read]
    if lost:
        raise ValueError(f"{lost[0]} would be overwritten, which is a file of the data set: give --out another folder")
    return files


def set_short_side(cfg: Config, pixels: int) -> None:
    """Let the pictures' short side be resized to so many pixels; `test_pipeline` stays that of the data set.

    Args:
        cfg: Is changed.
        pixels: At least 1; the limit of the long side stays.

    Raises:
        ValueError: A pipeline has no step Resize(scale=(long, short), keep_ratio=True), or several.
    """
    pipelines = [part.get("pipeline", []) for part in part_configs(cfg)]
    if cfg.get("test_pipeline") is not None:
        pipelines.append(cfg.test_pipeline)
    for pipeline in pipelines:
        steps: list[Any] = [step for step in pipeline if isinstance(step, Mapping) and type_name(step) == "Resize"]
        if len(steps) != 1 or not (steps[0].get("keep_ratio") and isinstance(steps[0].get("scale"), (list, tuple))):
            raise ValueError(
                "the published short side needs one step dict(type='Resize', scale=(long, short), keep_ratio=True) in "
                f"the pipeline, got {steps}; --protocol shared keeps the pipeline"
            )
        steps[0]["scale"] = (max(steps[0]["scale"]), pixels)


def loads_labels(part: Mapping[str, Any]) -> bool:
    """Whether the pipeline of a data set's block reads label maps."""
    return any(_is_label_step(step) for step in part.get("pipeline", ()))


def without_labels(cfg: Config) -> None:
    """Take the label maps out of a config: neither their folder nor the step that reads them stays."""
    for part in part_configs(cfg):
        part.pipeline = [step for step in part.get("pipeline", ()) if not _is_label_step(step)]
        part.data_prefix = {"img_path": part.get("data_prefix", {}).get("img_path", "")}


def _is_label_step(step: Any) -> bool:
    name = type_name(step) if isinstance(step, Mapping) else type(step).__name__
    return name.startswith("Load") and "Annotation" in name
