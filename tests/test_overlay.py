"""Labels over a picture."""

import numpy as np
import pytest
from PIL import Image

from rfclip.overlay import paint, with_legend


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
    with pytest.raises(ValueError, match=r"1\.5"):
        paint(np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), int), [(0, 0, 0)], opacity=1.5)


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
