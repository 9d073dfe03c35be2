"""Tables as Markdown, as text and as CSV."""

from __future__ import annotations

import math

from rfclip.io.tables import aligned, comma_separated, markdown, number

HEADS, ROWS = ["name", "n"], [["a|b", "1"], ["long name", "22"]]


def test_one_table_three_ways() -> None:
    assert markdown(HEADS, ROWS) == "| name | n |\n| --- | --- |\n| a/b | 1 |\n| long name | 22 |\n"
    assert aligned(HEADS, iter(ROWS)) == "name       n\na|b        1\nlong name  22"
    assert comma_separated(HEADS, [["a,b", None], ['say "x"', 2.5]]) == 'name,n\n"a,b",\n"say ""x""",2.5\n'


def test_numbers_that_are_not_known_are_said_so() -> None:
    assert [number(value) for value in (1.004, None, math.nan)] == ["1.00", "", ""]
    assert number(2.0, 0, "-") == "2" and number(None, 1, "-") == "-"
