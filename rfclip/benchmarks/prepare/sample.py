"""Write the eight benchmarks in miniature, from generated scenes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from rfclip.io import sample_world
from rfclip.words.vocabulary import Vocabulary, load_vocabulary

MARKER = "sample.json"  # written last: its presence says that the sample is whole
FORMAT = 1  # raise it when the files change
MOST_REGIONS = 16
FEWEST_REGIONS = 8
LEAST_SHARE = 0.022  # of the image, of each region
IGNORED = 255
SIZES = (
    (375, 500),
    (500, 375),
    (333, 500),
    (427, 640),
    (480, 640),
    (366, 500),
    (640, 427),
)  # (height, width)


@dataclass(frozen=True)
class DataSet:
    """How a data set lies on disk and writes its labels.

    Attributes:
        root: folder below the data root.
        vocabulary: shipped vocabulary with its classes.
        image, label: file patterns with {id}, below `root`.
        index: file with the ids, below `root`; None where the folders are listed instead.
        short_side: pixels to which the benchmark resizes the short side; stripes are drawn for it.
        ignored: label of the borders.
        first: label of the vocabulary's class 0.
        sizes: (height, width) of the images, in turn.
    """

    root: str
    vocabulary: str
    image: str
    label: str
    index: str | None = None
    short_side: int = 336
    ignored: int = IGNORED
    first: int = 0
    sizes: tuple[tuple[int, int], ...] = SIZES


DATA_SETS = (
    DataSet(
        "VOCdevkit/VOC2012",
        "voc21",
        "JPEGImages/{id}.jpg",
        "SegmentationClass/{id}.png",
        index="ImageSets/Segmentation/val.txt",
    ),
    DataSet(
        "VOCdevkit/VOC2010",
        "context60",
        "JPEGImages/{id}.jpg",
        "SegmentationClassContext/{id}.png",
        index="ImageSets/SegmentationContext/val.txt",
    ),
    DataSet(
        "coco_object",
        "coco_object",
        "images/val2017/{id}.jpg",
        "annotations/val2017/{id}_instanceTrainIds.png",
    ),
    DataSet(
        "coco_stuff164k",
        "coco_stuff",
        "images/val2017/{id}.jpg",
        "annotations/val2017/{id}_labelTrainIds.png",
    ),
    DataSet(
        "cityscapes",
        "cityscapes",
        "leftImg8bit/val/sample/sample_{id}_leftImg8bit.png",
        "gtFine/val/sample/sample_{id}_gtFine_labelTrainIds.png",
        short_side=560,
        sizes=((512, 1024), (448, 896)),
    ),
    DataSet(
        "ade/ADEChallengeData2016",
        "ade20k",
        "images/validation/{id}.jpg",
        "annotations/validation/{id}.png",
        ignored=0,
        first=1,
    ),
)


def make_sample(out: Path, seed: int = 2026, say: Callable[[str], object] = print) -> None:
    """Write all data sets below `out`; where a whole sample of this seed lies already, do nothing.

    Raises:
        FileExistsError: `out` holds something else.
    """
    facts = {"format": FORMAT, "seed": seed}
    marker = out / MARKER
    if marker.is_file() and _facts(marker) == facts:
        say(f"{out}: the sample is there already")
        return
    own = {MARKER, *(Path(data_set.root).parts[0] for data_set in DATA_SETS)} if marker.is_file() else set()
    others = sorted(path.name for path in out.iterdir() if path.name not in own) if out.exists() else []
    if others:
        raise FileExistsError(
            f"{out} holds what is no part of a sample ({', '.join(others[:3])}): give a new folder, or remove it first"
        )
    building = out.with_name(out.name + ".part")
    for stale in (building, out):
        shutil.rmtree(stale, ignore_errors=True)
    for number, data_set in enumerate(DATA_SETS):
        count = write_data_set(building, data_set, np.random.default_rng([seed, number]))
        say(f"{out / data_set.root}: {count} images")
    (building / MARKER).write_text(json.dumps(facts) + "\n", encoding="utf-8")
    building.rename(out)


def _facts(marker: Path) -> object:
    """What a marker says; None if it is damaged."""
    try:
        return json.loads(marker.read_text(encoding="utf-8"))
    except ValueError:
        return None


def write_data_set(out: Path, data_set: DataSet, rng: np.random.Generator) -> int:
    """Write one data set below `out`; returns the number of images."""
    vocabulary = load_vocabulary(data_set.vocabulary)
    shares = divide_classes(vocabulary, rng)
    ids = [f"{number:06d}" for number in range(1, len(shares) + 1)]
    for number, (name, classes) in enumerate(zip(ids, shares, strict=True)):
        size = data_set.sizes[number % len(data_set.sizes)]
        image, labels = draw(vocabulary, classes, size, data_set.short_side, rng)
        written = np.where(labels == IGNORED, data_set.ignored, labels + data_set.first).astype(np.uint8)
        save_image(out / data_set.root / data_set.image.format(id=name), image)
        save_labels(out / data_set.root / data_set.label.format(id=name), written, vocabulary)
    if data_set.index:
        index = out / data_set.root / data_set.index
        index.parent.mkdir(parents=True, exist_ok=True)
        index.write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")
    return len(ids)


def divide_classes(vocabulary: Vocabulary, rng: np.random.Generator) -> list[list[int]]:
    """Deal the classes out to as few images as hold them, FEWEST..MOST_REGIONS regions each; background in all."""
    background = [0] if vocabulary.has_background else []
    foreground = rng.permutation(np.arange(len(background), len(vocabulary.names)))
    images = -(-len(foreground) // (MOST_REGIONS - len(background)))
    dealt = [background + part.tolist() for part in np.array_split(foreground, images)]
    everything = background + foreground.tolist()
    return [classes + rng.choice(everything, max(0, FEWEST_REGIONS - len(classes))).tolist() for classes in dealt]


def draw(
    vocabulary: Vocabulary,
    classes: list[int],
    size: tuple[int, int],
    short_side: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene with one region per entry of `classes`.

    Returns:
        (H, W, 3) uint8 RGB, and (H, W) int64 class indices with IGNORED on the borders.
    """
    scale = min(size) / short_side  # drawn pixels per pixel that the network sees
    regions = wide_layout(size, len(classes), 24 * scale, rng)
    names = [vocabulary.names[index][rng.integers(len(vocabulary.names[index]))] for index in classes]
    scene = sample_world.render(regions, names, rng, period=sample_world.PERIOD * scale)
    labels = np.asarray(classes)[regions]
    labels[borders(regions)] = IGNORED
    return scene.image, labels


def wide_layout(size: tuple[int, int], count: int, radius: float, rng: np.random.Generator) -> np.ndarray:
    """A layout in which a disc of `radius` pixels fits into every region, and each has its share of the image."""
    while True:
        regions = sample_world.layout(size, count, rng)
        inside = ~borders(regions)
        masks = [(inside & (regions == index)).astype(np.uint8) for index in range(count)]
        widest = min(cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, 5).max() for mask in masks)
        if widest >= radius and min(mask.mean() for mask in masks) >= LEAST_SHARE:
            return regions


def borders(regions: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels within two of another region."""
    plane = regions.astype(np.uint8)
    kernel = np.ones((5, 5), np.uint8)
    return cv2.dilate(plane, kernel) != cv2.erode(plane, kernel)


def save_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, int] = {"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}
    Image.fromarray(image).save(path, format=None, **options)


def save_labels(path: Path, labels: np.ndarray, vocabulary: Vocabulary) -> None:
    """A palette PNG for VOC, as the real ones are; grey elsewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(labels)
    if "SegmentationClass" in path.parts:
        picture.putpalette([value for colour in vocabulary.colours for value in colour])
    picture.save(path)
