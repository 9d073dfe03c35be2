"""Figures show names in any script."""

from rfclip.explain import style
from rfclip.io import fonts


def test_a_text_gets_a_font_that_has_its_letters_or_an_escape() -> None:
    """Without that, drawing would warn, which is an error here."""
    made = style.figure(2, 1, "plain")
    other = made.text(0.5, 0.3, "two\nlines \u1d81", fontsize=7)  # in STIXGeneral, which matplotlib brings along
    nowhere = made.text(0.5, 0.6, "a \U000e0fff")
    assert style.png_bytes(made)
    assert nowhere.get_text() == "a \\U000e0fff"
    assert other.get_text() == "two\nlines \u1d81"
    assert other.get_fontproperties().get_file() == fonts.font_file("\u1d81")
    assert other.get_fontsize() == 7
