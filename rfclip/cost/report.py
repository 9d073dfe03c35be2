"""The measurements as JSON and as Markdown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rfclip.cost.flops import Cost
from rfclip.cost.memory import MemoryResult
from rfclip.cost.methods import MethodCost
from rfclip.cost.methods import table as method_table
from rfclip.cost.precision import Agreement, SpeedUp
from rfclip.cost.speed import SpeedResult
from rfclip.io.tables import markdown
from rfclip.runs.manifest import circumstances
from rfclip.runs.reference import HEADING, published

COST_NOTE = (
    "Counted here: all matrix products, convolutions, attention products and matrix factorisations of the image "
    "tower and the method for one image, in multiply-adds (half the floating-point operations that torch's "
    "FlopCounterMode reports); element-wise arithmetic, normalisation and softmax, the text tower (run once per "
    "vocabulary) and the labels are not. The published figures are per VOC21 image and do not say what they count: "
    "16.7 G is what the linear layers of ViT-B/16 alone make at 224x224 (12 blocks x 12 d^2 x 197 tokens = 16.7 G "
    "multiply-adds, no attention products), and 149.6 M are the parameters of both towers."
)


@dataclass
class Report:
    """What was measured so far.

    Attributes:
        model: what stands for CLIP.
        quick: sizes too small for numbers that mean something.
        repeats: rounds of the timings.
        facts: versions, machine, time, load.
    """

    model: str
    quick: bool
    repeats: int
    facts: dict[str, Any] = field(default_factory=lambda: surroundings())
    speed: list[SpeedResult] = field(default_factory=list)
    memory: list[MemoryResult] = field(default_factory=list)
    memory_unavailable: str | None = None
    speed_up: list[SpeedUp] = field(default_factory=list)
    agreement: list[Agreement] = field(default_factory=list)
    cost: list[Cost] = field(default_factory=list)
    methods: list[MethodCost] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return everything, with every single repeat, as JSON takes it."""
        return {**asdict(self), "published": {"heading": HEADING, "cost": published()["cost"]}}

    def as_markdown(self) -> str:
        """Return the tables."""
        parts = [self._head()]
        if self.speed:
            parts += [_speed_table(self.speed, self.quick, self.repeats), _distractor_table(self.speed)]
        if self.memory:
            parts.append(_memory_table(self.memory, self.quick))
        if self.memory_unavailable:
            parts.append(f"Memory was not measured: {self.memory_unavailable}\n")
        if self.speed_up or self.agreement:
            parts.append(_precision_table(self.speed_up, self.agreement))
        if self.cost:
            parts.append(_cost_table(self.cost))
        if self.methods:
            parts.append(method_table(self.methods))
        return "\n".join(parts)

    def note_load(self) -> None:
        """Note how busy the machine is; called after each row."""
        self.facts["loads"] += _load()

    def _head(self) -> str:
        versions, machine, loads = (self.facts[name] for name in ("versions", "machine", "loads"))
        load = f"load {min(loads)} to {max(loads)}, this program's threads included" if loads else "load unknown"
        shown = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "rfclip") if versions.get(name))
        lines = [
            f"{self.model}, random weights with planted distractors, fp32 unless it says otherwise.",
            f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, {shown}; "
            f"{self.facts['started']}, {load}.",
        ]
        if self.quick:
            lines.insert(0, "QUICK RUN: sizes too small for these numbers to mean anything; limits are not judged.")
        return "\n".join(lines) + "\n"


def surroundings() -> dict[str, Any]:
    """Return versions, machine, time and load."""
    facts = circumstances()
    facts["machine"]["processor"] = _processor()
    facts["started"] = datetime.now(timezone.utc).isoformat(timespec="minutes")
    facts["loads"] = _load()
    return facts


def _load() -> list[float]:
    """Return the mean number of running processes in the last minute, where the system tells it."""
    return [round(os.getloadavg()[0], 1)] if hasattr(os, "getloadavg") else []


def _processor() -> str:
    """Return the processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "processor unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "processor unknown"


def _speed_table(results: Sequence[SpeedResult], quick: bool, repeats: int) -> str:
    rows = [
        [
            result.title,
            result.profile,
            f"**{result.ratio.text()}**",
            "-" if quick else f"{result.limit:.2f}",
            "-" if quick else _verdict(result.ratio.median <= result.limit),
            result.seconds.text(),
            f"{result.plain_seconds.text()} over {result.reference}",
        ]
        for result in results
    ]
    heads = ["what", "profile", "x plain", "at most", "", "seconds", "seconds plain"]
    note = f"Median (least to greatest) of {repeats} rounds after a warm-up; each round runs plain and method in turn."
    return f"{markdown(heads, rows)}\n{note}\n"


def _distractor_table(results: Sequence[SpeedResult]) -> str:
    rows = [
        [
            result.row,
            result.profile,
            " ".join(f"{100 * share:.1f}" for share in result.distractors),
            str(result.exact_cuts) if result.profile == "paper" else "-",
        ]
        for result in results
    ]
    return markdown(["row", "profile", "distractors, % of patches per layer boundary", "cuts solved exactly"], rows)


def _memory_table(results: Sequence[MemoryResult], quick: bool) -> str:
    rows = [
        [
            result.title,
            result.profile,
            "on" if result.pamr else "off",
            f"**{result.peak:.2f}**",
            "-" if quick else f"{result.limit:.1f}",
            "-" if quick else _verdict(result.peak <= result.limit),
            f"{result.loaded:.2f}",
        ]
        for result in results
    ]
    heads = ["what", "profile", "PAMR", "peak above loaded, GB", "at most", "", "loaded, GB"]
    return f"{markdown(heads, rows)}\nPeak resident memory of one image in a fresh process; GB are 10^9 bytes.\n"


def _precision_table(speed: Sequence[SpeedUp], agreement: Sequence[Agreement]) -> str:
    fast = [[found.precision, found.profile, f"{found.speed_up.text()} x", found.seconds.text()] for found in speed]
    same = [
        [
            found.precision,
            found.profile,
            f"{found.benchmark} sample, {found.images} images",
            f"**{100 * found.agreement:.2f}**",
            f"{100 * found.limit:.0f}",
            _verdict(found.agreement >= found.limit),
        ]
        for found in agreement
    ]
    tables = []
    if fast:
        tables.append(markdown(["precision", "profile", "dense encoding, faster than fp32", "seconds"], fast))
    if same:
        heads = ["precision", "profile", "tiny CLIP on", "same labels as fp32, %", "at least", ""]
        tables.append(markdown(heads, same))
    return "\n".join(tables)


def _cost_table(costs: Sequence[Cost]) -> str:
    rows = [
        [
            cost.backbone,
            cost.method,
            f"{cost.size[0]}x{cost.size[1]}",
            f"{cost.flops / 2e9:.2f}",
            f"{cost.flops / 1e9:.2f}",
            f"{cost.tower_parameters / 1e6:.1f}",
            f"{cost.clip_parameters / 1e6:.1f}",
        ]
        for cost in costs
    ]
    rows += [
        ["ViT-B-16", f"{row['method']} [published]", "VOC21", f"{row['gflops']:.1f}", "", "",
         f"{row['parameters_millions']:.1f}"]
        for row in published()["cost"]
    ]  # fmt: skip
    heads = ["backbone", "method", "image", "G multiply-adds", "GFLOP", "M parameters, tower", "both towers"]
    return f"{markdown(heads, rows)}\nRows marked [published]: {HEADING}. {COST_NOTE}\n"


def _verdict(kept: bool) -> str:
    return "yes" if kept else "NO"
