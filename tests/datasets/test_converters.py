"""rfclip prepare, on small made files."""

import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import mmseg
import numpy as np
import pytest
from mmseg.datasets import COCOStuffDataset, PascalContextDataset
from PIL import Image
from scipy.io import savemat

from rfclip.benchmarks.prepare import cityscapes, coco_labels, convert, pascal_context
from rfclip.cli import main

SCRIPTS = Path(__file__).parents[2] / "datasets"
SHARED = "annotations/val2017"


def call(what: str, *arguments: object) -> int:
    """The exit status of rfclip prepare."""
    return main(["prepare", what, *map(str, arguments), "--workers=1"])


def write(path: Path, values: Any, dtype: Any = np.uint8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, dtype)).save(path)


def read(path: Path) -> list[list[int]]:
    with Image.open(path) as image:
        return np.array(image).tolist()


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Raw COCO-Stuff: person, bicycle, traffic light's gap, hair drier, banner (the first stuff), wood, void."""
    root = tmp_path / "coco_stuff164k"
    write(root / SHARED / "000000000001.png", [[0, 1, 12, 89], [91, 181, 255, 255]])
    write(root / SHARED / "000000000002.png", [[255, 0], [0, 0], [91, 91]])
    for number in (1, 2):
        write(root / f"images/val2017/00000000000{number}.jpg", np.zeros((2, 4, 3)))
    return root


def test_the_coco_table_is_the_one_of_plain_counting() -> None:
    """Things and stuff in the order of their ids, the ids without a class left out: 80 and 91 of them."""
    raw, label = coco_labels.raw_to_train(), 0
    for value in range(182):
        if value in (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90):
            assert raw[value] == -1
        else:
            assert raw[value] == label
            label += 1
    assert label == 171
    assert raw[255] == 255
    names = COCOStuffDataset.METAINFO["classes"]
    assert (names[raw[0]], names[raw[12]], names[raw[89]]) == ("person", "stop sign", "toothbrush")
    assert raw[91] == 80
    objects = coco_labels.train_to_object()
    assert objects[:80].tolist() == list(range(1, 81))
    assert not objects[80:171].any()
    assert objects[255] == 0


def test_coco_object_from_raw_maps(coco: Path, tmp_path: Path) -> None:
    out = tmp_path / "coco_object"
    assert call("coco-object", coco, "-o", out) == 0
    assert read(out / SHARED / "000000000001_instanceTrainIds.png") == [[1, 2, 12, 80], [0, 0, 0, 0]]
    assert read(out / SHARED / "000000000002_instanceTrainIds.png") == [[0, 1], [1, 1], [0, 0]]
    assert sorted(path.name for path in (out / "images/val2017").iterdir())[0] == "000000000001.jpg"
    assert not (out / "images/val2017").readlink().is_absolute()


def test_both_kinds_of_map_give_the_same(coco: Path, tmp_path: Path) -> None:
    assert call("coco-object", coco, "-o", tmp_path / "raw") == 0
    assert call("coco-stuff", coco) == 0
    assert read(coco / SHARED / "000000000001_labelTrainIds.png") == [[0, 1, 11, 79], [80, 170, 255, 255]]
    for path in coco.glob(f"{SHARED}/*.png"):
        if "labelTrainIds" not in path.name:
            path.unlink()
    assert call("coco-object", coco, "-o", tmp_path / "train") == 0
    for path in (tmp_path / "raw" / SHARED).iterdir():
        assert read(path) == read(tmp_path / "train" / SHARED / path.name)


