"""One benchmark run: a config and options in, results.json out; resumable at every image."""

from __future__ import annotations

import errno
import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import BaseFileLock, FileLock, Timeout
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, get_world_size, is_main_process
from mmengine.logging import print_log
from mmengine.runner import Runner

from rfclip.benchmarks.datasets import CheckedPipeline, words
from rfclip.benchmarks.listing import check_vocabulary, list_dataset, unread
from rfclip.benchmarks.options import Options, benchmark_name, build_config
from rfclip.benchmarks.test_set import data_root, named_infos, part_configs, parts, run_files
from rfclip.checks import UserError
from rfclip.io.atomic import write_whole
from rfclip.methods.vision import Sight
from rfclip.runs.alarms import alarms
from rfclip.runs.areas import AreaLog, DataError, ImageAreas
from rfclip.runs.files import RunFiles
from rfclip.runs.manifest import (
    Facts,
    Manifest,
    Results,
    VisionFacts,
    WeightsFacts,
    circumstances,
    data_facts,
    decisive_facts,
    fingerprints,
)
from rfclip.runs.metric import MEASURES, score
from rfclip.runs.reference import same_run, verdict
from rfclip.words.vocabulary import load_vocabulary

RESULTS = "results.json"
LOCK = ".lock"  # held by the run that writes into a folder
PATIENCE = 15  # seconds; the data loader's workers of a killed run hold its lock for a few more
# What a config with a wrong entry, or one that is no Python, surfaces as in mmengine and mmseg; --traceback shows where
_SETUP_ERRORS = (OSError, ValueError, TypeError, LookupError, ImportError, SyntaxError, AttributeError, AssertionError)


def is_finished(options: Options) -> bool:
    """Whether the work dir holds results of exactly these settings, weights, code and data.

    Raises:
        UserError: As :func:`run`, as far as this needs no model.
    """
    with setting_up():
        cfg = build_config(options)
        log = AreaLog(options.work_dir / benchmark_name(cfg), decisive_facts(cfg, options.overrides())["identity"])
        dataset = list_dataset(cfg)
        return _finished(log, dataset, cfg, _files(cfg, dataset, options)) is not None


def run(options: Options) -> Mapping[str, Any]:
    """Run a benchmark and write ``<work_dir>/<benchmark>/results.json``.

    Returns:
        What was written: metrics (percent), per_class, manifest, alarms, expected. Nothing in other processes
        than the first.

    Raises:
        UserError: Something is missing, does not fit, or cannot be read or written.
    """
    with setting_up():
        if options.launcher == "pytorch" and not torch.cuda.is_available() and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo")  # mmengine's own way asks for a CUDA device
        cfg = build_config(options)
        dataset = list_dataset(cfg)
        facts = decisive_facts(cfg, options.overrides())
        check_vocabulary(load_vocabulary(cfg.model.vocabulary), dataset)
        folder = options.work_dir / benchmark_name(cfg)
    with _alone(folder):
        return _run_alone(cfg, dataset, facts, folder, options)


