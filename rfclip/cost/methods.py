"""What any methods cost beside the plain tower: arithmetic, parameters, time, memory, and where the time goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from rfclip.benchmarks.configs import method_block
from rfclip.cost.bench import Bench, Size, plain
from rfclip.cost.flops import count_flops, count_parameters
from rfclip.cost.memory import device_peak_of
from rfclip.cost.parts import time_parts
from rfclip.cost.timing import Spread, ratios, take_turns
from rfclip.io.tables import markdown, number
from rfclip.methods import METHODS, Method
from rfclip.methods.build import fit_layers
from rfclip.pipeline.steps import Settings, Windows
from rfclip.runs.reference import HEADING, published

PLAIN = "plain"
NAMES = "voc21"  # the benchmark whose number of names a method that needs the words is given


@dataclass(frozen=True)
class MethodCost:
    """What a method costs for one image.

    Attributes:
        method: as it was asked for; 'plain': the tower without a method.
        size: (height, width) of the image in pixels.
        flops: operations, two per multiply-add; text tower and labels not included.
        parameters: of both towers of CLIP.
        seconds: of dense encoding.
        ratio: the same as a multiple of plain, round by round.
        samples: seconds of each round.
        memory: peak above the loaded model in bytes; None where the system tells none.
        parts: share (0..1) of the time in each function that the method calls; empty on a GPU.
    """

    method: str
    size: Size
    flops: int
    parameters: int
    seconds: Spread
    ratio: Spread
    samples: tuple[float, ...]
    memory: int | None
    parts: dict[str, float]


def build(name: str, bench: Bench) -> Method:
    """Build a method for a bench's tower; its distraction dimensions are the planted ones.

    Raises:
        ValueError: no such profile and no such method.
    """
    block = method_block(name)
    if block.get("distraction_dims", "auto") == "auto" and "distraction_dims" in _fields(block["type"]):
        block["distraction_dims"] = bench.tower.dims
    return fit_layers(METHODS.build(block), block, bench.tower.vit)


def measure(names: Sequence[str], bench: Bench, size: Size, repeats: int) -> list[MethodCost]:
    """Count and time methods on one image, in turns with the plain tower.

    Args:
        names: profiles or registered methods.
        bench: the tower.
        size: (height, width) of the image in pixels.
        repeats: timed rounds after the warm-up.
    """
    images = bench.images(1, size)
    methods = {name: build(name, bench) for name in names}
    tasks = {PLAIN: lambda: plain(bench.tower.vit, images)}
    tasks |= {name: encoding(method, bench, images) for name, method in methods.items()}
    flops = {name: count_flops(task) for name, task in tasks.items()}
    _, parameters = count_parameters(bench.scale.model)
    samples = take_turns(tasks, repeats)
    on_cpu = bench.device.type == "cpu"
    return [
        MethodCost(
            name,
            (images.shape[-2], images.shape[-1]),
            flops[name],
            parameters,
            Spread.of(samples[name]),
            ratios(samples[name], samples[PLAIN]),
            tuple(samples[name]),
            device_peak_of(task, bench.device),
            time_parts(task, type(methods[name]).__call__) if on_cpu and name in methods else {},
        )
        for name, task in tasks.items()
    ]


def encoding(method: Method, bench: Bench, images: Tensor) -> Callable[[], Tensor]:
    """A task that encodes images with a method, which is given random text where it needs the words."""
    settings = Settings(Windows())
    engine, queries = bench.engine_of(method, settings), bench.queries(NAMES, settings)
    return lambda: engine.encode(images, queries=queries).patches


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
    return f"{markdown(heads, rows)}\nRows marked [published]: {HEADING}.\n{_parts(costs)}"


def _parts(costs: Sequence[MethodCost]) -> str:
    rows = [
        [cost.method, ", ".join(f"{name} {100 * share:.0f} %" for name, share in cost.parts.items())]
        for cost in costs
        if cost.parts
    ]
    return f"\n{markdown(['method', 'its time, by the functions that it calls'], rows)}" if rows else ""


def _fields(kind: str) -> Sequence[str]:
    return getattr(METHODS.get(kind), "__dataclass_fields__", ())
