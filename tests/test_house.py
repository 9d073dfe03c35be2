"""The order of the house, read from the sources: who imports whom, who may import mmseg, what stands where."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from rfclip.runs.manifest import BESIDE_RUNS

ROOT = Path(__file__).parents[1]

# Imports run downwards: a room may import rooms of its own floor and of those before it. A new room needs a floor.
FLOORS = (
    {"checks", "registry", "data", "version"},
    {"io", "words", "clip"},
    {"vision"},
    {"refocus", "normalized_cut"},
    {"refiners"},
    {"methods"},
    {"pipeline"},
    {"segment", "plugin"},
    {"benchmarks", "runs"},
    {"explain", "analysis", "cost"},
    {"demo", "cli", "rfclip", "__main__"},  # rfclip: the public names, in rfclip/__init__.py
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

HOSTS = {"mmseg", "mmengine", "mmcv"}
MAY_IMPORT_HOSTS = {"plugin", "benchmarks", "runs", "cost", "cli", "analysis"}

_DRIVE, _TOP = r"\b[A-Z]:[\\/]+(?:Users|home)\b", "home|Users|root|work|mnt|media|scratch|nfs|opt/conda"
MACHINE_PATH = re.compile(rf"(?<![\w.\-/$}}<>*])/(?:{_TOP})/\w|{_DRIVE}")


@cache
def imports() -> dict[str, set[str]]:
    """Each module of the package, with all that it imports, also inside of functions."""
    files = {_module(path): path for path in sorted((ROOT / "rfclip").rglob("*.py"))}
    return {module: set(_imported(path, module, files)) for module, path in files.items()}


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(path: Path, module: str, known: dict[str, Path]) -> Iterator[str]:
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in known else base


def room(module: str) -> str:
    """`io` of `rfclip.io.images`, `refocus` of `rfclip.refocus`, `rfclip` of the package itself."""
    return module.split(".")[1] if "." in module else module


def inside() -> set[tuple[str, str]]:
    """All pairs (importer, imported) within the package."""
    return {
        (module, other) for module, found in imports().items() for other in found if other.split(".")[0] == "rfclip"
    }


def test_every_room_has_a_floor() -> None:
    assert {room(module) for module in imports()} <= set(FLOOR)


def test_no_import_runs_upwards() -> None:
    upwards = {(module, other) for module, other in inside() if FLOOR[room(other)] > FLOOR[room(module)]}
    assert not upwards


def test_no_run_imports_what_its_code_hash_leaves_out() -> None:
    beside = {part.removesuffix("/") for part in BESIDE_RUNS}
    assert beside & set(FLOOR) == {"segment", "explain", "analysis", "cost", "demo", "cli"}
    entries = {"rfclip", "__main__"}  # hand the public names on
    assert not {(one, other) for one, other in inside() if room(one) not in beside | entries and room(other) in beside}


def test_who_imports_the_hosts() -> None:
    found = {room(module) for module, names in imports().items() if {name.split(".")[0] for name in names} & HOSTS}
    assert found <= MAY_IMPORT_HOSTS


def test_what_is_imported_exists() -> None:
    """Also inside of functions, where nothing but a call would tell."""
    missing = []
    for path in sorted((ROOT / "rfclip").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rfclip":
                found = find_spec(str(node.module)) is not None
                module = import_module(str(node.module)) if found else None
                missing += [
                    (path.name, node.module, alias.name)
                    for alias in node.names
                    if module is None or not (hasattr(module, alias.name) or find_spec(f"{node.module}.{alias.name}"))
                ]
    assert not missing


def test_no_import_circle() -> None:
    below: dict[str, set[str]] = {module: set() for module in imports()}
    for module, other in inside():
        if other != module and module != "rfclip":  # whoever imports a module runs rfclip/__init__.py first
            below[module].add(other)
    while leaves := {module for module, others in below.items() if not others & set(below)}:
        for module in leaves:
            del below[module]
    assert not below, f"modules that import each other, and those above them: {sorted(below)}"


def test_the_root_of_the_package_is_small() -> None:
    assert len([module for module in imports() if module.count(".") == 1 and _file(module)]) <= 7  # and __init__


def _file(module: str) -> bool:
    return (ROOT / module.replace(".", "/")).with_suffix(".py").exists()


def test_every_room_says_what_it_is() -> None:
    silent = [
        path.name
        for path in sorted((ROOT / "rfclip").iterdir())
        if (path / "__init__.py").exists() and not ast.get_docstring(ast.parse((path / "__init__.py").read_text()))
    ]
    assert silent == []


def test_tests_stand_in_the_rooms_of_what_they_test() -> None:
    rooms = {room(module) for module in imports()} | {"cli", "datasets", "support"}  # datasets/: scripts
    found = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert found <= rooms


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [path for name in listed.decode().split("\0") if name and (path := ROOT / name).is_file()]


def test_no_path_of_a_machine() -> None:
    found = []
    for path in tracked():
        content = path.read_bytes()
        if b"\0" not in content:
            lines = enumerate(content.decode("utf-8").splitlines(), 1)
            found += [f"{path.relative_to(ROOT)}:{number}" for number, line in lines if MACHINE_PATH.search(line)]
    assert found == []


@pytest.mark.parametrize("text", ["'/home/" + "me/x'", "open(/mnt" + "/disk/a)", "C:" + "\\Users\\me", "=/work" + "/x"])
def test_such_a_path_would_be_found(text: str) -> None:
    assert MACHINE_PATH.search(text)


@pytest.mark.parametrize(
    "text", ["rfclip/data/x", "https://host.org/ho" + "me/page", "${root}/wo" + "rk/x", "../root/a"]
)
def test_others_are_none(text: str) -> None:
    assert not MACHINE_PATH.search(text)
