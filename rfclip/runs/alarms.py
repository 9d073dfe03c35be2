"""Signs in finished results that something is wrong with the data or the settings, not with the method."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rfclip.benchmarks.label_checks import shortened
from rfclip.runs.areas import ImageAreas
from rfclip.runs.metric import score

NEAR_ZERO_MIOU = 1.0  # percent
DOMINATING_SHARE = 0.95  # of all predicted pixels
UNLABELLED_SHARE = 0.05  # of all images
IGNORED_SHARE = 0.2  # of all pixels


def alarms(
    images: Sequence[ImageAreas], names: Sequence[str], ignores_by_design: bool = False, ignore_index: int = 255
) -> list[str]:
    """Look for known silent failures.

    Args:
        images: Areas of all images.
        names: The C class names.
        ignores_by_design: Whether the data set itself leaves classes out of the count, as one without background does.
        ignore_index: Label of the pixels that do not count.

    Returns:
        A sentence with the likely cause for each that was found.
    """
    total = np.sum([areas.classes for areas in images], axis=0)
    found = [
        _invalid(images, len(names)),
        _unlabelled(images),
        None if ignores_by_design or ignore_index < len(names) else _ignored(images, total, names, ignore_index),
        _absent(total, names, ignore_index),
        _near_zero(total),
        _one_class(total, names),
    ]
    return [sentence for sentence in found if sentence is not None]


def _invalid(images: Sequence[ImageAreas], num_classes: int) -> str | None:
    bad = [areas for areas in images if areas.invalid]
    if not bad:
        return None
    value = "" if bad[0].strange is None else f" (the value {bad[0].strange} in its label map; {num_classes} classes)"
    return (
        f"{len(bad)} images, {bad[0].image} first, have labels outside 0 to {num_classes - 1} and not ignored{value}: "
        "are these the right label files (suffix, train ids)?"
    )


def _unlabelled(images: Sequence[ImageAreas]) -> str | None:
    empty = [areas.image for areas in images if not areas.classes[:, 2].any()]
    if len(empty) <= UNLABELLED_SHARE * len(images):
        return None
    return f"{len(empty)} of {len(images)} images, {empty[0]} first, have no labelled pixel"


def _ignored(images: Sequence[ImageAreas], total: np.ndarray, names: Sequence[str], ignore_index: int) -> str | None:
    """A large ignored share; or nothing but one class and the ignored label, as in masks of 0 and 255."""
    ignored, labelled = sum(areas.ignored for areas in images), total[:, 2]
    share = ignored / max(ignored + labelled.sum() + sum(areas.invalid for areas in images), 1)
    there = np.flatnonzero(labelled)
    if ignored and len(there) == 1 and len(names) > 1:
        lost = [name for index, name in enumerate(names) if index != there[0]]
        what = f", and with them all of '{lost[0]}'" if len(lost) == 1 else ""
        return (
            f"{share:.0%} of all pixels are ignored (label {ignore_index}){what}; '{names[there[0]]}' is the only "
            f"class that is labelled: are these masks of 0 and {ignore_index}, which stands for an object? Then write "
            "1 there"
        )
    if share <= IGNORED_SHARE:
        return None
    return f"{share:.0%} of all pixels are ignored and count nowhere: is label {ignore_index} a class here?"


def _absent(total: np.ndarray, names: Sequence[str], ignore_index: int) -> str | None:
    empty = np.flatnonzero(total[:, 2] == 0).tolist()
    absent = [str(names[index]) for index in empty if index != ignore_index]
    if not absent or len(absent) == len(names):  # none at all: said of the images
        return None
    which = "1 class occurs" if len(absent) == 1 else f"{len(absent)} classes occur"
    return (
        f"{which} in no label map ({shortened(absent)}), so that the means are not over all {len(names)} classes, "
        "or count 0 where one is predicted: are the label maps complete, and their values those of these classes?"
    )


def _near_zero(total: np.ndarray) -> str | None:
    miou = score(total).metrics()["mIoU"]
    if not miou < NEAR_ZERO_MIOU:
        return None
    return (
        f"mIoU is {miou:.2f}: do vocabulary, label convention and threshold fit the data set, and the "
        "activation (quick_gelu) the weights?"
    )


def _one_class(total: np.ndarray, names: Sequence[str]) -> str | None:
    predicted, labelled = total[:, 1], total[:, 2]
    top = int(predicted.argmax())
    share = predicted[top] / max(predicted.sum(), 1)
    if share <= DOMINATING_SHARE or labelled[top] > DOMINATING_SHARE * labelled.sum():
        return None
    return f"'{names[top]}' was predicted for {share:.0%} of all pixels: is the threshold too high?"
