"""What methods cost beside the plain tower, measured once each and kept in a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from rfclip.benchmarks.configs import method_block
from rfclip.checks import is_out_of_memory
from rfclip.clip.tiny import TINY_FOLDER
from rfclip.cost.bench import FULL, Bench, Scale, Size
from rfclip.cost.methods import measure
from rfclip.io.atomic import write_whole
from rfclip.runs.manifest import circumstances, code_hash

REPEATS = 5
SIZE: Size = (336, 448)


def scale_of(model: str | None) -> Scale:
    """The bench that fits a CLIP; its tower has random weights, on which the time does not depend.

    Args:
        model: What ``clip.model`` takes; None: ViT-B-16.
    """
    if model == "tiny":
        return Scale(json.loads((TINY_FOLDER / "config.json").read_text(encoding="utf-8")), "the tiny CLIP")
    if model is not None and model.endswith(".json"):
        return Scale(json.loads(Path(model).read_text(encoding="utf-8")), Path(model).stem)
    return FULL if model is None else Scale(model, model)


def describe(scale: Scale, device: str, size: Size = SIZE, repeats: int = REPEATS) -> str:
    """On what is measured, in words."""
    machine = circumstances()["machine"]
    where = ", ".join(machine["gpus"]) if device != "cpu" and machine["gpus"] else f"{torch.get_num_threads()} threads"
    return (
        f"on one {size[0]}x{size[1]} image with the tower of {scale.name} (random weights), {device}, {where} of "
        f"{machine['cores']} cores ({machine['architecture']}), median of {repeats} rounds in turns with plain; "
        "without windows, prior and refiner"
    )


def measure_kept(
    names: Sequence[str], scale: Scale, device: str, file: Path, size: Size = SIZE, repeats: int = REPEATS
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Measure each method, unless the file has it of this code and this bench; the file is written after each.

    Yields:
        A method and what it costs: `ratio`, `least`, `greatest` as multiples of plain, `seconds`, `flops`,
        `parameters`, `memory`;
        or `why` there is nothing.
    """
    kept = _read(file)
    bench: Bench | None = None
    for name in names:
        key = _key(name, scale, device, size, repeats)
        if kept.get(name, {}).get("key") != key:
            bench = bench or Bench.build(scale, device)
            kept[name] = {**_measure(name, bench, size, repeats), "key": key}
            write_whole(file, json.dumps(kept, indent=1) + "\n")
        yield name, kept[name]


def _measure(name: str, bench: Bench, size: Size, repeats: int) -> dict[str, Any]:
    try:
        cost = measure([name], bench, size, repeats)[-1]
    except (ValueError, TypeError, RuntimeError, OSError, LookupError) as error:
        if is_out_of_memory(error):
            return {"why": "not enough memory"}
        return {"why": " ".join(str(error).split()) or type(error).__name__}
    ratio = cost.ratio
    found = {key: value for key, value in asdict(cost).items() if key in ("flops", "parameters", "memory", "samples")}
    found |= {"ratio": ratio.median, "least": ratio.least, "greatest": ratio.greatest, "seconds": cost.seconds.median}
    return found


def _key(name: str, scale: Scale, device: str, size: Size, repeats: int) -> str:
    deciding = [method_block(name), scale.name, scale.model, device, size, repeats, code_hash(), torch.__version__]
    return hashlib.sha256(json.dumps([*deciding, torch.get_num_threads()], default=str).encode()).hexdigest()[:16]


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
