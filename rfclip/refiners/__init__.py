"""Refiners of logits. `REFINERS` knows them by name; mmsegmentation's MODELS shares them."""

from rfclip.refiners.base import REFINERS, Refiner, build_refiner
from rfclip.refiners.pamr import PAMR

__all__ = ["PAMR", "REFINERS", "Refiner", "build_refiner"]
