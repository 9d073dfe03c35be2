"""What class names do to a score: vocabularies compared, names left out one by one, names that win wrong pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rfclip.io.atomic import write_whole
from rfclip.io.tables import comma_separated, number
from rfclip.methods.needs import TEXT
from rfclip.methods.replay import Replay
from rfclip.pipeline.engine import DenseEngine
from rfclip.pipeline.labels import resize
from rfclip.pipeline.queries import Queries
from rfclip.runs.areas import ImageAreas, count_areas
from rfclip.runs.compare.statistics import Sampled, sample
from rfclip.runs.metric import score
from rfclip.words.lists import DISTRACTORS
from rfclip.words.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Labelled:
    """A picture with its truth.

    Attributes:
        name: of the picture.
        inputs: (1, 3, H, W) normalised.
        truth: (H0, W0) int64 class indices; 255 does not count.
    """

    name: str
    inputs: Tensor
    truth: Tensor


@dataclass(frozen=True, eq=False)
class Audit:
    """What the vocabularies scored. C classes; Q names of the first vocabulary.

    Attributes:
        classes: C class names.
        iou: vocabulary -> (C,) IoU in percent, NaN for classes that are neither there nor predicted.
        sampled: vocabulary -> the images' scores, from which its difference to others has an interval.
        names: the Q names of the first vocabulary, as (class index, name).
        won: (C, Q) pixels of each true class in which the name has the highest cosine; before any threshold.
        without: (Q,) mIoU in percent when the name is left out; NaN if it is its class's only one or was not tried.
    """

    classes: tuple[str, ...]
    iou: Mapping[str, NDArray[np.float64]]
    names: tuple[tuple[int, str], ...]
    won: NDArray[np.int64]
    without: NDArray[np.float64]
    sampled: Mapping[str, Sampled] = field(default_factory=dict)

    def total(self, vocabulary: str) -> float:
        """mIoU of a vocabulary, in percent."""
        return _mean(self.iou[vocabulary])

    def wrong_pixels(self) -> NDArray[np.int64]:
        """(Q,) pixels of other classes that each name wins."""
        own = self.won[[index for index, _ in self.names], np.arange(len(self.names))]
        return self.won.sum(0) - own

    def mostly_from(self, query: int) -> str:
        """The other class from which a name wins most pixels; '' if from none."""
        others = self.won[:, query].copy()
        others[self.names[query][0]] = 0
        return self.classes[int(others.argmax())] if others.any() else ""


def audit(
    engine: DenseEngine,
    pictures: Iterable[Labelled],
    vocabularies: Mapping[str, Vocabulary],
    leave_out: bool = True,
    resamples: int = 2000,
) -> Audit:
    """Score vocabularies on pictures; each picture goes through the image tower once.

    Args:
        engine: its method, prior, threshold and windows are used.
        pictures: with truth.
        vocabularies: the first one's names are looked at one by one.
        leave_out: also score the first vocabulary without each name that is not its class's only one.
        resamples: draws of the images, for intervals.

    Raises:
        ValueError: the vocabularies have different numbers of classes; a class of distractor words is not counted.
    """
    first = next(iter(vocabularies.values()))
    for name, words in vocabularies.items():
        count = len(words.names) - words.classes.count(DISTRACTORS)
        if count != len(first.names):
            raise ValueError(f"vocabulary {name!r} has {count} classes instead of {len(first.names)}")
    rows = [(index, name) for index, row in enumerate(first.names) for name in row]
    trials = {name: engine.queries(words) for name, words in vocabularies.items()}
    lesser = dict(without_each(first)) if leave_out else {}
    trials |= {f"without {query}": engine.queries(words) for query, words in lesser.items()}
    tally = _Tally(engine, trials, len(first.names), len(rows), tuple(vocabularies))
    for picture in pictures:
        tally.add(picture)
    iou = {name: 100 * score(areas).iou for name, areas in tally.areas.items()}
    without = [_mean(iou[f"without {query}"]) if query in lesser else np.nan for query in range(len(rows))]
    scores = {name: iou[name] for name in vocabularies}
    sampled = {name: sample(areas, resamples) for name, areas in tally.images.items() if areas}
    return Audit(first.classes, scores, tuple(rows), tally.won, np.array(without), sampled)


def without_each(vocabulary: Vocabulary) -> Iterator[tuple[int, Vocabulary]]:
    """Yield (query, the vocabulary without it) for each name that is not its class's only one."""
    query = 0
    for index, row in enumerate(vocabulary.names):
        for place in range(len(row)):
            if len(row) > 1:
                names = list(vocabulary.names)
                names[index] = row[:place] + row[place + 1 :]
                yield query, Vocabulary(tuple(names), vocabulary.classes, vocabulary.colours, vocabulary.background)
            query += 1


