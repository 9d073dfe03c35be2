"""What a benchmark run is told, and the config that comes of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from rfclip.benchmarks.config_keys import check_keys, warn_of_near_keys
from rfclip.benchmarks.configs import config_root, find_profile, profile_name, refiner_block
from rfclip.benchmarks.protocols import PUBLISHED, apply_published, choose_protocol
from rfclip.benchmarks.test_set import check_loader, loads_labels, part_configs, type_name, without_labels
from rfclip.checks import check_switch
from rfclip.clip.sources import brings_weights
from rfclip.methods.base import METHODS
from rfclip.runs.metric import MEASURES

LOG = logging.getLogger(__name__)
_OWN = {"ignore_index", "prefix", "collect_device", "beta", "format_only"}  # settings of the evaluator


@dataclass(frozen=True)
class Options:
    """What a run may be told on the command line.

    Attributes:
        config: A config file.
        checkpoint: What ``clip.pretrained`` takes, or None to keep the config's.
        model: What ``clip.model`` takes, or None to keep the config's.
        profile: what :func:`rfclip.benchmarks.configs.find_profile` takes; None keeps the config's method.
        refiner: What :func:`rfclip.benchmarks.configs.refiner_block` takes; None keeps the config's refiner.
        data_root: Replaces the leading 'data' of the config's data root.
        work_dir: Results go to a folder in it named after the benchmark.
        out: Folder for the predicted label maps.
        show_dir: Folder for painted images.
        cfg_options: Config entries to replace at the very end, by dotted key.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.
        resume: Keep what an interrupted run of the same settings, weights, code and data has finished.
        quick_gelu, origin: What ``clip.quick_gelu`` and ``clip.origin`` take, or None to keep the config's.
        protocol: 'published': the settings that the authors of the profile's method published, where it has some;
            'shared': the config's; None: published with a profile that has some for the benchmark, else shared.
    """

    config: Path
    checkpoint: str | None = None
    model: str | None = None
    profile: str | None = None
    refiner: str | None = None
    data_root: str | None = None
    work_dir: Path = Path("work_dirs")
    out: str | None = None
    show_dir: str | None = None
    cfg_options: Mapping[str, Any] = field(default_factory=dict)
    launcher: str = "none"
    resume: bool = False
    quick_gelu: bool | None = None
    origin: str | None = None
    protocol: str | None = None

    def overrides(self) -> dict[str, Any]:
        """The options that change the config's numbers, as given."""
        given = {
            "checkpoint": self.checkpoint,
            "model": self.model,
            "profile": self.profile,
            "protocol": self.protocol,
            "refiner": self.refiner,
            "quick_gelu": self.quick_gelu,
            "origin": self.origin,
            **self.cfg_options,
        }
        return {key: value for key, value in given.items() if value is not None}


def build_config(options: Options) -> Config:
    """Read the config and merge the options in.

    Raises:
        FileNotFoundError: No such config.
        ValueError: An unknown profile, refiner or protocol, a protocol that has nothing for the benchmark, a data root
            that cannot be moved, or a setting that would not count.
    """
    if not Path(options.config).is_file():
        raise FileNotFoundError(f"config {options.config} not found; the benchmarks' are in {config_root() / 'rfclip'}")
    cfg = Config.fromfile(options.config)
    warn_of_near_keys(cfg)
    _take_method(cfg, options)
    if options.refiner is not None:
        _take_refiner(cfg, options.refiner)
    if options.model is not None:
        cfg.model.clip.model = options.model
        if brings_weights(options.model):
            cfg.model.clip.pretrained = None
    if options.checkpoint is not None:
        cfg.model.clip.pretrained = options.checkpoint
    for name in ("quick_gelu", "origin"):
        if getattr(options, name) is not None:
            cfg.model.clip[name] = getattr(options, name)
    for part in part_configs(cfg) if options.data_root is not None else ():
        old = Path(part.get("data_root") or "")
        if old.parts[:1] != ("data",):
            raise ValueError(f"--data-root replaces a leading 'data', but the config's data root is {old}")
        part.data_root = str(Path(str(options.data_root), *old.parts[1:]))
    check_keys(cfg, options.cfg_options)
    _merge(cfg, options.cfg_options)
    if cfg.get("load_from"):
        raise ValueError(f"load_from={cfg.load_from!r} is not read: give the weights as CHECKPOINT or clip.pretrained")
    check_loader(cfg)
    _check_evaluator(cfg)
    _check_labels(cfg, options)
    return cfg


def _take_refiner(cfg: Config, name: str) -> None:
    """Put a refiner in place of the config's, or take that out; ValueError for an unknown one."""
    block = refiner_block(name)
    if block is not None:
        cfg.model.refiner = block
    elif cfg.model.get("refiner") is not None:
        del cfg.model.refiner


