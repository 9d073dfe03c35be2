"""The papers of the repository: the first page's example runs, links and paths exist, the gate finds its commands."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch
from mmengine.fileio import load
from open_clip.transformer import VisionTransformer

import rfclip
from rfclip.benchmarks.configs import BENCHMARKS, find_profile
from rfclip.methods import METHODS, MaskCLIP

ROOT = Path(__file__).parents[1]
PAPERS = [path for folder in (".", "docs", "docs/gallery", "datasets") for path in sorted((ROOT / folder).glob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def my_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The example of README.md as a module that can be imported; what it registers is forgotten afterwards."""
    (code,) = [block for block in blocks(ROOT / "README.md", "python") if "@METHODS.register" in block]
    (tmp_path / "my_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(METHODS, "_classes", dict(METHODS._classes))
    monkeypatch.setattr(METHODS, "_others", [])
    yield "my_module"
    sys.modules.pop("my_module", None)


def test_the_method_of_the_first_page(
    my_module: str, tiny_vit: VisionTransformer, make_images: Callable[..., torch.Tensor]
) -> None:
    import_module(my_module)
    images = make_images(2, 64, 80)
    output, same = METHODS.build({"type": "ValuesOnly"})(tiny_vit, images), MaskCLIP()(tiny_vit, images)
    torch.testing.assert_close(output.patches, same.patches)
    torch.testing.assert_close(output.image, same.image)
    assert output.grid == same.grid == (4, 5)


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_in_the_papers_can_be_parsed(path: Path) -> None:
    for block in blocks(path, "python"):
        assert ast.parse(block).body


def test_paths_that_the_papers_name_exist() -> None:
    named = {
        name
        for paper in (ROOT / "README.md", ROOT / "docs/ARCHITECTURE.md", ROOT / "CONTRIBUTING.md")
        for name in re.findall(r"`((?:rfclip|configs|docs|tests|tools|datasets)/[\w./-]*)`", paper.read_text())
    }
    examples = {name for name in named if re.search(r"NAME|VERB|shapes|key_key|vit-b32|\.mim", name)}
    assert [name for name in sorted(named - examples) if not (ROOT / name).exists()] == []


def test_the_gate_finds_its_commands() -> None:
    gate = (ROOT / ".ci/run").read_text()
    (names,) = re.findall(r"^for name in (.+); do$", gate, re.MULTILINE)
    marked = re.findall(r"^<!-- ci: (\w+) -->\n```bash\n\S", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert marked == names.split()
    assert all((ROOT / test).exists() for test in re.findall(r"\btests/\S+\.py", gate))


def test_pre_commit_runs_the_linters_of_the_gate() -> None:
    (repo,) = load(ROOT / ".pre-commit-config.yaml")["repos"]
    gate = (ROOT / ".ci/run").read_text()
    assert repo["repo"] == "local"
    assert [hook["entry"] for hook in repo["hooks"]] == re.findall(r"^(?:ruff .+|mypy)$", gate, re.MULTILINE)


def test_the_numbers_of_the_sample_are_those_that_runs_are_held_against() -> None:
    lines = re.findall(r"^\| (.*`.*) \|$", (ROOT / "docs/SAMPLE.md").read_text(encoding="utf-8"), re.MULTILINE)
    tables = [cells for cells in (line.split(" | ") for line in lines) if len(cells) == 2 + len(BENCHMARKS)]
    shown = {cells[0]: [float(cell) for cell in cells[1:]] for cells in tables}
    rows = [row for row in load(ROOT / "rfclip/data/expected.json") if "published" not in row]
    assert len(shown) == len(rows)
    for row in rows:
        profile = find_profile(row["profile"])
        names = {f"`{profile[0]}`", f"`{profile[1]['model']['method']['type']}`"}
        if "protocol" in row:
            names = {f"(`{profile[0]}`)"}
        found = [numbers for name, numbers in shown.items() if _is_row(name, names, row["pamr"])]
        values = [row["mIoU"][benchmark] for benchmark in BENCHMARKS]
        assert found == [pytest.approx([*values, sum(values) / 8], abs=0.06)], profile[0]


def _is_row(name: str, names: set[str], pamr: bool) -> bool:
    return any(one in name for one in names) and ("PAMR" in name) is pamr


def test_citation() -> None:
    with (ROOT / "CITATION.cff").open() as file:
        cited = load(file, file_format="yaml")
    paper = cited["preferred-citation"]
    assert cited["version"] == rfclip.__version__
    assert f"title     = {{{paper['title']}}}" in (ROOT / "README.md").read_text()
    assert paper["url"].endswith("2511.16170")
