"""Looks through a benchmark's files and says what is wrong with them, where, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from PIL import Image, ImageOps

from rfclip.configs_path import benchmark_config
from rfclip.datasets import missing_data
from rfclip.published import published
from rfclip.run_options import Options, build_config

IGNORED = 255
SAMPLE = "sample.json"  # marks the generated sample, which has numbers of images of its own
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
README = "see datasets/README.md"
PREPARE = {
    "voc21": "take SegmentationClass (palette images) of VOCtrainval_11-May-2012.tar as it is",
    "voc20": "take SegmentationClass (palette images) of VOCtrainval_11-May-2012.tar as it is",
    "context60": "run datasets/cvt_pascal_context.py",
    "context59": "run datasets/cvt_pascal_context.py; the background must stay 0, the config takes it off",
    "coco_object": "run datasets/cvt_coco_object.py",
    "coco_stuff": "run datasets/cvt_coco_stuff.py",
    "cityscapes": "run datasets/cvt_cityscapes.py",
    "ade20k": "take annotations/ of ADEChallengeData2016.zip as it is, 0 for not labelled; the config takes it off",
}
Progress = Callable[[Iterable[Any], int], Iterable[Any]]


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        kind: What it is about: 'missing', 'count', 'pairing', 'unreadable', 'size', 'labels' or 'classes'.
        file: Relative to the data root of the benchmark; None if it is about no single file.
        text: What is wrong.
        cure: What to do.
    """

    kind: str
    file: str | None
    text: str
    cure: str

    def __str__(self) -> str:
        place = f"{self.file}: " if self.file is not None else ""
        return f"{place}{self.text}; {self.cure}"


@dataclass(frozen=True)
class Report:
    """What was found out about a benchmark's files.

    Attributes:
        benchmark: Its name.
        root: Its folder.
        images: Number of images.
        occurs: Per class the number of images that show it; empty if none could be read.
        findings: What is wrong; empty if all is well.
        notes: What is remarkable and in order.
    """

    benchmark: str
    root: Path
    images: int = 0
    occurs: dict[str, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Convention:
    """Which values a benchmark's label maps may hold.

    Attributes:
        classes: Names of the classes.
        first: Value of class 0: 1 where 0 is taken off by the config, else 0.
        void: Whether 255, not labelled, may occur; in COCO-Object that is background.
        prepare: How right label maps are made.
    """

    classes: tuple[str, ...]
    first: int
    void: bool
    prepare: str

    @property
    def top(self) -> int:
        """Value of the last class."""
        return self.first + len(self.classes) - 1


def check(benchmark: str, data_root: str | None = None, progress: Progress | None = None) -> Report:
    """Check all files of a benchmark.

    Args:
        benchmark: Its name.
        data_root: Folder that stands for the configs' data/.
        progress: Wraps an iterable of known length to show how far it is.

    Returns:
        The report; where folders are missing, with that one finding.

    Raises:
        ValueError: No such benchmark.
    """
    cfg = build_config(Options(benchmark_config(benchmark), data_root=data_root))
    dataset = cfg.test_dataloader.dataset
    root = Path(dataset.data_root)
    missing = missing_data(dataset)
    if missing is not None:
        where, _, rest = missing.partition(" not found")
        return Report(benchmark, root, findings=(Finding("missing", None, f"{where} not found", rest.strip(": ")),))
    is_sample = any((folder / SAMPLE).is_file() for folder in (root, *root.parents[:2]))
    pairs, convention, suffixes = _listed(cfg, benchmark, void=benchmark != "coco_object" or is_sample)
    findings = _list_findings(dataset, root) + _pairing(pairs, dataset, root, suffixes, convention)
    notes: list[str] = []
    _count(benchmark, len(pairs), is_sample, findings, notes)
    present = [(image, label) for image, label in pairs if image.is_file() and label.is_file()]
    results = _look_at_all(present, convention, root, progress or (lambda results, total: results))
    seen: Counter[int] = Counter()
    for found, values in results:
        findings += found
        seen.update(values)
    occurs = {name: seen[index] for index, name in enumerate(convention.classes, convention.first)} if seen else {}
    _classes(seen, len(present), convention, findings, notes)
    return Report(benchmark, root, len(pairs), occurs, tuple(findings), tuple(notes))


def check_pair(image: Path, label: Path, convention: Convention, root: Path) -> tuple[list[Finding], tuple[int, ...]]:
    """Read an image and its label map to the end.

    Returns:
        What is wrong with them, and the label values that occur.
    """
    findings: list[Finding] = []
    picture = _read(image, root, "copy it again from the original archive", findings)
    labels = _read(label, root, "copy or make it again", findings)
    if labels is None:
        return findings, ()
    name = _relative(label, root)
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        text = f"holds colours or truth values {labels.shape} {labels.dtype}, not one class index per pixel"
        return [*findings, Finding("labels", name, text, convention.prepare)], ()
    if picture is not None and picture.shape[:2] != labels.shape:
        height, width = picture.shape[:2]
        text = f"is {labels.shape[1]} x {labels.shape[0]} pixels, its image {width} x {height}"
        findings.append(Finding("size", name, text, "take image and label map from the same release"))
    values = np.unique(labels)
    strange = values[(values > convention.top) & (values != IGNORED)]
    if strange.size:
        allowed = f"0..{convention.top}" + (f" and {IGNORED}" if convention.void else "")
        text = f"holds the values {strange[:5].tolist()}, expected {allowed}"
        findings.append(Finding("labels", name, text, convention.prepare))
    return findings, tuple(int(value) for value in values)


def _listed(cfg: Config, benchmark: str, void: bool) -> tuple[list[tuple[Path, Path]], Convention, tuple[str, str]]:
    """The pairs (image, label map) that mmseg would read, the values they may hold, and the endings of the names."""
    init_default_scope("mmseg")
    dataset = DATASETS.build({**cfg.test_dataloader.dataset, "pipeline": [], "test_mode": True, "lazy_init": True})
    infos = dataset.load_data_list()
    pairs = [(Path(info["img_path"]), Path(info["seg_map_path"])) for info in infos]
    classes = tuple(dataset.metainfo["classes"])
    convention = Convention(classes, int(dataset.reduce_zero_label), void, PREPARE[benchmark])
    return pairs, convention, (dataset.img_suffix, dataset.seg_map_suffix)


def _list_findings(dataset: Any, root: Path) -> list[Finding]:
    """Names that stand twice in the list of images, if the benchmark has one."""
    if not dataset.get("ann_file"):
        return []
    path = root / dataset.ann_file
    lines = path.read_text(encoding="utf-8").splitlines()
    cure = "take the list from the original archive"
    twice = [name for name, count in Counter(line.strip() for line in lines).items() if count > 1 and name]
    findings = [Finding("count", dataset.ann_file, f"{name} stands there more than once", cure) for name in twice]
    blank = sum(not line.strip() for line in lines)
    if blank:
        findings.append(Finding("count", dataset.ann_file, f"has {blank} blank lines", cure))
    return findings


def _pairing(
    pairs: Sequence[tuple[Path, Path]], dataset: Any, root: Path, suffixes: tuple[str, str], convention: Convention
) -> list[Finding]:
    """Images without label map and, where folders are listed instead of a file, the reverse."""
    findings = []
    for image, label in pairs:
        if not image.is_file():
            findings.append(Finding("pairing", _relative(image, root), "is listed and not there", "copy it again"))
        if not label.is_file():
            text = f"label map of {image.name} is not there"
            findings.append(Finding("pairing", _relative(label, root), text, convention.prepare))
    if dataset.get("ann_file"):
        return findings
    expected = {label for _, label in pairs}
    images, labels = (root / dataset.data_prefix[key] for key in ("img_path", "seg_map_path"))
    for path in sorted(labels.rglob(f"*{suffixes[1]}")):
        if path not in expected and not path.name.startswith("."):
            text = f"has no image *{suffixes[0]} in {_relative(images, root)}"
            findings.append(Finding("pairing", _relative(path, root), text, "copy the image, or remove the label map"))
    if not pairs:
        others = sorted({path.suffix for path in images.rglob("*") if path.is_file()})
        there = f"only {', '.join(others)}" if others else "nothing"
        text = f"no image *{suffixes[0]} in it, {there}"
        findings.append(Finding("pairing", _relative(images, root), text, README))
    return findings


def _count(benchmark: str, images: int, is_sample: bool, findings: list[Finding], notes: list[str]) -> None:
    official = published()["images"][benchmark]
    numbers = " or ".join(map(str, official))
    if images in official:
        notes.append(f"{images} images, as there should be")
    elif is_sample:
        notes.append(f"{images} images of the generated sample; the real benchmark has {numbers}")
    else:
        cure = f"scores are not comparable with published ones unless all are there, {README}"
        findings.append(Finding("count", None, f"{images} images instead of {numbers}", cure))


def _look_at_all(
    pairs: Sequence[tuple[Path, Path]], convention: Convention, root: Path, progress: Progress
) -> list[tuple[list[Finding], tuple[int, ...]]]:
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda pair: check_pair(pair[0], pair[1], convention, root), pairs)
        return list(progress(results, len(pairs)))


