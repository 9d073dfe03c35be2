"""What stands between a dense method and the labels, fixed when a model is built."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfclip.checks import (
    Checked,
    built,
    check_above_zero,
    check_choice,
    check_range,
    check_switch,
    check_unless_none,
    check_whole,
    setting,
    shown,
)
from rfclip.pipeline import labels
from rfclip.pipeline.fitting import PATCH_FITS
from rfclip.pipeline.prior import Prior
from rfclip.pipeline.windows import Windows
from rfclip.refiners import Refiner, build_refiner
from rfclip.words.vocabulary import Vocabulary, shipped_vocabularies

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings(Checked):
    """Everything between the dense method and the labels; fixed when a model is built.

    Attributes:
        windows: how images are cut up.
        prior: the object-presence prior, or None.
        refiner: e.g. PAMR, or None.
        logit_scale: factor of the cosines before the softmax, > 0.
        prob_thd: where the winning probability (0..1) is below it, the label becomes `background_index`.
        background_index: class that takes the pixels below `prob_thd`; None where there is none.
        patch_fit: what happens to rows and columns that do not fill a patch: 'crop' leaves them unseen, 'pad'
            repeats the last row and column up to the next multiple and cuts the result back, 'pad_black' adds black
            (before normalisation) instead.
        keep_probs: whether the probabilities of all classes are kept beside the labels.
        alias_aggregation: how the logits of a class's names become its own: 'max', the best name's; 'mean';
            'logsumexp', which adds up their probabilities.
        area_thd: classes that are best on no more than this share (0..1) of the pixels that are not background get no
            pixel; class 0 must be the background. None drops none.
    """

    windows: Windows
    prior: Prior | None = None
    refiner: Refiner | None = None
    logit_scale: float = setting(40.0, check_above_zero)
    prob_thd: float = setting(0.0, check_range, 0, 1)
    background_index: int | None = setting(None, check_unless_none, check_whole)
    patch_fit: str = setting("crop", check_choice, PATCH_FITS)
    keep_probs: bool = setting(True, lambda _, value: check_switch("keep_probs (in configs keep_seg_logits)", value))
    alias_aggregation: str = setting("max", check_choice, tuple(labels.AGGREGATIONS))
    area_thd: float | None = setting(None, check_unless_none, check_range, 0, 1)

    @classmethod
    def of(
        cls,
        test_cfg: Mapping[str, Any] | None,
        prior: Mapping[str, Any] | None,
        refiner: Mapping[str, Any] | None,
        **others: Any,
    ) -> Settings:
        """Build from the blocks of a config; None: whole images, no prior, no refiner."""
        return cls(
            windows=built("test_cfg", {} if test_cfg is None else test_cfg, Windows),
            prior=None if prior is None else built("prior", prior, Prior),
            refiner=build_refiner(refiner),
            **others,
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prob_thd > 0 and self.background_index is None:
            raise ValueError(
                f"prob_thd={self.prob_thd} needs a class for the pixels below it: give background_index, or prob_thd=0"
            )
        labels.check_area_thd(self.area_thd, self.background_index)

    def check_vocabulary(self, vocabulary: Vocabulary, name: object) -> None:
        """Refuse settings that a vocabulary contradicts.

        Raises:
            ValueError: no such background class, or a threshold on a benchmark that has no background, or another.
        """
        index = self.background_index
        if index is not None and index >= len(vocabulary.names):
            raise ValueError(f"background_index {index} is none of the {len(vocabulary.names)} classes (0-based)")
        there = vocabulary.background
        key, value, off = ("prob_thd", self.prob_thd, 0) if self.prob_thd else ("area_thd", self.area_thd, None)
        if not value or index is None or index == there:
            return
        turns = f"{key}={value} turns pixels into {shown(vocabulary.classes[index])} that are something else"
        if isinstance(name, (str, Path)) and str(name) in shipped_vocabularies():
            has = "no background class" if there is None else f"its background in class {there}"
            cure = f"{key}={off}" if there is None else f"background_index={there}"
            raise ValueError(f"vocabulary {str(name)!r} has {has}, so {turns} (a known way to mIoU 0): set {cure}")
        if there is not None:
            LOG.warning(
                f"Class {there} is called 'background', but {turns}: set background_index={there}, or call that class "
                "something else."
            )
