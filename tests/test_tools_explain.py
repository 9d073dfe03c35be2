"""tools/explain.py on small pictures and a small random CLIP."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.fixture
def run(clip_files, monkeypatch, tmp_path):
    """run(*arguments) -> exit status."""
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    tool = importlib.import_module("explain")
    model = [f"--model={clip_files['model']}", f"--pretrained={clip_files['pretrained']}"]
    return lambda *arguments: tool.main([*map(str, arguments), *model, "--short-side=48", "--device=cpu"])


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


def test_pictures_of_one_name_do_not_overwrite_each_other(run, photo, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.open(photo).save(tmp_path / folder / "my photo.png")
    arguments = ("--classes", "sky,tree", "--out", "out", "--plots", "budget", "--method", "mean_kk")
    assert run(photo, "a/my photo.png", "b/my photo.png", *arguments) == 0
    assert len(list(Path("out").glob("*.html"))) == len(list(Path("out").glob("*_budget.png"))) == 3


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
