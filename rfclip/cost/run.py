"""All measurements, by the names of their rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from rfclip.cost import flops, memory, precision, speed
from rfclip.cost.bench import FULL, PROFILES, QUICK, Bench
from rfclip.cost.memory import NotMeasurableError
from rfclip.cost.report import Report

GROUPS = {
    "speed": [row.name for row in speed.ROWS],
    "memory": [row.name for row in memory.ROWS],
    "precision": ["precision-speed", "precision-labels"],
    "cost": [f"cost-{backbone}" for backbone in flops.BACKBONES],
}
ROWS = tuple(name for names in GROUPS.values() for name in names)


def row_names(asked: str | None) -> list[str]:
    """Return the rows that a comma-separated list of rows and groups means; all of them for None.

    Raises:
        ValueError: there is no such row or group.
    """
    entries = [entry.strip() for entry in asked.split(",")] if asked else list(GROUPS)
    names = [name for entry in entries for name in GROUPS.get(entry, [entry])]
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise ValueError(f"no row '{unknown[0]}'; there are {', '.join([*GROUPS, *ROWS])}")
    return names


def measure(report: Report, rows: Collection[str], device: str, sample: Callable[[], Path]) -> Iterator[str]:
    """Measure rows into a report; yields what is done, whenever something is.

    Args:
        report: is filled; its `quick` and `repeats` count.
        rows: names.
        device: of the tower, except for memory and cost, which are measured on the CPU.
        sample: makes the sample benchmarks if need be, and returns their folder.

    Raises:
        NoDistractorsError: a method would have nothing to do in some layer.
    """
    scale = QUICK if report.quick else FULL
    bench = Bench.build(scale, device)
    for row in speed.ROWS:
        if row.name in rows:
            report.speed += speed.measure(row, bench, report.repeats)
            yield row.name
    for memory_row in memory.ROWS:
        if memory_row.name in rows:
            yield from _memory(report, memory_row, bench)
    if "precision-speed" in rows:
        report.speed_up += precision.measure_speed(bench, report.repeats)
        yield "precision-speed"
    if "precision-labels" in rows:
        yield from _labels(report, bench, sample())
    for backbone in flops.BACKBONES:
        if f"cost-{backbone}" in rows:
            model, name = (QUICK.model, "toy") if report.quick else (backbone, backbone)
            report.cost += flops.measure(model, name)
            yield f"cost-{backbone}"


def _memory(report: Report, row: memory.Row, bench: Bench) -> Iterator[str]:
    for profile, pamr in [*((profile, False) for profile in PROFILES), ("paper", True)]:
        if report.memory_unavailable is not None:
            return
        try:
            report.memory.append(memory.measure(row, bench, profile, pamr))
        except NotMeasurableError as error:
            report.memory_unavailable = str(error)
        yield f"{row.name} {profile}{' with PAMR' if pamr else ''}"


def _labels(report: Report, bench: Bench, data_root: Path) -> Iterator[str]:
    benchmarks = precision.BENCHMARKS[:1] if report.quick else precision.BENCHMARKS
    images = 1 if report.quick else precision.IMAGES
    for benchmark in benchmarks:
        for profile in PROFILES:
            for name in precision.precisions(bench.device):
                report.agreement.append(
                    precision.measure_agreement(benchmark, profile, name, data_root, {"model": "tiny"}, images)
                )
                yield f"precision-labels {benchmark} {profile} {name}"