def test_a_second_run_keeps_what_is_whole_and_redoes_what_is_not(coco: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call("coco-object", coco, "-o", out) == 0
    first, second = sorted((out / SHARED).iterdir())
    kept = first.stat().st_mtime_ns
    whole = second.read_bytes()
    for damage in (whole[:-20], whole[:-4], b""):
        second.write_bytes(damage)
        assert call("coco-object", coco, "-o", out) == 0
        assert second.read_bytes() == whole
    assert first.stat().st_mtime_ns == kept
    assert sorted((out / SHARED).iterdir()) == [first, second]


def test_a_bad_map_is_named_and_the_rest_is_done(
    coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(coco / SHARED / "000000000003.png", [[0, 200]])
    (coco / SHARED / "000000000004.png").write_bytes(b"half a file")
    write(coco / SHARED / "000000000005.png", np.zeros((2, 2, 3)))
    assert call("coco-object", coco, "-o", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "000000000003.png: holds the values [200]; expected raw COCO-Stuff ids" in error
    assert "000000000004.png" in error
    assert "000000000005.png: is no label map" in error
    assert len(list((tmp_path / "out" / SHARED).iterdir())) == 2


def test_a_map_with_a_huge_header_or_without_pixels_is_named(
    coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = sorted((coco / SHARED).iterdir())
    content = second.read_bytes()
    header = b"IHDR" + (10**5).to_bytes(4, "big") * 2 + content[24:29]
    second.write_bytes(content[:12] + header + zlib.crc32(header).to_bytes(4, "big") + content[33:])
    target = tmp_path / "out" / SHARED / f"{first.stem}_instanceTrainIds.png"
    target.parent.mkdir(parents=True)
    target.write_bytes(content[:33] + content[-12:])  # something else's file, to be made anew
    assert call("coco-object", coco, "-o", tmp_path / "out") == 1
    assert f"{second}: Image size (10000000000 pixels)" in capsys.readouterr().err
    assert read(target)[0][0] == 1


def test_a_file_that_kills_its_reader_is_named_and_the_rest_is_done(coco: Path, tmp_path: Path) -> None:
    (tmp_path / "killing.py").write_text(f"""
import os, signal, sys
from pathlib import Path
from rfclip.benchmarks.prepare.coco_object import jobs
from rfclip.benchmarks.prepare.convert import read_png, run, status

def read(path):
    if path.stem.endswith("1"):
        os.kill(os.getpid(), signal.SIGKILL)
    return read_png(path)

if __name__ == "__main__":
    out = Path("out").absolute()
    todo = jobs(Path({str(coco)!r}), out, "val2017")
    sys.exit(status(run(todo, out, 2, read), todo))
""")
    line, environment = [sys.executable, "killing.py"], {**os.environ, "PYTHONPATH": str(SCRIPTS.parent)}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "000000000001.png: the process that read it was killed" in done.stderr
    assert "Traceback" not in done.stderr
    assert "1 of 2 label maps" in done.stdout


def test_images_that_moved_are_linked_again(coco: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call("coco-object", coco, "-o", out) == 0
    moved = coco.rename(tmp_path / "elsewhere")
    assert not (out / "images/val2017").exists()
    assert call("coco-object", moved, "-o", out) == 0
    assert (out / "images/val2017/000000000001.jpg").is_file()


def test_the_default_folder_lies_beside_the_source(coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, source in ((coco, "."), (coco / "annotations", ".."), (tmp_path, coco.name)):
        monkeypatch.chdir(folder)
        assert call("coco-object", source) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco_object", "coco_stuff164k"]
    assert sorted(path.name for path in coco.iterdir()) == ["annotations", "images"]


@pytest.mark.parametrize("place", [".", "annotations", SHARED])
def test_the_source_is_no_place_for_coco_object(coco: Path, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(coco.rglob("*"))
    assert call("coco-object", coco, "-o", coco / place) == 1
    assert "give another with -o" in capsys.readouterr().err
    assert sorted(coco.rglob("*")) == before


def test_nothing_is_written_outside(coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """OUT's label folder is a link to the originals."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "annotations").symlink_to(coco / "annotations")
    before = sorted(coco.rglob("*"))
    assert call("coco-object", coco, "-o", out) == 1
    assert "leads out of" in capsys.readouterr().err
    assert sorted(coco.rglob("*")) == before
    (out / "annotations").unlink()
    (out / SHARED).mkdir(parents=True)
    victim = tmp_path / "victim.png"
    victim.write_bytes(b"mine")
    (out / SHARED / "000000000001_instanceTrainIds.png").symlink_to(victim)
    assert call("coco-object", coco, "-o", out) == 0
    assert victim.read_bytes() == b"mine"


def test_no_data_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("coco-object", "coco-stuff", "cityscapes"):
        assert call(name, tmp_path) == 1
        assert "error: no " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / SHARED / "000000000001_labelTrainIds.png", [[0]])
    assert call("coco-stuff", tmp_path, "-o", tmp_path / "out") == 1
    assert "nothing to convert" in capsys.readouterr().err


def test_files_of_a_killed_run_go_away_after_a_while(coco: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out" / SHARED
    folder.mkdir(parents=True)
    for name, age in (("old", 7200), ("new", 0)):
        part = folder / f".{name}.png.1.part"
        part.touch()
        os.utime(part, (part.stat().st_atime - age, part.stat().st_mtime - age))
    assert call("coco-object", coco, "-o", tmp_path / "out") == 0
    assert [path.name for path in folder.glob(".*")] == [".new.png.1.part"]


def test_cityscapes(tmp_path: Path) -> None:
    root = tmp_path / "cityscapes"
    write(root / "gtFine/val/ulm/ulm_0_gtFine_labelIds.png", [[0, 7, 8, 33], [24, 29, 31, 1]])
    assert call("cityscapes", root) == 0
    assert read(root / "gtFine/val/ulm/ulm_0_gtFine_labelTrainIds.png") == [[255, 0, 1, 18], [11, 255, 16, 255]]
    assert call("cityscapes", root, "-o", tmp_path / "out", "--splits", "val, train") == 1
    assert not (tmp_path / "out").exists()
    table = cityscapes.label_ids_to_train()
    assert sorted(table[table >= 0].tolist()) == [*range(19), *[255] * 15]


def test_context(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voc, labels = tmp_path / "VOC2010", tmp_path / "trainval"
    (voc / "ImageSets/Main").mkdir(parents=True)
    (voc / "ImageSets/Main/val.txt").write_text("2008_b\n2008_a\n2008_unlabelled\n")
    (voc / "ImageSets/Main/train.txt").write_text("2008_c\n")
    labels.mkdir()
    for name in ("2008_a", "2008_b", "2008_c"):
        savemat(labels / f"{name}.mat", {"LabelMap": np.array([[0, 2, 1], [458, 459, 9]], np.uint16)})
    assert call("pascal-context", voc, "--labels", labels) == 0
    assert read(voc / "SegmentationClassContext/2008_a.png") == [[0, 1, 0], [59, 0, 2]]
    assert (voc / "ImageSets/SegmentationContext/val.txt").read_text() == "2008_b\n2008_a\n"
    names = PascalContextDataset.METAINFO["classes"]
    assert len(names) == 60
    assert pascal_context.context_table().max() == 59
    assert list(names[1:]) == sorted(names[1:])  # the ids ascend with the names, so their order is the classes'
    content = (labels / "2008_a.mat").read_bytes()
    for end in range(0, len(content), 8):
        (labels / f"cut_{end}.mat").write_bytes(content[:end])
    (voc / "SegmentationClassContext/2008_b.png").unlink()
    (labels / "2008_b.mat").write_bytes(content[:100])
    (labels / "2008_d.mat").write_bytes(b"no mat")
    savemat(labels / "2008_e.mat", {"other": np.zeros(2)})
    assert call("pascal-context", voc, "--labels", labels) == 1
    error = capsys.readouterr().err
    assert "2008_d.mat" in error
    assert "2008_e.mat: holds no array LabelMap" in error
    assert all(f"cut_{end}.mat: " in error for end in range(0, len(content), 8))
    assert (voc / "ImageSets/SegmentationContext/val.txt").read_text() == "2008_a\n"  # only what has its label map
    (voc / "ImageSets/Main/val.txt").write_bytes(b"\xff")
    assert call("pascal-context", voc, "--labels", labels) == 1
    assert "val.txt is no UTF-8 text" in capsys.readouterr().err


@pytest.fixture
def voc_and_sbd(tmp_path: Path) -> tuple[Path, Path]:
    """VOC with a (train), b (val) and an unlabelled c (train); SBD with b, c, and d, e of its own."""
    voc, sbd = tmp_path / "VOC2012", tmp_path / "dataset"
    for name in "ab":
        write(voc / f"SegmentationClass/{name}.png", [[0, 20, 255], [1, 1, 1]])
    (voc / "ImageSets/Segmentation").mkdir(parents=True)
    (voc / "ImageSets/Segmentation/train.txt").write_text("c\na\n")
    (voc / "ImageSets/Segmentation/val.txt").write_text("b\n")
    (sbd / "cls").mkdir(parents=True)
    for name in "bcde":
        content = {
            "Segmentation": np.array([[0, 20, 0], [7, 1, 1]], np.uint8),
            "CategoriesPresent": np.array([1, 7, 20]),
        }
        savemat(sbd / f"cls/{name}.mat", {"GTcls": content})
    (sbd / "train.txt").write_text("e\nb\n")
    (sbd / "val.txt").write_text("d\nc\nunlabelled\n")
    return voc, sbd


def test_augmented_voc(voc_and_sbd: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """VOC's own maps come first, with their outlines; validation images are in no training list."""
    voc, sbd = voc_and_sbd
    assert call("voc-aug", voc, "--sbd", sbd) == 0
    assert "note: 4 images in trainaug.txt; the published list has 10582" in capsys.readouterr().err
    made = {path.stem: read(path) for path in (voc / "SegmentationClassAug").iterdir()}
    assert made == {
        **{name: [[0, 20, 255], [1, 1, 1]] for name in "ab"},
        **{name: [[0, 20, 0], [7, 1, 1]] for name in "cde"},
    }
    lists = voc / "ImageSets/Segmentation"
    assert (lists / "trainaug.txt").read_text() == "c\na\ne\nd\n"
    assert (lists / "aug.txt").read_text() == "e\nd\n"
    assert (lists / "val.txt").read_text() == "b\n"


def test_augmented_voc_from_damaged_files(voc_and_sbd: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    voc, sbd = voc_and_sbd
    (sbd / "cls/d.mat").write_bytes(b"no mat")
    savemat(sbd / "cls/e.mat", {"GTcls": {"Boundaries": np.zeros((2, 2))}})
    savemat(sbd / "cls/f.mat", {"GTcls": np.zeros((2, 2))})
    savemat(sbd / "cls/g.mat", {"GTcls": {"Segmentation": np.array([[21]], np.uint8)}})
    assert call("voc-aug", voc, "--sbd", sbd) == 1
    error = capsys.readouterr().err
    for name, said in (
        ("d", "is no readable .mat file"),
        ("e", "holds no GTcls.Segmentation"),
        ("f", "holds no GTcls.Segmentation"),
        ("g", "holds the values [21]; expected 0 background, 1..20 classes and 255"),
    ):
        assert f"{name}.mat: {said}" in error
    assert len(list((voc / "SegmentationClassAug").iterdir())) == 3
    assert (voc / "ImageSets/Segmentation/trainaug.txt").read_text() == "c\na\n"


def test_augmented_voc_without_data_is_a_sentence(
    voc_and_sbd: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    voc, sbd = voc_and_sbd
    assert call("voc-aug", voc, "--sbd", tmp_path) == 1
    assert "give the folder dataset/ of the unpacked benchmark.tgz" in capsys.readouterr().err
    (sbd / "val.txt").unlink()
    assert call("voc-aug", voc, "--sbd", sbd) == 1
    assert "val.txt not found: it is part of benchmark.tgz" in capsys.readouterr().err
    assert not (voc / "SegmentationClassAug").exists()


def test_agrees_with_the_tables_of_mmseg() -> None:
    """mmsegmentation ships converters that need packages or counts; their tables are facts to compare with."""
    folder = Path(mmseg.__file__).parent / ".mim/tools/dataset_converters"
    if not folder.is_dir():
        pytest.skip("this mmseg comes without its converters")
    source = (folder / "coco_stuff164k.py").read_text()
    scope: dict[str, Any] = {}
    exec(source[source.index("clsID_to_trID") : source.index("def convert_to_trainID")], scope)  # a table of numbers
    raw = coco_labels.raw_to_train()
    assert {value: int(raw[value]) for value in np.flatnonzero(raw >= 0).tolist()} == scope["clsID_to_trID"]
    source = (folder / "pascal_context.py").read_text()
    listed = source[source.index("np.array([") + 10 : source.index("]))")]
    assert sorted(int(value) for value in listed.split(",")) == [0, *pascal_context.EVALUATED]


@pytest.mark.parametrize("workers", [1, 2])
def test_as_a_program(coco: Path, tmp_path: Path, workers: int) -> None:
    line = [sys.executable, str(SCRIPTS / "cvt_coco_object.py"), str(coco), "-o", "out", f"--workers={workers}"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 label maps" in done.stdout
    assert len(list((tmp_path / "out" / SHARED).iterdir())) == 2


def test_look_up_refuses_what_has_no_entry() -> None:
    table = convert.table_of([(0, 5), (3, 1)])
    assert convert.look_up(np.array([[0, 3]], np.uint16), table).tolist() == [[5, 1]]
    for bad in ([[1]], [[300]]):
        with pytest.raises(ValueError, match="holds the values"):
            convert.look_up(np.array(bad, np.uint16), table)
