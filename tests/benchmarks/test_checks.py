"""The check of a benchmark's files: a sound data set, and one planted fault at a time."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rfclip.benchmarks.checks import Report, check
from rfclip.benchmarks.configs import BENCHMARKS
from rfclip.cli import check_data

ROOT = Path(__file__).parents[2]
NAMES = ("000001", "000002")
VOC = ("VOCdevkit/VOC2012", "JPEGImages/{}.jpg", "SegmentationClass/{}.png", "ImageSets/Segmentation/val.txt")
STUFF = ("coco_stuff164k", "images/val2017/{}.jpg", "annotations/val2017/{}_labelTrainIds.png", None)
OBJECT = ("coco_object", "images/val2017/{}.jpg", "annotations/val2017/{}_instanceTrainIds.png", None)
CONTEXT = (
    "VOCdevkit/VOC2010",
    "JPEGImages/{}.jpg",
    "SegmentationClassContext/{}.png",
    "ImageSets/SegmentationContext/val.txt",
)
ADE = ("ade/ADEChallengeData2016", "images/validation/{}.jpg", "annotations/validation/{}.png", None)


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """data(layout, classes, first) writes two images that show all classes; the official number is then 2."""
    monkeypatch.setattr("rfclip.benchmarks.checks.published", lambda: {"images": {name: [2] for name in BENCHMARKS}})

    def make(layout: tuple[str, str, str, str | None], classes: int, first: int = 0) -> Path:
        root = tmp_path / "data" / layout[0]
        values = first + np.arange(12 * 20).reshape(12, 20) % classes
        for name in NAMES:
            write(root / layout[1].format(name), np.zeros((12, 20, 3), np.uint8))
            write(root / layout[2].format(name), values.astype(np.uint8))
        if layout[3]:
            (root / layout[3]).parent.mkdir(parents=True)
            (root / layout[3]).write_text("".join(f"{name}\n" for name in NAMES))
        return root

    return make


def run(benchmark: str, root: Path) -> Report:
    return check(benchmark, str(next(path for path in root.parents if path.name == "data")))


def only(report: Report, kind: str) -> str:
    """The sentence of the only finding."""
    assert [finding.kind for finding in report.findings] == [kind]
    return str(report.findings[0])


@pytest.mark.parametrize(
    ("benchmark", "layout", "classes", "first"),
    [
        ("voc21", VOC, 21, 0),
        ("voc20", VOC, 21, 0),
        ("coco_stuff", STUFF, 171, 0),
        ("coco_object", OBJECT, 81, 0),
        ("ade20k", ADE, 151, 0),
    ],
)
def test_a_sound_data_set(
    data: Callable[..., Path], benchmark: str, layout: tuple[str, str, str, str], classes: int, first: int
) -> None:
    report = run(benchmark, data(layout, classes, first))
    assert report.findings == ()
    assert report.images == 2
    assert set(report.occurs.values()) == {2}
    assert any(f"{len(report.occurs)} of {len(report.occurs)} classes occur" in note for note in report.notes)


def test_missing_folders(data: Callable[..., Path], tmp_path: Path) -> None:
    assert "not found" in only(check("cityscapes", str(tmp_path / "data")), "missing")
    root = data(VOC, 21)
    (root / VOC[3]).unlink()
    assert "val.txt not found; see datasets/README.md" in only(run("voc21", root), "missing")


def test_number_of_images(data: Callable[..., Path]) -> None:
    root = data(VOC, 21)
    (root / VOC[3]).write_text("000001\n")
    assert "1 images instead of 2" in only(run("voc21", root), "count")
    (root.parents[1] / "sample.json").touch()
    report = run("voc21", root)
    assert report.findings == ()
    assert "generated sample" in report.notes[0]


def test_a_name_that_stands_twice(data: Callable[..., Path]) -> None:
    root = data(VOC, 21)
    (root / VOC[3]).write_text("000001\n000002\n000001\n")
    first, second = map(str, run("voc21", root).findings)
    assert first.startswith("ImageSets/Segmentation/val.txt: 000001 stands there more than once")
    assert second.startswith("3 images instead of 2")


def test_pairing(data: Callable[..., Path]) -> None:
    root = data(STUFF, 171)
    (root / STUFF[2].format("000002")).unlink()
    sentence = only(run("coco_stuff", root), "pairing")
    assert "000002_labelTrainIds.png: label map of 000002.jpg is not there" in sentence
    assert "cvt_coco_stuff.py" in sentence
    shutil.copy(root / STUFF[2].format("000001"), root / STUFF[2].format("000002"))
    shutil.copy(root / STUFF[2].format("000001"), root / STUFF[2].format("000009"))
    assert "000009_labelTrainIds.png: has no image" in only(run("coco_stuff", root), "pairing")


def test_an_image_of_the_list_is_not_there(data: Callable[..., Path]) -> None:
    root = data(VOC, 21)
    (root / VOC[1].format("000001")).unlink()
    assert "JPEGImages/000001.jpg: is listed and not there" in only(run("voc21", root), "pairing")


def test_images_with_another_ending(data: Callable[..., Path]) -> None:
    root = data(STUFF, 171)
    for name in NAMES:
        (root / STUFF[1].format(name)).rename(root / f"images/val2017/{name}.jpeg")
    sentences = [str(finding) for finding in run("coco_stuff", root).findings]
    assert any("no image *.jpg in it, only .jpeg" in sentence for sentence in sentences)


@pytest.mark.parametrize("which", [1, 2])
def test_files_that_end_too_early(data: Callable[..., Path], which: int) -> None:
    root = data(VOC, 21)
    path = root / VOC[which].format("000002")
    path.write_bytes(path.read_bytes()[:-30])
    sentence = only(run("voc21", root), "unreadable")
    assert path.name in sentence
    assert "again" in sentence


def test_sizes(data: Callable[..., Path]) -> None:
    root = data(VOC, 21)
    write(root / VOC[1].format("000002"), np.zeros((20, 12, 3), np.uint8))
    sentence = only(run("voc21", root), "size")
    assert "000002.png: is 20 x 12 pixels, its image 12 x 20" in sentence


def test_a_photo_that_its_exif_turns(data: Callable[..., Path]) -> None:
    """OpenCV turns it, so it is the turned size that must fit."""
    root = data(VOC, 21)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (12, 20)).save(root / VOC[1].format("000002"), exif=turned)
    assert run("voc21", root).findings == ()


def test_label_values(data: Callable[..., Path]) -> None:
    root = data(STUFF, 171)
    write(root / STUFF[2].format("000001"), np.full((12, 20), 181, np.uint8))
    sentence = only(run("coco_stuff", root), "labels")
    assert "000001_labelTrainIds.png: holds the values [181], expected 0..170 and 255" in sentence
    assert "cvt_coco_stuff.py" in sentence


def test_sixteen_bit_labels_do_not_wrap(data: Callable[..., Path]) -> None:
    root = data(VOC, 21)
    write(root / VOC[2].format("000001"), np.full((12, 20), 257, np.uint16))
    assert "[257]" in only(run("voc21", root), "labels")


def test_colours_instead_of_indices(data: Callable[..., Path]) -> None:
    root = data(VOC, 21)
    write(root / VOC[2].format("000001"), np.zeros((12, 20, 3), np.uint8))
    assert "not one class index per pixel" in only(run("voc21", root), "labels")


def test_void_in_coco_object(data: Callable[..., Path]) -> None:
    root = data(OBJECT, 81)
    write(root / OBJECT[2].format("000001"), np.full((12, 20), 255, np.uint8))
    finding = run("coco_object", root).findings[0]
    assert finding.file == OBJECT[2].format("000001")
    assert "holds 255 where 0 should be" in finding.text
    assert run("coco_stuff", data(STUFF, 171)).findings == ()


@pytest.mark.parametrize(
    ("benchmark", "layout", "classes"),
    [
        ("ade20k", ADE, 151),
        ("context59", CONTEXT, 60),
        ("context60", CONTEXT, 60),
        ("voc20", VOC, 21),
        ("voc21", VOC, 21),
    ],
)
def test_zero_label_taken_off_already(data: Callable[..., Path], benchmark: str, layout: Any, classes: int) -> None:
    """As mmseg's reduce_zero_label does it; 0 still occurs, which then is the first class."""
    root = data(layout, classes)
    for name in NAMES:
        values = np.arange(12 * 20).reshape(12, 20) % classes
        values[3:9] = 0  # the background is large
        values[2] = 255 if layout is VOC else 0
        write(root / layout[2].format(name), values.astype(np.uint8))
    assert run(benchmark, root).findings == ()
    for name in NAMES:
        with Image.open(root / layout[2].format(name)) as image:
            values = np.array(image)
        write(
            root / layout[2].format(name), np.where((values == 0) | (values == 255), 255, values - 1).astype(np.uint8)
        )
    finding = run(benchmark, root).findings[0]
    assert "taken off already" in finding.text
    assert finding.file == layout[2].format("000001")


