"""Labels over a picture."""

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from rfclip.io import fonts
from rfclip.segment.overlay import legend_name, paint, with_legend

STIX = "\u1d81"  # not in DejaVu Sans, but in STIXGeneral, which matplotlib brings along as well


@pytest.fixture
def no_other_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fonts, "_installed", tuple)
    fonts.font_file.cache_clear()
    yield
    fonts.font_file.cache_clear()


def test_paint_mixes_by_opacity() -> None:
    image = np.full((2, 3, 3), 100, np.uint8)
    labels = np.array([[0, 1, 1], [0, 0, 1]])
    painted = paint(image, labels, [(200, 0, 0), (0, 0, 100)], opacity=0.25)
    for y in range(2):
        for x in range(3):
            colour = np.array([(200, 0, 0), (0, 0, 100)][labels[y, x]])
            assert painted[y, x].tolist() == (100 * 0.75 + colour * 0.25 + 0.5).astype(int).tolist()
    np.testing.assert_array_equal(paint(image, labels, [(1, 2, 3), (4, 5, 6)], opacity=0), image)


def test_opacity_out_of_range() -> None:
    for opacity in (1.5, -0.1, float("nan"), "x", None):
        with pytest.raises(ValueError, match=f"opacity is a share, 0..1, got {opacity!r}"):
            paint(np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), int), [(0, 0, 0)], opacity=opacity)


def test_legend_shows_every_colour_below_the_picture() -> None:
    picture = Image.new("RGB", (160, 90), "grey")
    entries = [(f"name {i}", (10 * i, 255 - 10 * i, 77), 0.1) for i in range(10)]
    result = with_legend(picture, entries)
    assert np.array_equal(np.array(result)[:90, :160], np.array(picture))
    shown = {tuple(pixel) for pixel in np.array(result)[90:].reshape(-1, 3)}
    assert {colour for _, colour, _ in entries} <= shown


def test_a_name_wider_than_the_picture_widens_the_canvas() -> None:
    result = with_legend(Image.new("RGB", (20, 20)), [("a very long name indeed", (1, 2, 3), 1.0)])
    assert result.width > 100


@pytest.mark.parametrize("size", [(1, 1), (20, 300), (320, 20), (500, 400)])
def test_no_name_makes_the_overlay_wide(size: tuple[int, int]) -> None:
    entries = [(name, (1, 2, 3), 0.5) for name in ("a name without end " * 5000, "W" * 60, "犬" * 500, "")]
    result = with_legend(Image.new("RGB", size), entries)
    assert result.width <= max(240, size[0])
    assert result.height < size[1] + 120


def letter_height(size: tuple[int, int]) -> int:
    """Of the M in the legend of a white picture without a swatch's colours."""
    legend = np.array(with_legend(Image.new("RGB", size, "white"), [("M", (255, 255, 255), 1.0)]))[size[1] :, :, 0]
    ink = np.flatnonzero((legend < 128).any(0))
    swatch = int(np.flatnonzero(np.diff(ink) > 1)[1]) + 1  # its left edge, its right edge
    return int((legend[:, ink[swatch] :] < 128).any(1).sum())


def test_letters_are_neither_tiny_nor_huge() -> None:
    heights = [letter_height(size) for size in ((1, 1), (60, 900), (500, 400), (2000, 1600))]
    assert heights == sorted(heights)
    assert 8 <= heights[0] < heights[-1] <= 32


def test_names_of_several_lines_and_control_characters_are_one_line() -> None:
    assert legend_name(0, " a\n b\tc ") == "a b c"
    assert legend_name(0, "a\x1b[31m") == "a\\x1b[31m"
    flat, tall = (with_legend(Image.new("RGB", (400, 50)), [(name, (1, 2, 3), 1.0)]) for name in ("ab", "a\nb"))
    assert flat.size == tall.size


def test_a_name_is_drawn_in_a_font_that_has_its_letters() -> None:
    assert fonts.font_file("дом, σκύλος") == fonts.sans_font()
    assert legend_name(2, STIX) == STIX
    file = fonts.font_file(STIX)
    assert file not in (None, fonts.sans_font())
    assert fonts.font(STIX, 12).path == file


def test_a_name_that_no_font_can_show_is_still_told_apart(no_other_fonts: None) -> None:
    assert legend_name(3, f"dog {STIX}") == "class 3 (dog \\u1d81)"
    assert fonts.drawable(f"ab {STIX}") == "ab \\u1d81"


def test_fonts_that_show_boxes_for_everything_are_not_taken() -> None:
    assert not any("LastResort" in file for file in fonts._installed())
