"""Signs in finished results that something is wrong with the data or the settings, not with the method."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rfclip.areas import ImageAreas
from rfclip.evaluation import score

NEAR_ZERO_MIOU = 1.0  # percent
DOMINATING_SHARE = 0.95  # of all predicted pixels
UNLABELLED_SHARE = 0.05  # of all images


def alarms(images: Sequence[ImageAreas], names: Sequence[str]) -> list[str]:
    """Look for known silent failures.

    Args:
        images: Areas of all images.
        names: The C class names.

    Returns:
        A sentence with the likely cause for each that was found.
    """
    total = np.sum([areas.classes for areas in images], axis=0)
    found = [_invalid(images, len(names)), _unlabelled(images), _near_zero(total), _one_class(total, names)]
    return [sentence for sentence in found if sentence is not None]


def _invalid(images: Sequence[ImageAreas], num_classes: int) -> str | None:
    bad = [areas.image for areas in images if areas.invalid]
    if not bad:
        return None
    return (
        f"{len(bad)} images, {bad[0]} first, have labels outside 0 to {num_classes - 1} and not ignored: "
        "are these the right label files (suffix, train ids)?"
    )


def _unlabelled(images: Sequence[ImageAreas]) -> str | None:
    empty = [areas.image for areas in images if not areas.classes[:, 2].any()]
    if len(empty) <= UNLABELLED_SHARE * len(images):
        return None
    return f"{len(empty)} of {len(images)} images, {empty[0]} first, have no labelled pixel"


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
