"""The command as a whole: what it imports, how its options are spelt, how it ends, and its old names."""

from __future__ import annotations

import argparse
import builtins
import subprocess
import sys
from pathlib import Path

import pytest
from torch import OutOfMemoryError

import rfclip
from rfclip.checks import UserError, check_grid, check_whole
from rfclip.cli import VERBS, main, parse
from rfclip.cli.arguments import _SHARED
from rfclip.cli.errors import users_error

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "torchvision", "mmseg", "mmcv", "mmengine", "numpy", "scipy", "matplotlib", "open_clip", "cv2", "PIL"}
SETS = ("sample", "coco-object", "coco-stuff", "cityscapes", "pascal-context", "voc-aug")
ALIASES = {
    **{
        f"tools/{verb.replace('-', '_')}.py": [verb]
        for verb in VERBS
        if verb not in ("audit", "cost", "prepare", "info")
    },
    "tools/audit_vocabulary.py": ["audit"],
    "tools/benchmark.py": ["cost"],
    "datasets/make_sample.py": ["prepare", "sample"],
    **{f"datasets/cvt_{name.replace('-', '_')}.py": ["prepare", name] for name in SETS[1:]},
}


def asked(*line: str) -> subprocess.CompletedProcess[str]:
    """Run Python with a list of what it imports on stderr."""
    command = [sys.executable, "-X", "importtime", *line]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize("line", [[], *([verb] for verb in VERBS), ["prepare", "sample"]], ids=" ".join)
def test_help_is_there_before_anything_heavy(line: list[str]) -> None:
    done = asked("-m", "rfclip", *line, "--help")
    assert done.returncode == 0 and done.stdout.startswith(f"usage: {' '.join(['rfclip', *line])}")
    assert "rfclip" in imported(done) and not imported(done) & HEAVY


@pytest.mark.parametrize("script", sorted(ALIASES))
def test_every_old_path_is_its_verb(script: str) -> None:
    done = asked(script, "--help")
    assert done.returncode == 0 and done.stdout.startswith(f"usage: {' '.join(['rfclip', *ALIASES[script]])}")
    assert not imported(done) & HEAVY


def test_a_wrong_command_line_is_refused_before_anything_heavy() -> None:
    done = asked("-m", "rfclip", "segment", "photo.png")
    assert done.returncode == 2 and "the following arguments are required: --classes" in done.stderr
    assert not imported(done) & HEAVY


@pytest.mark.parametrize(
    ("program", "started", "command"),
    [
        ("-m", ["python", "-m", "rfclip", "test"], True),
        ("-m", ["python", "-m", "mine", "rfclip"], False),
        ("/usr/bin/rfclip", ["python", "/usr/bin/rfclip", "test"], True),
        (str(ROOT / "tools/test.py"), ["python", str(ROOT / "tools/test.py")], True),
        ("train.py", ["python", "train.py", "-m", "rfclip"], False),
        ("rfclip.py", ["python", "rfclip.py"], False),
        ("/usr/bin/rfclip", ["python", "-c", "spawn_main()"], False),  # what the command starts to read images
    ],
)
def test_the_command_is_told_from_the_library(
    monkeypatch: pytest.MonkeyPatch, program: str, started: list[str], command: bool
) -> None:
    monkeypatch.setattr(sys, "argv", [program])
    monkeypatch.setattr(sys, "orig_argv", started)
    assert rfclip._is_command() is command


