"""What any methods cost beside the plain tower: arithmetic and time, in one run on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rfclip.benchmarks.configs import method_block
from rfclip.cost.bench import Bench, Size, plain
from rfclip.cost.flops import count_flops, count_parameters
from rfclip.cost.timing import Spread, ratios, take_turns
from rfclip.io.tables import markdown
from rfclip.methods import METHODS, Method
from rfclip.methods.build import fit_layers

PLAIN = "plain"


@dataclass(frozen=True)
class MethodCost:
    """What a method costs for one image.

    Attributes:
        method: as it was asked for; 'plain': the tower without a method.
        size: (height, width) of the image in pixels.
        flops: operations, two per multiply-add; text tower and labels not included.
        parameters: of both towers.
        seconds: of dense encoding.
        ratio: the same as a multiple of plain, round by round.
        samples: seconds of each round.
    """

    method: str
    size: Size
    flops: int
    parameters: int
    seconds: Spread
    ratio: Spread
    samples: tuple[float, ...]


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
    tasks |= {name: lambda method=method: method(bench.tower.vit, images).patches for name, method in methods.items()}  # type: ignore[misc]
    flops = {name: count_flops(task) for name, task in tasks.items()}
    _, parameters = count_parameters(bench.scale.model)
    samples = take_turns(tasks, repeats)
    seen = (images.shape[-2], images.shape[-1])
    return [
        MethodCost(
            name,
            seen,
            flops[name],
            parameters,
            Spread.of(samples[name]),
            ratios(samples[name], samples[PLAIN]),
            tuple(samples[name]),
        )
        for name in tasks
    ]


def table(costs: Sequence[MethodCost]) -> str:
    """The costs as a Markdown table: 10^9 multiply-adds, 10^6 parameters, images per second, times plain."""
    heads = ["method", "size", "G multiply-adds", "M parameters", "images/s", "x plain"]
    rows = [
        [
            cost.method,
            f"{cost.size[0]}x{cost.size[1]}",
            f"{cost.flops / 2e9:.2f}",
            f"{cost.parameters / 1e6:.1f}",
            f"{1 / cost.seconds.median:.2f}",
            cost.ratio.text(),
        ]
        for cost in costs
    ]
    return markdown(heads, rows)


def _fields(kind: str) -> Sequence[str]:
    return getattr(METHODS.get(kind), "__dataclass_fields__", ())
