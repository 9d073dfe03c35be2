"""docs/METHODS.md against the code: the settings that it states, and those with which methods were published."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from typing import Any

import pytest

from rfclip.benchmarks.configs import BENCHMARKS, method_block, profiles
from rfclip.methods import METHODS
from rfclip.refiners import REFINERS
from tests.support import settings_page as page

SECTIONS = page.sections()
CHAPTER = page.chapter()
OWN = page.profiles()


def defaults(name: str) -> dict[str, Any]:
    """The settings of a method or refiner with a default, as the class has them."""
    found = METHODS.get(name) or REFINERS.get(name)
    return {one.name: one.default for one in fields(found) if one.init and one.default is not MISSING}


@pytest.mark.parametrize("name", [name for name in SECTIONS if METHODS.get(name) or REFINERS.get(name)])
def test_a_section_states_the_defaults(name: str) -> None:
    assert page.settings(page.defaults(SECTIONS[name])) == defaults(name)


def test_every_method_with_published_settings_has_a_section() -> None:
    kinds = {method_block(name)["type"] for name in OWN if name in profiles()}
    assert kinds <= set(SECTIONS) and kinds >= {"SCCLIP", "SFP", "PEARL", "ResCLIP"}


@pytest.mark.parametrize("part", ["**Idea.**", "**Formula.**", "**The released code**", "**Settings.**"])
def test_sections_have_one_form(part: str) -> None:
    assert [name for name, text in SECTIONS.items() if METHODS.get(name) and part not in text] == []


def test_what_all_have_in_common_is_stated() -> None:
    stated = page.settings(CHAPTER[""])
    shared = {**page.common("voc21"), "window": tuple(page.common("voc21")["window"])}
    assert {"vocabulary": "voc21", **stated} == shared
    (side,) = re.findall(r"Cityscapes\s+at (\d+) pixels", CHAPTER[""])
    for name in BENCHMARKS:
        expected = {**page.common("voc21"), "vocabulary": name}
        assert page.common(name) == (expected | {"short_side": int(side)} if name == "cityscapes" else expected)


@pytest.mark.parametrize("profile", OWN)
def test_what_was_published_is_stated(profile: str) -> None:
    shared, rows = page.differing(profile)
    text = CHAPTER[profile]
    assert (page.settings(text), page.table(text)) == (shared, rows), f"as it must be:\n{page.wanted(profile)}"
    assert re.findall(r"^ As `(\w+)`", text) == [like for like in [page.like_of(profile)] if like]


def test_the_chapter_has_no_other_profiles() -> None:
    assert tuple(CHAPTER) == ("", *OWN)
