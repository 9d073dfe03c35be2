"""One benchmark run: a config and options in, results.json out; resumable at every image."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.dist import broadcast_object_list, get_world_size, is_main_process
from mmengine.logging import print_log
from mmengine.runner import Runner

import rfclip.runtime  # noqa: F401  (registers the hook and the wrapper)
from rfclip.alarms import alarms
from rfclip.areas import AreaLog, DataError
from rfclip.datasets import CheckedPipeline
from rfclip.evaluation import score
from rfclip.expected import verdict
from rfclip.manifest import circumstances, decisive_facts
from rfclip.run_options import Options, benchmark_name, build_config, list_dataset

RESULTS = "results.json"
RUN = "run.json"  # what the lines of areas beside it belong to
_SETUP_ERRORS = (OSError, ValueError, TypeError, KeyError, ImportError)


class UserError(Exception):
    """Something that the user can put right; the message is one sentence that says what and how."""


def is_finished(options: Options) -> bool:
    """Whether the work dir holds results of exactly these settings, weights, code and data.

    Raises:
        UserError: As :func:`run`, as far as this needs no model.
    """
    with _setup():
        cfg = build_config(options)
        facts = decisive_facts(cfg, list_dataset(cfg), options.overrides())
        return _finished(options.work_dir / benchmark_name(cfg), facts["identity"]) is not None


def run(options: Options) -> dict[str, Any]:
    """Run a benchmark and write ``<work_dir>/<benchmark>/results.json``.

    Returns:
        What was written: metrics (percent), per_class, manifest, alarms, expected. Nothing in other processes
        than the first.

    Raises:
        UserError: Something is missing, does not fit, or cannot be read or written.
    """
    with _setup():
        _init_processes(options.launcher)
        cfg = build_config(options)
        dataset = list_dataset(cfg)
        facts = decisive_facts(cfg, dataset, options.overrides())
        _check_classes(facts, dataset)
        folder = options.work_dir / benchmark_name(cfg)
        finished = _prepare(folder, facts, options.resume)
        if finished is not None:
            print_log(f"{folder / RESULTS} is finished and unchanged.", "current")
            return finished
        before = len(AreaLog(folder).read(facts["vocabulary"]["classes"]))
        _connect(cfg, folder, options)
        runner = Runner.from_cfg(cfg)
        shown = runner.test_loop.dataloader.dataset
        shown.pipeline = CheckedPipeline(shown.pipeline)
    started = time.time()
    with _running(folder):
        runner.test()
        if not is_main_process():
            return {}
        manifest = {**facts, **circumstances(), "time": _time(started, len(dataset), before)}
        results = _results(runner, manifest, dataset, AreaLog(folder))
        _write(folder / RESULTS, results)
    return results


def _init_processes(launcher: str) -> None:
    """Without CUDA, join the other processes here by gloo: mmengine's own way asks for a CUDA device."""
    if launcher == "pytorch" and not torch.cuda.is_available() and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")


def _prepare(folder: Path, facts: Mapping[str, Any], resume: bool) -> dict[str, Any] | None:
    """Clear or keep what stands in the folder; return finished results, the same in every process."""
    finished: list[Any] = [None]
    if is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        finished = [_finished(folder, facts["identity"]) if resume else None]
        if finished[0] is None:
            if not (resume and _read(folder / RUN).get("identity") == facts["identity"]):
                AreaLog(folder).clear()
            (folder / RESULTS).unlink(missing_ok=True)
            _write(folder / RUN, {"identity": facts["identity"]})
    broadcast_object_list(finished)
    return finished[0]


def _finished(folder: Path, identity: str) -> dict[str, Any] | None:
    results = _read(folder / RESULTS)
    return results if results.get("manifest", {}).get("identity") == identity else None


def _connect(cfg: Config, folder: Path, options: Options) -> None:
    """Tell metric, sampler, visualizer and runner where things go."""
    cfg.work_dir = str(folder)
    cfg.experiment_name = cfg.visualizer.name = f"{folder.name}-{time.time_ns()}"  # mmengine keeps them by name
    cfg.launcher = options.launcher
    data_root = cfg.test_dataloader.dataset.data_root
    cfg.test_evaluator = dict(type="ExactIoUMetric", log_dir=str(folder), data_root=data_root, output_dir=options.out)
    cfg.test_dataloader.sampler = dict(type="UnfinishedSampler", log_dir=str(folder))
    if options.show_dir is not None:
        cfg.default_hooks.visualization = dict(type="SegVisualizationHook", draw=True, interval=1)
        cfg.visualizer.save_dir = options.show_dir


def _check_classes(facts: Mapping[str, Any], dataset: BaseDataset) -> None:
    asked, there = facts["vocabulary"]["classes"], len(dataset.metainfo["classes"])
    if asked != there:
        raise ValueError(f"the vocabulary has {asked} classes, but the data set has {there}")


def _results(runner: Runner, manifest: dict[str, Any], dataset: BaseDataset, log: AreaLog) -> dict[str, Any]:
    names = dataset.metainfo["classes"]
    images = list(log.read(len(names)).values())
    scores = score(np.sum([areas.classes for areas in images], axis=0))
    manifest["machine"]["processes"] = get_world_size()
    manifest["weights"] = {**manifest["weights"], **_loaded(runner.model)}
    found = alarms(images, names)
    for sentence in found:
        print_log(sentence, "current", logging.WARNING)
    metrics = {name: None if np.isnan(value) else value for name, value in scores.metrics().items()}
    results: dict[str, Any] = {"metrics": metrics, "per_class": scores.per_class(names), "manifest": manifest}
    results["alarms"] = found
    results["expected"] = verdict(benchmark_name(runner.cfg), results)
    if results["expected"] is not None:
        print_log(results["expected"]["sentence"], "current")
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


def _loaded(model: Any) -> dict[str, Any]:
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


def _read(path: Path) -> dict[str, Any]:
    """A JSON object, empty if there is none or it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON to a temporary file and rename it, so that no reader meets half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)


@contextmanager
def _setup() -> Iterator[None]:
    """Errors while a run is put together are about what the user gave: pass their sentence on."""
    try:
        yield
    except _SETUP_ERRORS as error:
        sentence = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
        raise UserError(" ".join(sentence.split())) from error


@contextmanager
def _running(folder: Path) -> Iterator[None]:
    """Errors of files during a run: say which, and that nothing is lost."""
    try:
        yield
    except (OSError, DataError) as error:
        raise UserError(f"{_last_line(error)}; finished images are kept in {folder}, --resume goes on") from error


def _last_line(error: Exception) -> str:
    """The sentence of an error, also of one that comes with a worker's traceback."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error).strip().splitlines()[-1].removeprefix(f"{DataError.__module__}.DataError: ")
