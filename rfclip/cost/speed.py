"""Times of the method and of the whole pipeline, each as a multiple of the plain tower's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rfclip.cost.bench import PROFILES, Bench, Case, plain
from rfclip.cost.timing import Spread, ratios, take_turns
from rfclip.cost.weights import distractor_shares

Task = Callable[[], object]
VOC21 = Case("voc21", (336, 448), (375, 500))
VOC20 = Case("voc20", (336, 448), (336, 448))
CITYSCAPES = Case("cityscapes", (560, 1120), (1024, 2048))


@dataclass(frozen=True)
class Row:
    """Something to time.

    Attributes:
        name: for --rows.
        title: what is timed.
        reference: what its plain reference runs over.
        limits: profile -> at most this multiple of the reference.
        images: batches that the method encodes, to look for distractors in.
        plain: the reference.
        task: profile -> what is timed.
    """

    name: str
    title: str
    reference: str
    limits: Mapping[str, float]
    images: Callable[[Bench], list[Tensor]]
    plain: Callable[[Bench], Task]
    task: Callable[[Bench, str], Task]


@dataclass(frozen=True)
class SpeedResult:
    """What was measured of a row with a profile.

    Attributes:
        row: its name.
        title: what was timed.
        profile: 'release' or 'paper'.
        reference: what the plain reference ran over.
        seconds: of the profile.
        plain_seconds: of the reference.
        ratio: profile / reference, round by round.
        limit: of the ratio.
        distractors: share of distractors at each layer boundary, 0..1.
        exact_cuts: normalised cuts that had to be solved exactly.
        samples: seconds of each round, 'plain' and the profile.
    """

    row: str
    title: str
    profile: str
    reference: str
    seconds: Spread
    plain_seconds: Spread
    ratio: Spread
    limit: float
    distractors: list[float]
    exact_cuts: int
    samples: dict[str, list[float]] = field(default_factory=dict)


def _dense(name: str, title: str, batch: int, size: tuple[int, int], limits: Mapping[str, float]) -> Row:
    """A row of dense encoding alone."""

    def images(bench: Bench) -> list[Tensor]:
        return [bench.images(batch, size)]

    return Row(
        name,
        title,
        "the same images",
        limits,
        images,
        lambda bench: _plain_over(bench, images(bench)),
        lambda bench, profile: _encoding(bench, profile, images(bench)[0]),
    )


def _pipeline(
    name: str, title: str, case: Case, limit: float, reference: str, whole: bool = False, pamr: bool = False
) -> Row:
    """A row of the whole pipeline to labels; `whole`: the plain reference encodes the whole image once more."""

    def seen(bench: Bench) -> list[Tensor]:
        return bench.window_batches(case) + ([bench.images(1, case.seen)] if whole else [])

    return Row(
        name,
        title,
        reference,
        dict.fromkeys(PROFILES, limit),
        lambda bench: bench.window_batches(case),
        lambda bench: _plain_over(bench, seen(bench)),
        lambda bench, profile: bench.to_labels(case, profile, pamr),
    )


ROWS = (
    _dense("dense-336x448", "dense encoding, 336x448, batch 1", 1, (336, 448), {"release": 1.25, "paper": 1.35}),
    _dense("dense-windows", "dense encoding, 6 windows of 224", 6, (224, 224), {"release": 1.35, "paper": 1.35}),
    _pipeline("voc21", "whole pipeline, VOC21 (56 names), 375x500", VOC21, 1.6, "the image, 336x448"),
    _pipeline(
        "voc20", "whole pipeline, VOC20, slide, 336x448", VOC20, 1.5, "6 windows and the whole image", whole=True
    ),
    _pipeline("cityscapes", "whole pipeline, Cityscapes, 560x1120 to 1024x2048", CITYSCAPES, 1.5, "36 windows"),
)


def measure(row: Row, bench: Bench, repeats: int) -> list[SpeedResult]:
    """Time a row with both profiles.

    Raises:
        NoDistractorsError: a profile would have nothing to do in some layer.
    """
    shares = {profile: _shares(bench, profile, row.images(bench)) for profile in row.limits}
    tasks = {"plain": row.plain(bench), **{profile: row.task(bench, profile) for profile in row.limits}}
    exact = {profile: exact_cuts(tasks[profile]) for profile in row.limits}
    samples = take_turns(tasks, repeats)
    return [
        SpeedResult(
            row.name,
            row.title,
            profile,
            row.reference,
            Spread.of(samples[profile]),
            Spread.of(samples["plain"]),
            ratios(samples[profile], samples["plain"]),
            limit,
            shares[profile],
            exact[profile],
            {name: samples[name] for name in ("plain", profile)},
        )
        for profile, limit in row.limits.items()
    ]


def exact_cuts(task: Task) -> int:
    """Count the eigenvalue problems of more than 64 unknowns that a task solves: cuts that no fast solver settled."""
    with _CountsEigenproblems() as counter:
        task()
    return counter.solved


class _CountsEigenproblems(TorchDispatchMode):
    solved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket is torch.ops.aten._linalg_eigh and args[0].shape[-1] > 64:
            self.solved += args[0].shape[:-2].numel()
        return func(*args, **(kwargs or {}))


def _shares(bench: Bench, profile: str, batches: Iterable[Tensor]) -> list[float]:
    """Distractors per layer boundary, mean over the images; each batch must have some everywhere."""
    method = bench.method(profile)
    found = [(len(batch), distractor_shares(method, bench.tower, batch)) for batch in batches]
    total = sum(images for images, _ in found)
    return [
        sum(n * share for (n, _), share in zip(found, layer, strict=True)) / total
        for layer in zip(*(shares for _, shares in found), strict=True)
    ]


def _encoding(bench: Bench, profile: str, images: Tensor) -> Task:
    method = bench.method(profile)
    return lambda: method(bench.tower.vit, images)


def _plain_over(bench: Bench, batches: list[Tensor]) -> Task:
    def task() -> None:
        for batch in batches:
            plain(bench.tower.vit, batch)

    return task