def _take_method(cfg: Config, options: Options) -> None:
    """Merge the profile in, and what was published with it, and note the protocol as an entry of the config.

    Raises:
        ValueError: As :func:`build_config`.
    """
    profile, benchmark = None, benchmark_name(cfg)
    if options.profile is not None:
        profile, changes = find_profile(options.profile)
        cfg.merge_from_dict(changes)
    elif options.protocol == PUBLISHED:
        profile = profile_name(cfg.model.get("method", {})).partition(" ")[0]
    cfg.protocol = choose_protocol(options.protocol, profile, benchmark)
    if profile is not None and cfg.protocol == PUBLISHED:
        apply_published(cfg, profile, benchmark, clip=options.model is None)
    kind = METHODS.get(type_name(cfg.model.method)) if options.profile is not None else None
    if cfg.model.get("prior") is not None and getattr(kind, "gives_scores", False) is True:
        cfg.model.prior = None
        LOG.warning(
            f"{type_name(cfg.model.method)} gives scores in place of cosines, which the config's prior cannot be added "
            "to: it runs without the prior, and the manifest says so."
        )


def _merge(cfg: Config, entries: Mapping[str, Any]) -> None:
    """Merge entries by dotted key; `test_pipeline`, a copy for mmseg's inferencers, stays that of the data set.

    Raises:
        ValueError: The two are changed to different things.
    """
    part_configs(cfg)  # says what is missing
    before = deepcopy((cfg.get("test_pipeline"), cfg.test_dataloader.dataset.get("pipeline")))
    cfg.merge_from_dict(dict(entries))
    shown, used = cfg.get("test_pipeline"), cfg.test_dataloader.dataset.get("pipeline")
    if used is None and shown != before[0]:
        raise ValueError(
            "test_pipeline is no part of a ConcatDataset: change test_dataloader.dataset.datasets.0.pipeline"
        )
    if shown is None or used is None:
        return
    if shown != used and shown != before[0] and used != before[1]:
        raise ValueError("test_pipeline and test_dataloader.dataset.pipeline are given and differ: give one of them")
    cfg.test_pipeline = cfg.test_dataloader.dataset.pipeline = used if shown == before[0] else shown


def _check_evaluator(cfg: Config) -> None:
    """Let the evaluator be the one that results.json is made from; mmseg's IoUMetric, or several of them, become it.

    Raises:
        ValueError: Another evaluator, several that differ in more than their metrics, or settings that it has not.
    """
    given = cfg.get("test_evaluator")
    listed = given if isinstance(given, (list, tuple)) else [given]
    entries = [dict(entry) if isinstance(entry, Mapping) else {} for entry in listed]
    metrics = [name for entry in entries for name in _names(entry.pop("iou_metrics", "mIoU"))]
    only = entries[0] if entries and all(entry == entries[0] for entry in entries) else {}
    kind, alone = type_name({"type": only.pop("type", "")}), only.get("format_only", False)
    check_switch("test_evaluator.format_only", alone)  # with it, output_dir is what --out is
    known = only.keys() <= _OWN | ({"output_dir"} if alone else set())
    if kind not in ("ExactIoUMetric", "IoUMetric") or not all(map(_is_measured, metrics)) or not known:
        raise ValueError(
            "test_evaluator must be dict(type='ExactIoUMetric', ignore_index=..., iou_metrics=[...]), which gives "
            f"mIoU, aAcc and mAcc, and more with {' and '.join(map(repr, MEASURES))} (--out writes label maps); "
            f"got {given}"
        )
    more = [name for name in dict.fromkeys(metrics) if name != "mIoU"]
    cfg.test_evaluator = {"type": "ExactIoUMetric", "ignore_index": 255, **only}
    if more:
        cfg.test_evaluator.iou_metrics = more


def _names(metrics: Any) -> list[Any]:
    return list(metrics) if isinstance(metrics, (list, tuple)) else [metrics]


def _is_measured(metric: Any) -> bool:
    return isinstance(metric, str) and metric in ("mIoU", *MEASURES)


def _check_labels(cfg: Config, options: Options) -> None:
    """Let a test set without labels, or an evaluator with ``format_only``, be a run that writes label maps alone.

    Raises:
        ValueError: Nothing would be written, or a part has labels and another one has none.
    """
    read = [loads_labels(part) for part in part_configs(cfg)]
    if not cfg.test_evaluator.pop("format_only", False) and all(read):
        return
    if any(read) and not all(read):
        raise ValueError(
            "some data sets of the ConcatDataset read labels (LoadAnnotations) and some do not: test them apart"
        )
    if not (options.out or options.show_dir or cfg.test_evaluator.get("output_dir")):
        raise ValueError(
            "this test set has no labels (no LoadAnnotations, or format_only), so there are no scores: give --out "
            "FOLDER for its label maps, or take rfclip segment FOLDER, which needs no config"
        )
    cfg.test_evaluator.format_only = True
    without_labels(cfg)


def benchmark_name(cfg: Config) -> str:
    """The benchmark a config is for: its ``benchmark`` entry, or the name of its file."""
    return str(cfg.get("benchmark") or Path(cfg.filename).stem)
