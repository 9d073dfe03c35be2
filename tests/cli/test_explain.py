"""rfclip explain on small pictures and a small random CLIP."""

import html
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rfclip.cli import main
from rfclip.cli.explain import PLOTS
from rfclip.clip.tiny import DRAWN_WORLD_ONLY
from rfclip.explain import figures


@pytest.fixture
def run(clip_files, monkeypatch, tmp_path):
    """run(*arguments) -> exit status."""
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    model = [f"--model={clip_files['model']}", f"--pretrained={clip_files['pretrained']}"]
    return lambda *arguments: main(["explain", *map(str, arguments), *model, "--short-side=48", "--device=cpu"])


@pytest.fixture
def photo(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    path = tmp_path / "my photo.png"
    Image.fromarray(values).save(path)
    return path


def test_page_and_pictures(run, photo, tmp_path, capsys):
    arguments = (photo, "--classes", "sky, temple|pagoda", "--out", tmp_path / "out", "--point", "79,59")
    assert run(*arguments, "--plots", "labels,budget", "--layers", "0,2") == 0
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["my photo.html", "my photo_budget.png", "my photo_labels_compared.png"]
    assert str(tmp_path / "out" / "my photo.html") in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--plots", "labels,nothing"], "error: no plot 'nothing'; there are labels, attention"),
        (["--layers", "7"], "error: layers [7] are not all among the layers 0..2"),
        (["--method", "nothing"], "error: no profile 'nothing'"),
        (["--point", "80,3"], "my photo.png: point 80,3 is not in the picture: x is in 0..79"),
    ],
)
def test_errors_are_one_sentence(run, photo, capsys, arguments, message):
    assert run(photo, photo.parent / "gone.png", "--classes", "sky,tree", "--out", "out", *arguments) == 1
    (error,) = [line for line in capsys.readouterr().err.splitlines() if message in line]
    assert error.startswith(("error: ", "warning: "))
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--point", "1"], "'1' is no point: give X,Y in pixels, such as 120,80"),
        (["--point", "1,2,3"], "'1,2,3' is no point"),
        (["--layers", "x"], "'x' are no layers: give whole numbers from 0 on, as in 0,3"),
    ],
)
def test_what_cannot_be_read_is_said_with_the_usage(run, photo, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        run(photo, "--classes", "sky", *arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_plot_that_the_method_has_not_is_said(run, photo, capsys):
    assert run(photo, "--classes", "sky,tree", "--out", "out", "--method=vanilla_clip", "--plots=labels,vision") == 0
    assert "VanillaCLIP has nothing to show in the plot vision" in capsys.readouterr().out
    assert not list(Path("out").glob("*_vision.png"))


def test_pictures_of_one_name_do_not_overwrite_each_other(run, photo, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.open(photo).save(tmp_path / folder / "my photo.png")
    arguments = ("--classes", "sky,tree", "--out", "out", "--plots", "budget", "--method", "mean_kk")
    assert run(photo, "a/my photo.png", "b/my photo.png", *arguments) == 0
    assert len(list(Path("out").glob("*.html"))) == len(list(Path("out").glob("*_budget.png"))) == 3


def test_odd_names_of_pictures_and_classes(run, tmp_path, capsys):
    names = ["<img src=x>&\"'.png", os.fsdecode(b"\xff $5.png"), "two\nlines.png"]
    for name in names:
        Image.new("RGB", (80, 60), "green").save(tmp_path / name)
    assert run(*names, "--classes", "sky,<b>$a$|\u72ac", "--out", "out", "--plots", "labels,similarity") == 0
    pages = [path.read_text(encoding="utf-8") for path in Path("out").glob("*.html")]
    assert len(pages) == 3 and not any("<img src=x>" in page for page in pages)
    titles = {html.unescape(page.split("<title>")[1].split("</title>")[0]) for page in pages}
    written = {"<img src=x>&\"'", "\\udcff $5", "two\\nlines"}
    assert titles == {f"What RefocusCLIP does with {name}" for name in written}
    assert len(capsys.readouterr().out.splitlines()) >= 4


@pytest.mark.parametrize("out", ["file", "file/deeper"])
def test_results_that_cannot_be_written(run, photo, capsys, out):
    Path("file").touch()
    assert run(photo, "--classes", "sky", "--out", out, "--plots", "budget") == 1
    assert f"error: no results can be written to {out}: " in capsys.readouterr().err


def test_the_note_on_a_picture_is_on_its_page(run, tmp_path):
    Image.fromarray(np.full((60, 80), 900, np.uint16)).save(tmp_path / "deep.png")
    assert run("deep.png", "--classes", "sky", "--out", "out", "--plots", "budget") == 0
    assert "<dt>Note</dt><dd>" in Path("out/deep.html").read_text()


def test_the_tiny_clip_says_once_what_it_knows_and_on_every_page(run, photo, tmp_path, capsys):
    Image.new("RGB", (80, 60), "green").save(tmp_path / "b.png")
    arguments = ["--classes", "sky", "--out", "out", "--plots", "budget", "--method", "mean_kk", "--model", "tiny"]
    assert main(["explain", str(photo), "b.png", *arguments, "--short-side=48", "--device=cpu"]) == 0
    assert capsys.readouterr().out.count(DRAWN_WORLD_ONLY) == 1
    pages = [path.read_text() for path in Path("out").glob("*.html")]
    assert len(pages) == 2 and all(DRAWN_WORLD_ONLY in page for page in pages)


def test_what_cannot_be_explained_does_not_stop_the_rest(run, photo, tmp_path, capsys):
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / "clip.mp4").write_bytes(b"a video")
    frames = [Image.new("RGB", (80, 60), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "deep" / "moving.gif", save_all=True, append_images=frames[1:])
    arguments = ("--classes", "sky,tree", "--out", "out", "--plots", "budget", "--method", "mean_kk")
    assert run(folder, photo, "gone.png", *arguments) == 1
    said = capsys.readouterr()
    assert sorted(str(path) for path in Path("out").rglob("*.html")) == ["out/deep/moving.html", "out/my photo.html"]
    assert "moving.gif holds 2 images; the first one was taken" in said.out
    assert said.out.endswith("2 done, 3 without a result; results in out\n")
    warnings = [line for line in said.err.splitlines() if line.startswith("warning: ")]
    assert [sum(part in line for line in warnings) for part in ("bad.png", "clip.mp4 is a video", "gone.png")] == [
        1
    ] * 3


def test_help_names_the_plots(run, capsys):
    with pytest.raises(SystemExit):
        run("--help")
    assert "stripes: attention received" in " ".join(capsys.readouterr().out.split())
    assert {name: plot.title for name, plot in figures.PLOTS.items()} == PLOTS
