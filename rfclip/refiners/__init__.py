"""Refiners of logits. `REFINERS` knows them by name; mmsegmentation's MODELS shares them."""

from rfclip.refiners.base import REFINERS, Joint, Refiner, build_refiner
from rfclip.refiners.pamr import PAMR
from rfclip.refiners.text_laplacian import TextLaplacian

__all__ = ["PAMR", "REFINERS", "Joint", "Refiner", "TextLaplacian", "build_refiner"]
