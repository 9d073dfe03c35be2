"""The examples in the docstrings of the pure functions do what they say."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

MODULES = [
    "rfclip.checks",
    "rfclip.io.images",
    "rfclip.normalized_cut",
    "rfclip.pipeline.labels",
    "rfclip.pipeline.windows",
    "rfclip.refocus",
    "rfclip.words.typed",
    "rfclip.words.vocabulary",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    report: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    for test in doctest.DocTestFinder(exclude_empty=True).find(import_module(name)):
        runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).attempted > 0
    assert report == []