def test_the_sample_must_show_every_class(data: Callable[..., Path]) -> None:
    root = data(STUFF, 170)
    assert run("coco_stuff", root).findings == ()
    (root.parent / "sample.json").touch()
    sentence = only(run("coco_stuff", root), "classes")
    assert "the generated sample shows every class, and here are missing: wood; make the sample again" in sentence


def test_borders_of_the_sample_may_be_255_but_for_ade20k(data: Callable[..., Path]) -> None:
    for benchmark, layout, classes, findings in (("context59", CONTEXT, 60, 0), ("ade20k", ADE, 151, 2)):
        root = data(layout, classes)
        (root.parent / "sample.json").touch()
        for name in NAMES:
            values = np.arange(12 * 20).reshape(12, 20) % classes
            values[-1] = 255
            write(root / layout[2].format(name), values.astype(np.uint8))
        assert len(run(benchmark, root).findings) == findings


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b"\xff\xfe0\x000\x00", "unreadable", "val.txt: cannot be read as UTF-8 text"),
        (b"\n", "count", "val.txt: names no image"),
        (b"000001\n\n000002\n", "count", "val.txt: has 1 blank lines"),
        (b"\xef\xbb\xbf000001\n000002\n", "count", "val.txt: starts with a byte order mark"),
    ],
)
def test_damaged_lists(data: Callable[..., Path], content: bytes, kind: str, said: str) -> None:
    root = data(VOC, 21)
    (root.parents[1] / "sample.json").touch()
    (root / VOC[3]).write_bytes(content)
    finding = run("voc21", root).findings[0]
    assert (finding.kind, finding.file) == (kind, VOC[3])
    assert said in str(finding)