def _classes(
    seen: Counter[int], images: int, convention: Convention, findings: list[Finding], notes: list[str]
) -> None:
    """What the values of all label maps together say."""
    if not seen:
        return
    absent = [name for index, name in enumerate(convention.classes, convention.first) if not seen[index]]
    shown = ", ".join(absent[:8]) + (", ..." if len(absent) > 8 else "")
    there = len(convention.classes) - len(absent)
    notes.append(f"{there} of {len(convention.classes)} classes occur" + (f"; not {shown}" if absent else ""))
    if not convention.void and seen[IGNORED]:
        text = f"{seen[IGNORED]} label maps hold {IGNORED}, but here what is not labelled counts as background, 0"
        findings.append(Finding("labels", None, text, convention.prepare))
    if convention.first == 1 and not seen[0] and seen[IGNORED]:
        text = f"no label map holds 0 and {seen[IGNORED]} hold {IGNORED}: it looks as if 1 had been taken off already"
        findings.append(Finding("labels", None, text, convention.prepare))
    if there == 1 and len(convention.classes) > 1 and images > 1:
        text = "all label maps show one class only"
        findings.append(Finding("classes", None, text, convention.prepare))


def _read(path: Path, root: Path, cure: str, findings: list[Finding]) -> np.ndarray | None:
    """The pixels of an image, turned as OpenCV turns a photo; None, and a finding, if it is damaged."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112) in TURNED and image.mode in ("RGB", "L", "CMYK")
            return np.asarray(ImageOps.exif_transpose(image) if turned else image)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        findings.append(Finding("unreadable", _relative(path, root), f"cannot be read ({error})", cure))
        return None


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
