"""No text of a figure is cut off or lies on another, whatever the picture's shape and the names are."""

import numpy as np
import pytest

from rfclip.analysis import audit_charts, charts
from rfclip.explain import Explanation, style
from rfclip.explain.figures import PLOTS
from tests.support.legible import illegible

RNG = np.random.default_rng(0)
LONG = (
    "a very long name of a class that nobody would ever type in",
    "W" * 60,
    "another description of something that is there to be seen",
    "sky",
    "\U000e0fff" * 20,  # no font has it, so it is shown escaped
    "costs $5 to $6",
    "two\nlines",
)
SOURCE = "ViT-L-14-336, voc21, voc20, context60, context59, coco_object, coco_stuff, cityscapes, ade20k, first 32"


def explained(grid, layers, names):
    """An explanation of random values; a few patches are distractors."""
    count, size = grid[0] * grid[1], (10 * grid[0], 10 * grid[1])
    before = RNG.dirichlet(np.ones(count), (len(layers), count)).astype(np.float32)
    distractors = np.zeros((len(layers), count), bool)
    distractors[:, [0, count // 2, count - 1]] = True
    labels = RNG.integers(0, len(names), (2, *size))
    image = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    return Explanation(
        image=image,
        seen=image,
        grid=grid,
        layers=layers,
        before=before,
        after=before,
        ratio=RNG.uniform(0, 3, (len(layers) + 1, count)).astype(np.float32),
        distractors=distractors,
        defocus=~distractors,
        similarity=RNG.uniform(-1, 1, (len(names), *grid)).astype(np.float32),
        without=labels[0],
        labels=labels[1],
        names=names,
        colours=tuple((index % 256, 1, 2) for index in range(len(names))),
        methods=("RefocusCLIPRelease", "AMethodOfTheUsersOwnWithARatherLongName"),
        point=(0, grid[1] - 1),
        vision=RNG.uniform(-1, 1, (count, count)).astype(np.float32),
    )


MANY = tuple(f"thing number {index} with words" for index in range(60))
CASES = {
    "long names": ((6, 8), (0, 1, 2), LONG),
    "many": ((6, 8), tuple(range(12)), MANY),
    "wide": ((3, 40), (0, 1, 2, 3, 4), LONG),
    "slim": ((1, 64), (23,), LONG[:1]),
    "narrow": ((40, 3), (11,), LONG[:2]),
    "a patch": ((1, 1), (0, 1), ("sky",)),
}


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("case", CASES)
def test_figures_of_a_picture(case, plot):
    figure = PLOTS[plot].draw(explained(*CASES[case]))
    assert style.png_bytes(figure)
    assert illegible(figure) == []


def some(count):
    return RNG.uniform(1, 90, count)


BLOCKS = style.layer_names(range(24))
CHARTS = {
    "bars": lambda: charts.bars(LONG, some(7), some(7), "mIoU, %", f"Ablation: voc21, {SOURCE}", f"A note. {SOURCE}"),
    "bars alone": lambda: charts.bars(LONG, some(7), None, "mIoU, %", SOURCE * 3),
    "curve": lambda: charts.curve(range(5), some(5), "tau, in units of 1/d", "mIoU, %", f"Threshold: {SOURCE}", 3),
    "lines": lambda: charts.lines(BLOCKS, {"CLIP": some(24), "refocused CLIP, before": some(23)}, "%", SOURCE),
    "scatter": lambda: charts.scatter_with_fit(some(9), some(9), 1, 2, 0.5, f"Distraction against attention: {SOURCE}"),
    "one set": lambda: charts.agreement_matrix(
        ["voc21"], [3], np.eye(1), "Dimensions found on different data, ViT-B-16"
    ),
    "sets": lambda: charts.agreement_matrix(LONG, [3] * 7, np.eye(7), "Dimensions found on different data, ViT-B-16"),
    "profile": lambda: charts.channel_profile(some(99), some(99) / 99, [1, 50], (2, 0.1), f"Channels of {SOURCE}"),
    "cost": lambda: charts.mean_against_cost(
        LONG, 1 + some(7) / 20, some(7), ["prior none", *["prior published"] * 6], f"Mean: {SOURCE}", SOURCE
    ),
    "worth": lambda: audit_charts.worth(
        LONG, {f"benchmark_{n}": some(21).reshape(7, 3) for n in range(8)}, "mIoU, points", f"Names: {SOURCE}"
    ),
    "audit": lambda: audit_charts.vocabulary_audit(
        dict.fromkeys(("published", "clean", *LONG[:3]), some(30)), some(5), MANY[:30], LONG * 4, some(28), SOURCE
    ),
}


@pytest.mark.parametrize("chart", CHARTS)
def test_figures_of_the_analyses(chart):
    figure = CHARTS[chart]()
    assert style.png_bytes(figure)
    assert illegible(figure) == []


def test_a_cut_title_and_an_overlap_are_found():
    figure = style.figure(3, 2, "short")
    figure.text(0.5, 0.5, "a text")
    figure.text(0.5, 0.5, "another")
    figure.text(0.9, 0.2, "longer than the figure")
    assert illegible(figure) == ["cut: 'longer than the figure'", "overlap: 'a text', 'another'"]


def test_names_are_cut_to_their_room_and_keep_their_signs():
    assert style.shorten("sky") == "sky"
    assert style.shorten("two\nlines\tof  it") == "two lines of it"
    assert style.shorten("$5 to $6") == r"\$5 to \$6"
    cut = style.shorten("W" * 5000)
    assert cut.endswith("W…") and 10 < len(cut) < 20
    assert style.wrapped("one two three", 0.6) == "one\ntwo\nthree"
