"""What any methods cost beside the plain tower: arithmetic, parameters, time, memory, and where the time goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rfclip.cost.bench import Bench, Size, plain
from rfclip.cost.flops import count, count_flops, count_parameters
from rfclip.cost.memory import device_peak_of
from rfclip.cost.parts import time_parts
from rfclip.cost.timing import Spread, ratios, take_turns
from rfclip.io.tables import markdown, number
from rfclip.methods import Method
from rfclip.methods.needs import WINDOWS, needs_of
from rfclip.methods.vision import SightedMethod
from rfclip.pipeline.settings import Settings
from rfclip.pipeline.windows import Windows
from rfclip.runs.reference import HEADING, published

PLAIN = "plain"
NAMES = "voc21"  # the benchmark whose number of names a method that needs the words is given


@dataclass(frozen=True)
class MethodCost:
    """What a method costs for one image.

    Attributes:
        method: as it was asked for; 'plain': the tower without a method.
        kind: class of the method; '' for plain.
        size: (height, width) of the image in pixels.
        flops: operations, two per multiply-add; text tower and labels not included.
        parameters: of both towers of CLIP, and of the vision model if there is one.
        seconds: of dense encoding.
        ratio: the same as a multiple of plain, round by round.
        samples: seconds of each round.
        memory: peak above the loaded model in bytes; None where the system tells none.
        parts: share (0..1) of the time in each function that the method calls; empty on a GPU.
    """

    method: str
    kind: str
    size: Size
    flops: int
    parameters: int
    seconds: Spread
    ratio: Spread
    samples: tuple[float, ...]
    memory: int | None
    parts: dict[str, float]


def measure(names: Sequence[str], bench: Bench, size: Size, repeats: int) -> list[MethodCost]:
    """Count and time methods on one image, in turns with the plain tower.

    Args:
        names: profiles or registered methods.
        bench: the tower.
        size: (height, width) of the image in pixels.
        repeats: timed rounds after the warm-up.
    """
    images = bench.images(1, size)
    methods = {name: bench.method(name) for name in names}
    tasks = {PLAIN: lambda: plain(bench.tower.vit, images)}
    tasks |= {name: encoding(method, bench, images) for name, method in methods.items()}
    flops = {name: count_flops(task) for name, task in tasks.items()}
    _, parameters = count_parameters(bench.scale.model)
    samples = take_turns(tasks, repeats)
    on_cpu = bench.device.type == "cpu"
    return [
        MethodCost(
            name,
            type(methods[name]).__name__ if name in methods else "",
            (images.shape[-2], images.shape[-1]),
            flops[name],
            parameters + seen_by(methods.get(name)),
            Spread.of(samples[name]),
            ratios(samples[name], samples[PLAIN]),
            tuple(samples[name]),
            device_peak_of(task, bench.device),
            time_parts(task, entry(methods[name])) if on_cpu and name in methods else {},
        )
        for name, task in tasks.items()
    ]


def encoding(method: Method, bench: Bench, images: Tensor) -> Callable[[], Tensor]:
    """A task that encodes images with a method, which is given random text where it needs the words."""
    settings = Settings(Windows())
    engine, queries = bench.engine_of(method, settings), bench.queries(NAMES, settings)
    corners = [(0, 0)] if WINDOWS in needs_of(method) else None
    return lambda: engine.encode(images, queries=queries, corners=corners, picture=images[0]).patches


def entry(method: Method) -> Callable[..., object]:
    """The function through which the engine calls a method."""
    kind: Any = type(method)
    function: Callable[..., object] = kind.joined if WINDOWS in needs_of(method) else kind.__call__
    return function


def seen_by(method: Method | None) -> int:
    """Parameters of a method's vision model, 0 without one."""
    return count(method.sight.model.tower) if isinstance(method, SightedMethod) else 0


def table(costs: Sequence[MethodCost]) -> str:
    """The costs in Markdown, the published ones below them, and where each method's time goes."""
    heads = ["method", "size", "G multiply-adds", "M parameters", "images/s", "x plain", "peak MB"]
    rows = [
        [
            cost.method,
            f"{cost.size[0]}x{cost.size[1]}",
            f"{cost.flops / 2e9:.2f}",
            f"{cost.parameters / 1e6:.1f}",
            f"{1 / cost.seconds.median:.2f}",
            cost.ratio.text(),
            number(None if cost.memory is None else cost.memory / 1e6, 0, "-"),
        ]
        for cost in costs
    ]
    rows += [
        [f"{row['method']} [published]", "VOC21", f"{row['gflops']:.1f}", f"{row['parameters_millions']:.1f}",
         f"{row['images_per_second']:.1f}", "", ""]
        for row in published()["cost"]
    ]  # fmt: skip
    notes = [f"Rows marked [published]: {HEADING}.", *_claim(costs)]
    return "\n".join([markdown(heads, rows), *notes, _parts(costs)])


def _claim(costs: Sequence[MethodCost]) -> list[str]:
    """What of the published claim, RF-CLIP beside ProxyCLIP, is measured here, if both are."""
    mine, other = ([cost for cost in costs if cost.kind == kind] for kind in ("RefocusCLIP", "ProxyCLIP"))
    if not (mine and other):
        return []
    speed = {row["method"]: row["images_per_second"] for row in published()["cost"]}
    here = other[0].seconds.median / mine[0].seconds.median
    there = speed["RF-CLIP"] / speed["ProxyCLIP (+DINO)"]
    return [f"Images per second, {mine[0].method} / {other[0].method}: {here:.2f} here, {there:.2f} published."]


def _parts(costs: Sequence[MethodCost]) -> str:
    rows = [
        [cost.method, ", ".join(f"{name} {100 * share:.0f} %" for name, share in cost.parts.items())]
        for cost in costs
        if cost.parts
    ]
    return f"\n{markdown(['method', 'its time, by the functions that it calls'], rows)}" if rows else ""
