"""The notebook docs/tour.ipynb runs top to bottom, and still gives what it shows."""

import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

TOUR = Path(__file__).parents[1] / "docs/tour.ipynb"


def shown(notebook: Any) -> list[list[str]]:
    """Per code cell the kinds of its outputs, in order: 'stdout', 'image/png', ..."""
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    return [[output.get("name") or sorted(output["data"])[0] for output in cell.outputs] for cell in cells]


def test_the_tour_runs_and_shows_what_is_stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    stored = nbformat.read(TOUR, as_version=4)
    ran = NotebookClient(
        nbformat.read(TOUR, as_version=4),
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    assert shown(ran) == shown(stored)
    assert sum(map(len, shown(ran))) > 10
    assert all("stderr" not in kinds for kinds in shown(ran))


def test_the_tour_names_no_place_of_a_machine() -> None:
    text = TOUR.read_text(encoding="utf-8")
    places = (Path.home(), TOUR.parents[1], tempfile.gettempdir(), sys.prefix, sys.base_prefix)
    assert not [place for place in map(str, places) if f"{place}/" in text]
