"""Each alarm on areas that should set it off, and silence on sound ones."""

from __future__ import annotations

import numpy as np
import pytest

from rfclip.alarms import alarms
from rfclip.areas import ImageAreas

NAMES = ("sky", "tree", "road")
SOUND = [[50, 60, 70], [20, 30, 40], [5, 40, 20]]


def image(classes: list[list[int]], name: str = "a.jpg", invalid: int = 0) -> ImageAreas:
    return ImageAreas(name, np.array(classes), 10, invalid)


def test_sound_results_raise_none() -> None:
    assert alarms([image(SOUND), image(SOUND, "b.jpg")], NAMES) == []


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([image(SOUND, "bad.png", invalid=3)], "1 images, bad.png first, have labels outside 0 to 2"),
        ([image(SOUND), image([[0, 9, 0], [0, 0, 0], [0, 0, 0]], "e.jpg")], "1 of 2 images, e.jpg first, have no"),
        ([image([[0, 60, 70], [0, 30, 40], [1, 40, 20]])], "mIoU is 0."),
        ([image([[40, 98, 40], [1, 1, 30], [1, 1, 30]])], "'sky' was predicted for 98% of all pixels"),
    ],
)
def test_what_goes_wrong_silently_is_said(images: list[ImageAreas], message: str) -> None:
    assert any(message in sentence for sentence in alarms(images, NAMES))


def test_a_class_that_is_everywhere_may_be_predicted_everywhere() -> None:
    assert alarms([image([[970, 990, 980], [5, 5, 10], [5, 5, 10]])], NAMES) == []