def _run_alone(cfg: Config, dataset: Any, facts: Facts, folder: Path, options: Options) -> Mapping[str, Any]:
    with setting_up():
        log, files = AreaLog(folder, facts["identity"]), _files(cfg, dataset, options)
        finished = _prepare(log, dataset, cfg, files, options.resume)
        if finished is not None:
            print_log(f"{folder / RESULTS} is finished and unchanged.", "current")
            return finished
        before = len(log.read(facts["vocabulary"]["classes"]))
        _connect(cfg, log, dataset, files, options)
        runner = Runner.from_cfg(cfg)
        void = 255 if len(dataset.metainfo["classes"]) <= 255 else cfg.test_evaluator.ignore_index
        for part in parts(runner.test_loop.dataloader.dataset):
            part.pipeline = CheckedPipeline(part.pipeline, void)
    started = time.time()
    with _running(folder):
        runner.test()
        if not is_main_process():
            return {}
        results = _results(runner, facts, _time(started, len(dataset), before), dataset, log)
        write_whole(folder / RESULTS, json.dumps(results, indent=1, allow_nan=False) + "\n")
    return results


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder for as long as this one writes there.

    Raises:
        UserError: Another run is at work there.
    """
    if not is_main_process():
        yield
        return
    with setting_up():
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        _acquire(lock, folder)
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: BaseFileLock, folder: Path) -> None:
    """Take the lock, or go on with a warning where the file system has none."""
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print_log(f"{folder} belongs to another run; waiting for up to {PATIENCE} s.", "current")
            lock.acquire(timeout=PATIENCE)
    except Timeout as error:
        raise ValueError(
            f"another run is writing into {folder}: wait for its end, or give another --work-dir"
        ) from error
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            raise
        print_log(
            f"{folder} cannot be locked ({error}): see to it that one run at a time writes there.",
            "current",
            logging.WARNING,
        )


def _files(cfg: Config, dataset: Any, options: Options) -> RunFiles:
    """The files that this run is asked for; an evaluator's output_dir is what --out is."""
    return run_files(dataset, options.out or cfg.test_evaluator.get("output_dir"), options.show_dir)


def _prepare(log: AreaLog, dataset: Any, cfg: Config, files: RunFiles, resume: bool) -> dict[str, Any] | None:
    """Clear what stands in the folder, or keep what is still true; return finished results, in every process."""
    finished: list[Any] = [None]
    if is_main_process():
        finished = [_finished(log, dataset, cfg, files) if resume else None]
        if finished[0] is None:
            lines = log.read(len(dataset.metainfo["classes"])) if resume else {}
            now = fingerprints(dataset, lines.keys()) if lines else {}
            same = {name: areas for name, areas in lines.items() if areas.data == now.get(name)}
            kept = _with_files(same, dataset, files)
            if len(same) < len(now):
                print_log(f"{len(now) - len(same)} finished images have changed and are done again.", "current")
            if len(kept) < len(same):
                print_log(f"{len(same) - len(kept)} finished images lack a file and are done again.", "current")
            log.keep(kept)
            (log.folder / RESULTS).unlink(missing_ok=True)
    broadcast_object_list(finished)
    return finished[0]


def _with_files(lines: Mapping[str, ImageAreas], dataset: Any, files: RunFiles) -> list[ImageAreas]:
    """The lines of the images whose files, as far as they are asked for, lie there as the resumed run wrote them."""
    infos = ((name, info["img_path"]) for name, info in named_infos(dataset) if name in lines)
    return [lines[name] for name, image in infos if files.are_there(image, lines[name].written)]


def _finished(log: AreaLog, dataset: Any, cfg: Config, files: RunFiles) -> dict[str, Any] | None:
    """The results in a folder, if they are all that is asked for, of these settings and of this data."""
    results = _read(log.folder / RESULTS)
    if not same_run(results.get("manifest"), log.run, lambda: data_facts(fingerprints(dataset))):
        return None
    asked = {f"m{name}" for metric in cfg.test_evaluator.get("iou_metrics", ()) for name in MEASURES[metric]}
    whole = len(_with_files(log.read(len(dataset.metainfo["classes"])), dataset, files)) == len(dataset)
    return results if whole and asked <= results.get("metrics", {}).keys() else None


def _connect(cfg: Config, log: AreaLog, dataset: Any, files: RunFiles, options: Options) -> None:
    """Tell metric, sampler and runner where things go."""
    folder, where = log.folder, {"log_dir": str(log.folder), "run": log.run}
    cfg.work_dir = str(folder)
    cfg.experiment_name = cfg.visualizer.name = f"{folder.name}-{time.time_ns()}"  # mmengine keeps them by name
    cfg.launcher = options.launcher
    for part in part_configs(cfg):
        part.test_mode = True  # else an image that a step drops is replaced by another one
    to = {"output_dir": files.out, "show_dir": files.show_dir}
    names = {"data_root": data_root(dataset), "image_root": files.image_root, "keep_suffix": files.keep_suffix}
    cfg.test_evaluator = dict(cfg.test_evaluator, **where, **to, **names)
    cfg.test_dataloader.sampler = dict(type="UnfinishedSampler", **where)
    cfg.test_dataloader.persistent_workers = False  # one pass: kept on, they are waited for, up to 5 s each