def write_table(found: Audit, path: Path) -> None:
    """One CSV: a line for the total and for each class with its scores, then a line for each name."""
    total = {name: found.total(name) for name in found.iou}
    first = next(iter(total))
    pixels = max(int(found.won.sum()), 1)
    wrong = found.wrong_pixels()
    scores = [f"IoU_{name}_%" for name in found.iou]
    of_names = ["mIoU_change_without_it", "pixels_won_%", "of_them_wrong_%", "mostly_from"]
    rows = [["total", "", "", *map(number, total.values())]]
    for index, name in enumerate(found.classes):
        rows.append(["class", name, "", *(number(values[index]) for values in found.iou.values())])
    for query, (index, name) in enumerate(found.names):
        won = int(found.won[:, query].sum())
        cells = [number(found.without[query] - total[first]), number(100 * won / pixels)]
        cells += [number(100 * wrong[query] / won if won else np.nan), found.mostly_from(query)]
        rows.append(["name", found.classes[index], name, *[""] * len(scores), *cells])
    write_whole(path, comma_separated(["kind", "class", "name", *scores, *of_names], rows))


@dataclass(eq=False)
class _Tally:
    """Counts pixels, trial by trial."""

    engine: DenseEngine
    trials: Mapping[str, Queries]
    num_classes: int
    num_names: int
    lists: tuple[str, ...]
    areas: dict[str, NDArray[np.int64]] = field(init=False)
    won: NDArray[np.int64] = field(init=False)
    images: dict[str, dict[str, ImageAreas]] = field(init=False)

    def __post_init__(self) -> None:
        self.areas = {name: np.zeros((self.num_classes, 3), np.int64) for name in self.trials}
        self.images = {name: {} for name in self.lists}
        self.won = np.zeros((self.num_classes, self.num_names), np.int64)

    @torch.no_grad()
    def add(self, picture: Labelled) -> None:
        """Label a picture in every trial."""
        replay = Replay(self.engine.method)
        size = (picture.truth.shape[0], picture.truth.shape[1])
        engine = self.engine if TEXT in replay.needs else dataclasses.replace(self.engine, method=replay)
        for trial, (name, queries) in enumerate(self.trials.items()):
            replay.again()
            maps = engine.cosine_maps(picture.inputs, queries, on_grid=True)[0]
            labels = self.engine.label_image(maps, picture.inputs[0], size, queries).labels.cpu()
            counted = count_areas(picture.name, labels, picture.truth, self.num_classes)
            self.areas[name] += counted.classes
            if name in self.images:
                self.images[name][picture.name] = counted
            if trial == 0:
                self.won += winners(maps, picture.truth, self.num_classes)


def winners(maps: Tensor, truth: Tensor, num_classes: int) -> NDArray[np.int64]:
    """Count (C, Q) the pixels of each true class by the name with the highest cosine.

    Args:
        maps: (Q, h, w) cosines.
        truth: (H0, W0) class indices; others than 0..C-1 do not count.
        num_classes: C.
    """
    size = (truth.shape[0], truth.shape[1])
    names = resize(maps, size).argmax(0).cpu()
    counted = (truth >= 0) & (truth < num_classes)
    cells = truth[counted].long() * len(maps) + names[counted]
    return torch.bincount(cells, minlength=num_classes * len(maps)).view(num_classes, len(maps)).numpy()


def _mean(values: NDArray[np.float64] | Sequence[float]) -> float:
    known = np.asarray(values)[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