def test_names_of_the_package() -> None:
    assert set(rfclip.__all__) <= set(dir(rfclip))
    assert all(getattr(rfclip, name) is not None for name in rfclip.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        rfclip.nothing  # noqa: B018  (asking for it is the test)


def options_of(verb: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, argparse.Action]:
    """The options of a verb by their spellings."""
    parsers = []

    def caught(self: argparse.ArgumentParser, *_: object) -> argparse.Namespace:
        parsers.append(self)
        raise InterruptedError

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(argparse.ArgumentParser, "parse_args", caught)
        parse([verb])
    return {spelling: action for action in parsers[0]._actions for spelling in action.option_strings}


def test_an_option_means_the_same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {verb: options_of(verb, monkeypatch) for verb in VERBS}
    for spellings, settings in _SHARED.values():
        having = [options[verb][spellings[0]] for verb in VERBS if spellings[0] in options[verb] and verb != "prepare"]
        assert having
        for action in having:
            assert set(spellings) <= set(action.option_strings)
            if spellings != ("--out",):  # test's are label maps, compare's is --work-dir
                assert (action.help or "").partition(" (default")[0] == settings["help"].partition(" (default")[0]
    for verb in VERBS:
        assert {"--import", "--traceback", "--help"} <= options[verb].keys()


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        (["test", "c.py", "w.pt"], "pretrained", "w.pt"),
        (["test", "c.py", "--checkpoint=w.pt"], "pretrained", "w.pt"),
        (["test", "c.py", "--profile=release"], "method", "release"),
        (
            ["test", "c.py", "--cfg-options", "a=1", "b.c=x", "--cfg-options", "d=2"],
            "cfg_options",
            ["a=1", "b.c=x", "d=2"],
        ),
        (["segment", "a.png", "--classes=a", "--checkpoint=w.pt"], "pretrained", "w.pt"),
        (["eval-all", "--profile=release"], "method", "release"),
        (["eval-all", "--sample"], "data_root", "data/sample"),
        (["eval-all", "--sample"], "model", "tiny"),
        (["eval-all", "--sample", "--pretrained=w.pt"], "model", None),
        (["compare", "--methods=a,b", "--benchmarks=voc21", "--out=o"], "work_dir", Path("o")),
        (["compare", "--methods=a,b", "--benchmarks=voc21", "--images=3"], "limit", 3),
        (["audit", "--profile=release"], "method", "release"),
        (["audit", "--protocol=shared"], "protocol", "shared"),
        (["eval-all"], "protocol", None),
        (["test", "c.py", "--protocol=published"], "protocol", "published"),
        (["compare", "--methods=all", "--benchmarks=all"], "protocol", "shared"),
        (["prepare", "coco-object", "x", "--traceback"], "traceback", True),
        (["prepare", "--traceback", "coco-object", "x"], "traceback", True),
        (["info", "--import=a", "--import", "b"], "imports", ["a", "b"]),
    ],
)
def test_every_spelling_is_read(line: list[str], name: str, value: object) -> None:
    assert getattr(parse(line)[1], name) == value


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["segmnet"], "no verb 'segmnet' (did you mean segment?)"),
        (["--classes"], "no verb '--classes'"),
        (["prepare"], "the following arguments are required: WHAT"),
        (["prepare", "coco"], "invalid choice: 'coco'"),
        (["test", "c.py", "w.pt", "--pretrained=v.pt"], "CHECKPOINT is w.pt and --pretrained v.pt: give one of them"),
        (["test", "c.py", "--cfg-options", "a"], "give KEY=VALUE, got 'a'"),
        (["eval-all", "--gpus=0"], "give a whole number of at least 1, got '0'"),
        (["eval-all", "--protocol=fair"], "invalid choice: 'fair'"),
        (["segment", "a.png", "--classes=a", "--short-side=x"], "give a whole number of at least 1, got 'x'"),
        (["eval-all", "--work-dir="], "give a folder"),
    ],
)
def test_a_wrong_command_line_is_status_two(line: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(line)
    assert stopped.value.code == 2 and sentence in capsys.readouterr().err


def caught(action: object, *arguments: object) -> Exception:
    with pytest.raises(Exception) as found:
        action(*arguments)  # type: ignore[operator]  # one of several kinds
    return found.value


def test_whose_fault_an_error_is() -> None:
    assert users_error(caught(check_whole, "x", -1)) == "x must be a whole number of at least 0, got -1"
    assert users_error(UserError("say\nthis")) == "say this"
    assert "No such file" in (users_error(caught(Path("nowhere").read_text)) or "")
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: too much"), OutOfMemoryError()):
        assert "not enough memory" in (users_error(error) or "")
    assert "the package gradoi is not installed" in (users_error(caught(builtins.__import__, "gradoi")) or "")
    in_our_line = caught(check_grid, 5, (1, 1))  # a TypeError of len(5), and no check's
    assert isinstance(in_our_line, TypeError) and users_error(in_our_line) is None
    assert users_error(caught(int, "x")) is None
    assert users_error(caught(builtins.__import__, "rfclip.nothing")) is None
    assert users_error(KeyError("x")) is None


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("rfclip.cli.info.facts", fail)


def test_a_fault_of_ours_is_shown_whole(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    failing(monkeypatch, RuntimeError("a mistake"))
    assert main(["info"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Traceback") and "in fail" in said
    assert said.splitlines()[-1].startswith("error: RuntimeError: a mistake; this is a fault of rfclip")


def test_what_the_user_can_put_right_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, UserError("no such thing"))
    assert main(["info"]) == 1
    assert capsys.readouterr().err == "error: no such thing\n"
    with pytest.raises(UserError):
        main(["info", "--traceback"])


def test_an_interrupt_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    assert main(["info"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_module_of_the_users_is_imported_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "methods_of_mine.py").write_text("print('here')\n")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper/broken_of_mine.py").write_text("int('x')\n")
    failing(monkeypatch, UserError("then this"))
    assert main(["info", "--import=methods_of_mine"]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("here\n", "error: then this\n")
    assert main(["info", "--import=deeper/broken_of_mine.py"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "ValueError" in last and last.endswith("broken_of_mine.py, which --import brought")
    assert main(["info", "--import=none_of_mine"]) == 1
    assert capsys.readouterr().err.startswith("error: no module 'none_of_mine' for --import")


def test_info_names_what_ships(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    said = capsys.readouterr().out
    for words in (rfclip.__version__, "voc21_clean", "imagenet80", "mean_kk", "cityscapes", "cpu", "ablation"):
        assert words in said


def test_info_lists_the_models_that_can_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--models"]) == 0
    models = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert "openai" in models["ViT-B-16"].split(", ") and "laion2b_s32b_b79k" in models["ViT-H-14"]
    assert "RN50" not in models and "ViT-B-16-SigLIP" not in models
