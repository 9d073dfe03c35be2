"""Peak resident memory of the whole pipeline above the loaded model, each case in a process of its own.

Linux only: the kernel's high-water mark of a process is reset after loading (/proc/self/clear_refs), and read
when one image is labelled.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch

from rfclip.cost.bench import FULL, QUICK, Bench, Case, Scale
from rfclip.cost.weights import Tower, empty_tower, model_config
from rfclip.data import PACKAGE

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # what the kernel wants to be told, proc(5)
_GIGABYTE = 1e9


class NotMeasurableError(RuntimeError):
    """This system does not tell a process its peak memory, or does not let it be reset."""


@dataclass(frozen=True)
class Row:
    """A case and the most memory that it may take, in units of 10^9 bytes."""

    name: str
    title: str
    case: Case
    limit: float


@dataclass(frozen=True)
class MemoryResult:
    """Peak memory of a row.

    Attributes:
        row: its name.
        title: what was labelled.
        profile: 'release' or 'paper'.
        pamr: whether the labels were refined.
        peak: above the loaded model, in 10^9 bytes.
        loaded: resident with the model and before the image, in 10^9 bytes.
        limit: of the peak, in 10^9 bytes.
    """

    row: str
    title: str
    profile: str
    pamr: bool
    peak: float
    loaded: float
    limit: float


ROWS = (
    Row("memory-voc21", "VOC21, 336x448 to 375x500", Case("voc21", (336, 448), (375, 500)), 0.6),
    Row("memory-coco_object", "COCO-Object, 336x336 to 640x640", Case("coco_object", (336, 336), (640, 640)), 1.0),
    Row("memory-ade20k", "ADE20K, 336x448 to 1536x2048", Case("ade20k", (336, 448), (1536, 2048)), 2.0),
    Row(
        "memory-cityscapes",
        "Cityscapes, 560x1120 to 1024x2048",
        Case("cityscapes", (560, 1120), (1024, 2048)),
        1.0,
    ),
)


def measure(row: Row, bench: Bench, profile: str, pamr: bool) -> MemoryResult:
    """Label one image of a row in a fresh process, with the bench's tower.

    Raises:
        NotMeasurableError: the system is no Linux, or /proc is not writable.
    """
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "tower.pt"
        torch.save({"state": bench.tower.vit.state_dict(), "dims": bench.tower.dims}, weights)
        order = {
            "weights": str(weights),
            "quick": bench.scale is QUICK,
            "case": astuple(row.case),
            "profile": profile,
            "pamr": pamr,
            "threads": torch.get_num_threads(),
        }
        found = _in_fresh_process(order)
    return MemoryResult(row.name, row.title, profile, pamr, found["peak"], found["loaded"], row.limit)


def environment() -> dict[str, str]:
    """Return the environment for a process that is to import this very package, installed or not."""
    path = [str(PACKAGE.resolve().parent), os.environ.get("PYTHONPATH")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def peak_of(task: Callable[[], object]) -> tuple[int, int]:
    """Return the peak resident memory of a task above what is resident before it, and the latter, in bytes.

    Raises:
        NotMeasurableError: the system is no Linux, or /proc is not writable.
    """
    _give_back_free_memory()
    try:
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
        before = _status("VmRSS")
        task()
        return _status("VmHWM") - before, before
    except (OSError, LookupError) as error:
        raise NotMeasurableError(
            f"peak memory is read from {_STATUS} and reset through {_CLEAR}, which needs Linux and a writable "
            f"/proc: {error}"
        ) from error


def device_peak_of(task: Callable[[], object], device: torch.device) -> int | None:
    """Return the peak memory of a task above what is taken before it, in bytes; None where the system tells none.

    On a GPU it is what torch's tensors take there; on a CPU, the process's resident memory.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        task()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        return peak_of(task)[0] if device.type == "cpu" else None
    except NotMeasurableError:
        return None


def _in_fresh_process(order: Mapping[str, Any]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "rfclip.cost.memory", json.dumps(order)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NotMeasurableError(f"the measuring process failed:\n{done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def _label_one_image(order: Mapping[str, Any]) -> dict[str, float]:
    """What the fresh process does."""
    torch.set_num_threads(order["threads"])
    scale: Scale = QUICK if order["quick"] else FULL
    bench = Bench(_load(Path(order["weights"]), scale), scale, torch.device("cpu"))
    benchmark, seen, labelled = order["case"]
    case = Case(benchmark, tuple(seen), tuple(labelled))
    peak, loaded = peak_of(bench.to_labels(case, order["profile"], order["pamr"]))
    return {"peak": peak / _GIGABYTE, "loaded": loaded / _GIGABYTE}


def _load(weights: Path, scale: Scale) -> Tower:
    kept = torch.load(weights, weights_only=True)
    with torch.device("meta"):
        vit = empty_tower(model_config(scale.model))
    vit.load_state_dict(kept["state"], assign=True)
    return Tower(vit.requires_grad_(False), tuple(kept["dims"]))


def _give_back_free_memory() -> None:
    """Let the C library return what it keeps for later, which a task could otherwise use unseen."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim is not None:
            trim(0)


def _status(field: str) -> int:
    """Return a field of /proc/self/status in bytes."""
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise LookupError(f"no {field} in {_STATUS}")


if __name__ == "__main__":
    print(json.dumps(_label_one_image(json.loads(sys.argv[1]))))