def test_one_class_everywhere(data: Callable[..., Path]) -> None:
    root = data(STUFF, 171)
    for name in NAMES:
        write(root / STUFF[2].format(name), np.full((12, 20), 7, np.uint8))
    report = run("coco_stuff", root)
    assert f"{STUFF[2].format('000001')}: shows one class only, truck, as all label maps do" in only(report, "classes")
    assert any("1 of 171 classes occur; not person, bicycle" in note for note in report.notes)


def test_as_a_program(data: Callable[..., Path], tmp_path: Path) -> None:
    root = data(VOC, 21)
    write(root / VOC[2].format("000001"), np.full((12, 20), 99, np.uint8))
    (data(CONTEXT, 60) / CONTEXT[3]).write_bytes(b"\xff")  # which must not keep the others from being checked
    line = [sys.executable, str(ROOT / "tools/check_data.py"), "all", "--data-root", "data", "--json", "out.json"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "SegmentationClass/000001.png: holds the values [99]" in done.stdout
    assert "2 images instead of 1449" in done.stdout
    reports = {report["benchmark"]: report for report in json.loads((tmp_path / "out.json").read_text())}
    assert [found["kind"] for found in reports["context59"]["findings"]] == ["unreadable"]
    assert reports["ade20k"]["findings"][0]["kind"] == "missing"
    assert "dog" in reports["voc21"]["occurs"]


def test_what_the_system_refuses_to_read_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> Report:
        raise PermissionError(13, "Permission denied", "data/VOCdevkit")

    monkeypatch.setattr("rfclip.benchmarks.checks.check", refuse)
    text = check_data.lines(check_data.checked("voc21", None), most=5)
    assert text[0] == "voc21 (data): 1 finding"
    assert "Permission denied: 'data/VOCdevkit'; let it be readable" in text[1]
