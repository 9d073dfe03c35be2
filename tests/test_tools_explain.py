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
    assert written == ["my photo.html", "my photo_budget.png", "my photo_labels.png"]
    assert str(tmp_path / "out" / "my photo.html") in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--point", "80,3"], "point 80,3 is not in the picture: x is in 0..79"),
        (["--plots", "labels,nothing"], "no plot 'nothing'; there are labels, attention"),
        (["--layers", "7"], "layers [7] are not all among the layers 0..2"),
        (["--method", "nothing"], "no profile 'nothing'"),
    ],
)
def test_errors_are_one_sentence(run, photo, capsys, arguments, message):
    assert run(photo, "--classes", "sky,tree", "--out", "out", *arguments) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert not Path("out").exists()


def test_pictures_of_one_name_do_not_overwrite_each_other(run, photo, tmp_path):
    other = tmp_path / "other" / "my photo.jpg"
    other.parent.mkdir()
    Image.open(photo).save(other)
    arguments = ("--classes", "sky,tree", "--out", "out", "--plots", "budget", "--method", "mean_kk")
    assert run(photo, other, *arguments) == 0
    assert sorted(path.name for path in Path("out").glob("*.html")) == ["my photo_jpg.html", "my photo_png.html"]


def test_help_names_the_plots(run, capsys):
    with pytest.raises(SystemExit):
        run("--help")
    assert "stripes: attention received" in " ".join(capsys.readouterr().out.split())
