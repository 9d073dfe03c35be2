"""Each alarm on areas that should set it off, and silence on sound ones."""

from __future__ import annotations

import numpy as np
import pytest

from rfclip.runs.alarms import alarms
from rfclip.runs.areas import ImageAreas

NAMES = ("sky", "tree", "road")
SOUND = [[50, 60, 70], [20, 30, 40], [5, 40, 20]]


def image(classes: list[list[int]], name: str = "a.jpg", invalid: int = 0, ignored: int = 10) -> ImageAreas:
    return ImageAreas(name, np.array(classes), ignored, invalid)


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


def test_a_label_that_is_no_class_is_shown() -> None:
    strange = ImageAreas("bad.png", np.array(SOUND), 0, 3, strange=300)
    assert "(the value 300 in its label map; 3 classes)" in alarms([strange], NAMES)[0]


def test_a_large_ignored_share_is_told_unless_the_data_set_means_it() -> None:
    many = [image(SOUND, ignored=50)]
    assert [sentence for sentence in alarms(many, NAMES) if sentence.startswith("28% of all pixels are ignored")]
    assert alarms(many, NAMES, ignores_by_design=True) == alarms(many, NAMES, ignore_index=0) == []


def test_masks_of_0_and_255_are_told_however_small_the_object_is() -> None:
    mask = [image([[70, 70, 70], [0, 0, 0]], ignored=1)]
    found = alarms(mask, ("background", "cat"))
    assert [sentence for sentence in found if "all of 'cat'" in sentence and "masks of 0 and 255" in sentence]


def test_a_class_in_no_label_map_is_told_unless_it_is_the_ignored_one() -> None:
    absent = [image([[50, 60, 70], [0, 30, 0], [5, 40, 20]])]
    assert any("1 class occurs in no label map (tree)" in sentence for sentence in alarms(absent, NAMES))
    assert not any("no label map" in sentence for sentence in alarms(absent, NAMES, ignore_index=1))


def test_a_class_that_is_everywhere_may_be_predicted_everywhere() -> None:
    assert alarms([image([[970, 990, 980], [5, 5, 10], [5, 5, 10]])], NAMES) == []
