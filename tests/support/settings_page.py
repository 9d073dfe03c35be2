"""How docs/METHODS.md writes settings: the defaults of a class, and what was published with a profile."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rfclip.benchmarks.configs import BENCHMARKS
from rfclip.benchmarks.protocols import published_settings
from rfclip.data import DATA

PAGE = Path(__file__).parents[2] / "docs/METHODS.md"
TITLES = {
    "voc21": "VOC21", "voc20": "VOC20", "context60": "Context60", "context59": "Context59",
    "coco_object": "COCO-Object", "coco_stuff": "COCO-Stuff", "cityscapes": "Cityscapes", "ade20k": "ADE20K",
}  # fmt: skip


def sections() -> dict[str, str]:
    """The text of each section with a class in its title, '## PEARL (`PEARL`)', by the class."""
    parts = re.split(r"^## .*?(?:\(`(\w+)`\))?$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: text for name, text in zip(parts[1::2], parts[2::2], strict=True) if name}


def chapter() -> dict[str, str]:
    """The text of each part of the chapter of published settings by its profile; '' is the chapter's beginning."""
    (text,) = re.findall(r"^## Published settings$(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    parts = re.split(r"^\*\*`(\w+)`\.\*\*", text, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def defaults(text: str) -> str:
    """The paragraph of a section that begins with '**Settings.**'."""
    (found,) = re.findall(r"^\*\*Settings\.\*\*(.*?)(?:\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    return str(found)


def settings(text: str) -> dict[str, Any]:
    """The values in a text, `alpha=0.08, grid=80`, by name; a name with a dot is written with one."""
    found = {}
    for chunk in re.findall(r"`([^`]*=[^`]*)`", text):
        names = re.sub(r"(\w)\.(\w+=)", r"\1__\2", " ".join(chunk.split()))
        call = ast.parse(f"f({names})").body[0]
        assert isinstance(call, ast.Expr) and isinstance(call.value, ast.Call)
        for entry in call.value.keywords:
            found[str(entry.arg).replace("__", ".")] = ast.literal_eval(entry.value)
    return found


def table(text: str) -> dict[str, tuple[str, ...]]:
    """The rows of the first table in a text by their name, as cells in the order of the benchmarks."""
    drawn = re.findall(r"^\|.*\|$", text, re.MULTILINE)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in drawn]
    if not lines:
        return {}
    assert lines[0] == ["", *TITLES.values()], lines[0]
    return {name.strip("`"): tuple(cells) for name, *cells in lines[2:]}


def profiles() -> tuple[str, ...]:
    """The profiles with published settings."""
    return tuple(_data()["profiles"])


def like_of(profile: str) -> str | None:
    """The profile from which another one differs in what it says."""
    return _data()["profiles"][profile].get("like")


def differing(profile: str) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    """What a profile was published with otherwise than the one that it is like, or than all have in common.

    Returns:
        Values that all benchmarks share, and cells in the order of the benchmarks where they do not.
    """
    shared, rows, like = {}, {}, like_of(profile)
    own = [_flat(published_settings(profile, name), name) for name in BENCHMARKS]
    other = [_flat(published_settings(like, name) if like else common(name), name) for name in BENCHMARKS]
    for key in sorted({key for one in (*own, *other) for key in one}):
        values = [one.get(key, "-") for one in own]
        if values == [one.get(key, "-") for one in other]:
            continue
        if all(value == values[0] for value in values):
            shared[key] = values[0]
        else:
            rows[key] = tuple(map(cell, values))
    return shared, rows


def common(benchmark: str) -> dict[str, Any]:
    """What all profiles have in common unless they say otherwise."""
    entry = _data()["common"]
    return {"vocabulary": benchmark, **entry["all"], **entry.get(benchmark, {})}


def _data() -> dict[str, Any]:
    return json.loads((DATA / "protocols.json").read_text(encoding="utf-8"))


def _flat(found: Mapping[str, Any], benchmark: str) -> dict[str, Any]:
    """Settings with the entries of their blocks as names of their own."""
    flat = {key: value for key, value in found.items() if key not in ("method", "clip", "refiner")}
    flat["vocabulary"] = "-" if found["vocabulary"] == benchmark else found["vocabulary"]
    flat["window"] = "whole" if found["window"] is None else tuple(found["window"])
    refiner = found["refiner"] or {}
    flat["refiner"] = refiner.get("type")
    flat |= {f"refiner.{key}": value for key, value in refiner.items() if key != "type"}
    flat |= {f"clip.{key}": value for key, value in found.get("clip", {}).items()}
    return flat | dict(found.get("method", {}))


def cell(value: Any) -> str:
    """A value as the tables show it."""
    if isinstance(value, tuple):
        return "/".join(map(str, value))
    return "-" if value is None else str(value).removesuffix(".0")


def wanted(profile: str) -> str:
    """The paragraph and the table of a profile as they must stand in the page, without words around them."""
    like = like_of(profile)
    shared, rows = differing(profile)
    text = ", ".join(f"{key}={value!r}" for key, value in shared.items())
    lines = [["", *TITLES.values()], *([f"`{key}`", *cells] for key, cells in rows.items())]
    drawn = "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""
    return f"**`{profile}`.** {f'As `{like}`. ' if like else ''}{f'`{text}`' if text else ''}\n\n{drawn}"
