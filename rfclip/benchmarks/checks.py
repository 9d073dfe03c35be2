"""Looks through a benchmark's files and says what is wrong with them, where, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from rfclip.benchmarks.configs import benchmark_config
from rfclip.benchmarks.datasets import missing_data
from rfclip.benchmarks.label_checks import Convention, Finding, Look, look_at, occurrences, overall, relative, shortened
from rfclip.benchmarks.options import Options, build_config
from rfclip.runs.published import published

SAMPLE = "sample.json"  # marks the generated sample, which has numbers of images of its own
README = "see datasets/README.md"
LIST_CURE = "take the list from the original archive"
WITHOUT_VOID = ("coco_object", "context60", "context59", "ade20k")  # what is not labelled is 0 there, never 255
PREPARE = {
    "voc21": "take SegmentationClass (palette images) of VOCtrainval_11-May-2012.tar as it is",
    "voc20": "take SegmentationClass (palette images) of VOCtrainval_11-May-2012.tar as it is",
    "context60": "run rfclip prepare pascal-context (datasets/cvt_pascal_context.py)",
    "context59": "run rfclip prepare pascal-context (datasets/cvt_pascal_context.py); the background must stay 0, the "
    "config takes it off",
    "coco_object": "run rfclip prepare coco-object (datasets/cvt_coco_object.py)",
    "coco_stuff": "run rfclip prepare coco-stuff (datasets/cvt_coco_stuff.py)",
    "cityscapes": "run rfclip prepare cityscapes (datasets/cvt_cityscapes.py)",
    "ade20k": "take annotations/ of ADEChallengeData2016.zip as it is, 0 for not labelled; the config takes it off",
}
Progress = Callable[[Iterable[Any], int], Iterable[Any]]


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
    try:
        findings = _list_findings(dataset, root)
    except (OSError, UnicodeDecodeError) as error:
        damaged = Finding("unreadable", dataset.ann_file, f"cannot be read as UTF-8 text ({error})", LIST_CURE)
        return Report(benchmark, root, findings=(damaged,))
    return _looked_through(cfg, benchmark, findings, progress or (lambda results, total: results))


def _looked_through(cfg: Config, benchmark: str, findings: list[Finding], progress: Progress) -> Report:
    """The report on files that are there; `findings` are those about the list."""
    dataset = cfg.test_dataloader.dataset
    root = Path(dataset.data_root)
    is_sample = any((folder / SAMPLE).is_file() for folder in (root, *root.parents[:2]))
    pairs, convention, suffixes = _listed(cfg, benchmark, is_sample)
    findings = findings + _pairing(pairs, dataset, root, suffixes, convention)
    notes: list[str] = []
    _count(benchmark, len(pairs), is_sample, findings, notes)
    present = [(image, label) for image, label in pairs if image.is_file() and label.is_file()]
    looks = _look_at_all(present, convention, root, progress)
    findings += [*overall(looks, convention), *(finding for look in looks for finding in look.findings)]
    occurs = occurrences(looks, convention)
    notes += _which_occur(occurs)
    return Report(benchmark, root, len(pairs), occurs, tuple(findings), tuple(notes))


def _listed(
    cfg: Config, benchmark: str, is_sample: bool
) -> tuple[list[tuple[Path, Path]], Convention, tuple[str, str]]:
    """The pairs (image, label map) that mmseg would read, the values they may hold, and the endings of the names."""
    init_default_scope("mmseg")
    dataset = DATASETS.build({**cfg.test_dataloader.dataset, "pipeline": [], "test_mode": True, "lazy_init": True})
    infos = dataset.load_data_list()
    pairs = [(Path(info["img_path"]), Path(info["seg_map_path"])) for info in infos]
    classes = tuple(dataset.metainfo["classes"])
    void = benchmark not in WITHOUT_VOID or (is_sample and benchmark != "ade20k")  # its borders are not counted
    convention = Convention(classes, int(dataset.reduce_zero_label), void, PREPARE[benchmark], complete=is_sample)
    return pairs, convention, (dataset.img_suffix, dataset.seg_map_suffix)


def _list_findings(dataset: Any, root: Path) -> list[Finding]:
    """What is wrong with the list of images, if the benchmark has one.

    Raises:
        OSError, UnicodeDecodeError: It cannot be read.
    """
    if not dataset.get("ann_file"):
        return []
    text = (root / dataset.ann_file).read_text(encoding="utf-8")
    names = [line.strip() for line in text.splitlines()]
    texts = [f"{name} stands there more than once" for name, count in Counter(names).items() if count > 1 and name]
    if text.startswith("\ufeff"):
        texts.append("starts with a byte order mark, which becomes part of the first name")
    if not any(names):
        texts.append("names no image")
    elif not all(names):
        texts.append(f"has {names.count('')} blank lines")
    return [Finding("count", dataset.ann_file, text, LIST_CURE) for text in texts]


def _pairing(
    pairs: Sequence[tuple[Path, Path]], dataset: Any, root: Path, suffixes: tuple[str, str], convention: Convention
) -> list[Finding]:
    """Images without label map and, where folders are listed instead of a file, the reverse."""
    findings = []
    for image, label in pairs:
        if not image.is_file():
            findings.append(Finding("pairing", relative(image, root), "is listed and not there", "copy it again"))
        if not label.is_file():
            text = f"label map of {image.name} is not there"
            findings.append(Finding("pairing", relative(label, root), text, convention.prepare))
    if dataset.get("ann_file"):
        return findings
    expected = {label for _, label in pairs}
    images, labels = (root / dataset.data_prefix[key] for key in ("img_path", "seg_map_path"))
    for path in sorted(labels.rglob(f"*{suffixes[1]}")):
        if path not in expected and not path.name.startswith("."):
            text = f"has no image *{suffixes[0]} in {relative(images, root)}"
            findings.append(Finding("pairing", relative(path, root), text, "copy the image, or remove the label map"))
    if not pairs:
        others = sorted({path.suffix for path in images.rglob("*") if path.is_file()})
        there = f"only {', '.join(others)}" if others else "nothing"
        text = f"no image *{suffixes[0]} in it, {there}"
        findings.append(Finding("pairing", relative(images, root), text, README))
    return findings


def _count(benchmark: str, images: int, is_sample: bool, findings: list[Finding], notes: list[str]) -> None:
    official = published()["images"][benchmark]
    numbers = " or ".join(map(str, official))
    if images in official:
        notes.append(f"{images} images, as there should be")
    elif is_sample and images:
        notes.append(f"{images} images of the generated sample; the real benchmark has {numbers}")
    else:
        cure = f"scores are not comparable with published ones unless all are there, {README}"
        findings.append(Finding("count", None, f"{images} images instead of {numbers}", cure))


def _look_at_all(
    pairs: Sequence[tuple[Path, Path]], convention: Convention, root: Path, progress: Progress
) -> list[Look]:
    with ThreadPoolExecutor() as pool:
        return list(progress(pool.map(lambda pair: look_at(pair[0], pair[1], convention, root), pairs), len(pairs)))


def _which_occur(occurs: dict[str, int]) -> list[str]:
    """A note about the classes, if anything could be read."""
    absent = [name for name, count in occurs.items() if not count]
    note = f"{len(occurs) - len(absent)} of {len(occurs)} classes occur" + (
        f"; not {shortened(absent)}" if absent else ""
    )
    return [note] if occurs else []
