"""rfclip segment and what it calls, on small pictures and a small random CLIP."""

import csv
import errno
import io
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from rfclip import Segmentation
from rfclip.benchmarks.configs import method_block
from rfclip.cli import main, parse
from rfclip.cli.segment import segment
from tests.support.tiff_files import tiff_bytes

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(clip_files: dict[str, str]) -> Any:
    """run(*arguments) -> exit status, with a small CLIP, small pictures and a quick method."""

    def call(*arguments: object) -> int:
        model = [f"--model={clip_files['model']}", f"--pretrained={clip_files['pretrained']}"]
        settings = ["--short-side=48", "--device=cpu"]
        if not any(str(argument).startswith("--method") for argument in arguments):
            settings.append("--method=vanilla_clip")
        return main(["segment", *map(str, arguments), *model, *settings])

    return call


def picture(path: Path, height: int = 20, width: int = 33) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def facts(path: str) -> dict[str, Any]:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_labels_overlay_and_facts(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    picture(Path("in/a.png"))
    assert run("in/a.png", "--classes", "sky, temple|pagoda, tree", "--out=out", "--probs") == 0
    with Image.open("out/a_labels.png") as labels:
        values = np.array(labels)
        assert (labels.mode, labels.size) == ("P", (33, 20))
    about = facts("out/a.json")
    assert about["names"] == ["sky", "temple", "tree"]
    assert sum(about["shares"].values()) == pytest.approx(1)
    assert about["shares"]["tree"] == pytest.approx((values == 2).mean())
    assert about["settings"]["words"] == [["sky"], ["temple", "pagoda"], ["tree"]]
    assert about["settings"]["method"]["type"] == "VanillaCLIP"
    assert about["seconds"]["segment"] > 0
    assert "/" not in about["settings"]["model"]
    with np.load("out/a_probs.npz") as kept:
        assert kept["probs"].shape == (3, 20, 33)
        assert (kept["probs"].argmax(0) == values).mean() > 0.99  # float16 may tie
    assert "a_overlay.png" in capsys.readouterr().out


def test_bad_pictures_are_reported_and_the_rest_is_done(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    picture(Path("in/a.png"))
    picture(Path("in/z/one.png"), 1, 1)
    Path("in/broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    Path("in/empty.png").touch()
    Path("in/huge.png").write_bytes(_png_header(30000, 30000))
    assert run("in", "gone.png", "--classes=sky,dog", "--out=out") == 1
    said = capsys.readouterr()
    assert sorted(path.name for path in Path("out").rglob("*.json")) == ["a.json", "one.json"]
    for name in ("broken.jpg", "empty.png", "gone.png"):
        assert name in said.err
    assert "huge.png" in said.err
    assert "million pixels" in said.err
    assert "2 done, 4 without a result" in said.out


def test_odd_pictures(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Kinds of files that cameras, scanners and the web give."""
    Path("in").mkdir()
    Image.new("L", (9, 5)).save("in/grey.png")
    Image.new("CMYK", (9, 5)).save("in/cmyk.jpg")
    Image.new("RGBA", (9, 5)).save("in/alpha.png")
    Image.fromarray(np.full((5, 9), 40000, np.uint16)).save("in/deep.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (9, 5)).save("in/turned.jpg", exif=turned)
    frames = [Image.new("RGB", (9, 5), colour) for colour in ("red", "lime")]
    frames[0].save("in/moving.gif", save_all=True, append_images=frames[1:])
    assert run("in", "--classes=sky,dog", "--out=out") == 0
    sizes = {path.stem: facts(str(path))["size"] for path in Path("out").glob("*.json")}
    assert sizes.pop("turned") == [9, 5]
    assert sizes == {name: [5, 9] for name in ("grey", "cmyk", "alpha", "deep", "moving")}
    assert "moving.gif holds 2 images" in capsys.readouterr().out
    assert "holds 2 images" in facts("out/moving.json")["note"]


def test_background(run: Any) -> None:
    picture(Path("a.png"))
    assert run("a.png", "--classes=dog", "--out=auto") == 0
    assert facts("auto/a.json")["names"] == ["background", "dog"]
    assert facts("auto/a.json")["settings"]["prob_thd"] == 0.1
    assert run("a.png", "--classes=dog", "--background=none", "--out=none") == 0
    assert facts("none/a.json")["names"] == ["dog"]
    assert facts("none/a.json")["settings"]["prob_thd"] == 0
    assert run("a.png", "--classes=dog,cat", "--background=wall,floor", "--threshold=1", "--out=own") == 0
    assert facts("own/a.json")["settings"]["words"][0] == ["wall", "floor"]
    assert facts("own/a.json")["shares"]["background"] > 0.99  # no probability is 1


@pytest.mark.parametrize(
    ("arguments", "names", "index"),
    [
        (["--classes=mine.txt", "--background-class=0"], ["background", "car", "person"], 0),
        (["--classes=mine.txt", "--background-class=wall", "--background=floor"], ["background", "car", "person"], 0),
        (["--classes=mine.txt", "--background=words"], ["background", "sky", "car", "person"], 0),
        (["--classes=car, person, background", "--background=words"], ["car", "person", "background"], 2),
        (["--classes=car, person, background"], ["car", "person", "background"], 2),
    ],
)
def test_any_class_can_be_the_background(run: Any, arguments: list[str], names: list[str], index: int) -> None:
    picture(Path("a.png"))
    Path("mine.txt").write_text("sky, wall, grass\ncar\nperson\n")
    assert run("a.png", *arguments, "--threshold=1", "--out=out") == 0
    about = facts("out/a.json")
    assert about["names"] == names and about["colours"][index] == [0, 0, 0]
    assert about["settings"]["background_index"] == index
    assert about["shares"]["background"] > 0.99  # no probability is 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--classes=a,,b"], "class 2 has an empty name"),
        (["--classes=missing.txt"], "missing.txt not found"),
        (["--classes=dog,cat", "--threshold=0.5"], "--background words"),
        (["--classes=dog,cat", "--threshold=0.5"], "--background-class"),
        (["--classes=dog,cat", "--background-class=cta"], "none of the classes (did you mean 'cat'?)"),
        (["--classes=dog,cat", "--background-class=0", "--background=none"], "contradict each other"),
        (["--classes=background,cat,background"], "are called 'background'"),
        (["--classes=dog", "--method=nonsense"], "no profile 'nonsense'"),
        (["--classes=dog", "--out=."], "another --out"),
    ],
)
def test_mistakes_are_one_sentence(
    run: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    picture(Path("a.png"))
    assert run(".", *arguments) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error


def test_a_place_that_takes_no_results_is_noticed_before_the_model_is_loaded(
    run: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(Path("a.png"))
    Path("out").write_text("a file stands here")
    monkeypatch.setattr("rfclip.segment.api.OpenVocabSegmenter", None)
    for out in ("out", "out/deeper"):
        assert run("a.png", "--classes=sky,dog", f"--out={out}") == 1
        assert f"no results can be written to {out}: " in capsys.readouterr().err


def failing_save(*failures: OSError | RuntimeError | None) -> Any:
    """A Segmentation.save that raises these one after the other, and works where there is None."""
    left, save = list(failures), Segmentation.save

    def call(self: Segmentation, *arguments: Any) -> list[Path]:
        failure = left.pop(0)
        if failure is not None:
            raise failure
        return save(self, *arguments)

    return call


def test_a_full_disk_stops_and_says_what_is_done(
    run: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        picture(Path(f"in/{name}.png"))
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(Segmentation, "save", failing_save(None, full))
    assert run("in", "--classes=sky,dog", "--out=out") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: in/b.png: its result cannot be written: ")
    assert said.endswith("No space left on device; results finished: 1")


def test_what_one_picture_suffers_does_not_stop_the_others(
    run: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abcd":
        picture(Path(f"in/{name}.png"))
    name = OSError(errno.ENAMETOOLONG, "File name too long")
    memory = RuntimeError("[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory: you tried")
    monkeypatch.setattr(Segmentation, "save", failing_save(name, memory, None, RuntimeError("a mistake")))
    assert run("in", "--classes=sky,dog", "--out=out") == 1
    said = capsys.readouterr()
    assert re.search(r"a\.png: its result cannot be written: .*File name too long", said.err)
    assert "b.png: not enough memory for a picture of this size" in said.err
    assert "c_overlay.png" in said.out
    assert "Traceback" in said.err and "error: RuntimeError: a mistake; this is a fault of rfclip" in said.err


def test_names_that_terminals_and_file_systems_dislike(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (b"bad\xff.png", b"new\nline\x1b[31m.png", b"n" * 250 + b".png"):
        try:
            picture(Path("in") / os.fsdecode(b"x.png"))
            Path("in/x.png").rename(Path("in") / os.fsdecode(name))
        except OSError:
            pytest.skip("this file system takes no such name")
    assert run("in", "--classes=sky,dog", "--out=out") == 0
    said = capsys.readouterr().out
    assert "out/bad\\udcff_overlay.png" in said
    assert "out/new\\nline\\x1b[31m_overlay.png" in said
    images = {facts(str(path))["image"] for path in Path("out").glob("*.json")}
    assert os.fsdecode(b"in/bad\xff.png") in images
    assert len(images) == 3
    assert run("in", "--classes=sky,dog", "--out=out") == 0
    assert len(list(Path("out").glob("*.json"))) == 3  # found again


def test_a_table_of_more_than_one_picture(run: Any) -> None:
    for name in "ab":
        picture(Path(f"in/{name}.png"))
    assert run("in/a.png", "--classes=sky,dog", "--out=one") == 0
    assert not Path("one/summary.csv").exists()
    for _ in range(2):
        assert run("in", "--classes=sky,dog", "--out=out") == 0
    with Path("out/summary.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["result"], row["class"]) for row in rows] == [
        (str(Path(f"in/{name}.png")), name, word) for name in "ab" for word in ("sky", "dog")
    ]
    assert float(rows[0]["share"]) == facts("out/a.json")["shares"]["sky"]


def test_opacity(run: Any) -> None:
    picture(Path("a.png"))
    assert run("a.png", "--classes=sky,dog", "--out=out", "--opacity=0") == 0
    with Image.open("a.png") as before, Image.open("out/a_overlay.png") as after:
        np.testing.assert_array_equal(np.array(after)[:20, :33], np.array(before))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--out="],
        ["--opacity=1.5"],
        ["--opacity=nan"],
        ["--every=0"],
        ["--bands=1,2"],
        ["--bands=0,1,2"],
        ["--bands=x"],
    ],
)
def test_arguments_that_are_refused(run: Any, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("a.png", "--classes=sky,dog", *arguments)
    assert caught.value.code == 2
    assert (
        f"error: {'argument ' * arguments[0].startswith(('--out=', '--bands='))}{arguments[0].split('=')[0]}"
        in capsys.readouterr().err
    )


def test_weights_for_the_tiny_clip_are_refused() -> None:
    picture(Path("a.png"))
    with pytest.raises(ValueError, match=r"brings its own weights.*x\.pt"):
        segment(parse(["segment", "a.png", "--classes=dog,sky", "--model=tiny", "--pretrained=x.pt"])[1])


def test_hints_and_notes_are_said_and_are_no_problems(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    picture(Path("in/a.png"))
    Path("in/b.heic").touch()
    assert run("in", "--classes=sky; dog", "--out=out") == 0
    said = capsys.readouterr()
    assert said.err.count("is one class only: commas part classes") == 1
    assert "warning: in: left out 1 file of a kind that is not read (.heic)" in said.err
    assert "1 done, 0 without a result" in said.out


def test_the_bar_reaches_its_end(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = []

    class Bar(tqdm):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**{**settings, "disable": False, "file": io.StringIO()})
            bars.append(self)

    monkeypatch.setattr("rfclip.segment.files.tqdm", Bar)
    picture(Path("in/a.png"))
    for name in ("b.png", "c.mp4"):
        Path("in", name).touch()
    assert run("in", "--classes=sky,dog", "--out=out") == 1
    assert [(bar.n, bar.total) for bar in bars] == [(3, 3)]


def test_profiles_and_class_names() -> None:
    assert method_block("RefocusCLIP") == method_block("paper")
    assert method_block("RefocusCLIPRelease")["type"] == "RefocusCLIPRelease"
    assert method_block("MeanKK") == {"type": "MeanKK"}


def test_bands_are_taken_as_told(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bands = np.tile(np.array([10, 60, 110, 160, 210], np.uint8), (20, 20, 1))
    Path("scene.tif").write_bytes(tiff_bytes(bands, extra=[0, 0]))
    assert run("scene.tif", "--classes=sky,dog", "--out=out", "--opacity=0") == 0
    assert "scene.tif has 5 bands; the first three were taken" in facts("out/scene.json")["note"]
    assert run("scene.tif", "--classes=sky,dog", "--out=out", "--opacity=0", "--bands=5,3,2") == 0
    with Image.open("out/scene_overlay.png") as painted:
        assert painted.getpixel((3, 3)) == (210, 110, 60)
    assert facts("out/scene.json")["note"] is None
    assert facts("out/scene.json")["settings"]["bands"] == [5, 3, 2]
    capsys.readouterr()
    assert run("scene.tif", "--classes=sky,dog", "--out=out", "--bands=6,3,2") == 1
    assert (
        "scene.tif' cannot be read as an image: it has 5 bands, and asked for were 6, 3, 2" in capsys.readouterr().err
    )


def test_what_the_network_saw_and_where_the_wish_was_cut(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    picture(Path("in/strip.png"), 20, 2000)
    picture(Path("in/plain.png"))
    assert run("in", "--classes=sky,dog", "--out=out") == 0
    assert facts("out/plain.json")["seen"] == [48, 79]
    assert facts("out/plain.json")["note"] is None
    assert facts("out/strip.json")["seen"] == [20, 2048]
    note = "strip.png was seen with a short side of 20 pixels instead of 48: no side becomes longer than 2048"
    assert note in facts("out/strip.json")["note"]
    assert note in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run("--help")
    assert "2048" in capsys.readouterr().out


def test_explanations_and_results_share_a_folder(run: Any, clip_files: dict[str, str]) -> None:
    picture(Path("a.png"))
    model = [f"--model={clip_files['model']}", f"--pretrained={clip_files['pretrained']}"]
    arguments = ["a.png", "--classes=sky,dog", "--out=out"]

    def explained() -> int:
        return main(["explain", *arguments, *model, "--short-side=48", "--device=cpu", "--plots=labels,budget"])

    assert run(*arguments) == 0
    results = {path: path.read_bytes() for path in Path("out").iterdir()}
    assert explained() == 0
    assert {path: path.read_bytes() for path in results} == results
    made = {path: path.read_bytes() for path in Path("out").iterdir() if path not in results}
    assert len(made) == 3
    assert run(*arguments) == 0
    assert {path: path.read_bytes() for path in made} == made


def test_as_a_program(tmp_path: Path, clip_files: dict[str, str]) -> None:
    """From another folder, with a vocabulary file, without any network, and to a terminal that knows ASCII alone."""
    picture(tmp_path / "a.png")
    (tmp_path / "words.txt").write_text("sky\n塔, pagoda\n", encoding="utf-8")
    line = [sys.executable, str(ROOT / "tools/segment.py"), "a.png", "--classes", "words.txt", "--out", "out"]
    line += ["--model", clip_files["model"], "--pretrained", clip_files["pretrained"], "--method", "mask_clip"]
    environment = {**os.environ, "RFCLIP_CACHE": str(tmp_path / "cache"), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert facts(str(tmp_path / "out/a.json"))["names"] == ["sky", "塔"]
    assert "1 done, 0 without a result" in done.stdout
    assert "\\u5854 " in done.stdout


def _png_header(width: int, height: int) -> bytes:
    """The start of a PNG that claims to be so large."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