def _results(runner: Runner, facts: Facts, time_taken: dict[str, Any], dataset: Any, log: AreaLog) -> Results:
    names = dataset.metainfo["classes"]
    areas_of = log.read(len(names))
    images = list(areas_of.values())
    about = circumstances()
    manifest: Manifest = {
        **facts,
        "weights": {**facts["weights"], **_loaded(runner.model)},
        "vision": _loaded_vision(runner.model, facts["vision"]),
        "versions": about["versions"],
        "machine": {**about["machine"], "processes": get_world_size()},
        "time": time_taken,
        "data": data_facts({name: areas.data for name, areas in areas_of.items()}),
    }
    evaluator = runner.cfg.test_evaluator
    total = np.sum([areas.classes for areas in images], axis=0)
    scores = score(total, evaluator.get("iou_metrics", ()), evaluator.get("beta", 1.0))
    scored = not evaluator.get("format_only", False)
    leaves_out = ("reduce_zero_label", "label_map")  # what a data set does with classes that it does not count
    by_design = any(getattr(part, name, None) for part in parts(dataset) for name in leaves_out)
    found = alarms(images, names, by_design, evaluator.ignore_index) if scored else []
    found += unread(dataset)
    for sentence in found:
        print_log(sentence, "current", logging.WARNING)
    metrics = {name: None if np.isnan(value) else value for name, value in scores.metrics().items()}
    results: Results = {
        "metrics": metrics,
        "per_class": scores.per_class(names),
        "manifest": manifest,
        "alarms": found,
        "expected": None,
    }
    expected = results["expected"] = verdict(benchmark_name(runner.cfg), results) if scored else None
    if expected is not None:
        print_log(expected["sentence"], "current")
    return results


def _time(started: float, total: int, before: int) -> dict[str, Any]:
    seconds, images = time.time() - started, total - before
    return {
        "started": datetime.fromtimestamp(started, timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(seconds, 2),
        "images": images,
        "images_per_second": round(images / seconds, 3),
        "resumed_after": before,
    }


def _loaded(model: Any) -> WeightsFacts:
    """What the weights turned out to be, where the model tells."""
    loaded = getattr(getattr(model, "module", model), "loaded", None)
    if loaded is None:
        return {}
    return {
        "sha256": loaded.weights_hash,
        "architecture": loaded.architecture,
        "origin": loaded.origin,
        "activation": loaded.activation,
    }


def _loaded_vision(model: Any, asked: VisionFacts | None) -> VisionFacts | None:
    """What was asked of a vision model, and what its weights turned out to be."""
    if asked is None:
        return None
    sight: Sight = getattr(model, "module", model).method.sight
    return {**asked, "sha256": sight.model.weights_hash}


def _read(path: Path) -> dict[str, Any]:
    """A JSON object, empty if there is none or it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@contextmanager
def setting_up() -> Iterator[None]:
    """Errors while a run is put together are about what the user gave: pass their sentence on."""
    try:
        yield
    except _SETUP_ERRORS as error:
        raise UserError(words(error)) from error


@contextmanager
def _running(folder: Path) -> Iterator[None]:
    """Errors of files during a run: say which, and that nothing is lost."""
    try:
        yield
    except (OSError, DataError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker"):
            raise
        raise UserError(f"{_last_line(error)}; finished images are kept in {folder}, --resume goes on") from error


def _last_line(error: Exception) -> str:
    """The sentence of an error, also of one that comes with a worker's traceback."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error).strip().splitlines()[-1].removeprefix(f"{DataError.__module__}.DataError: ")
