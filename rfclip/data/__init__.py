"""Data files: vocabularies, templates, distraction dimensions, published numbers, the tiny CLIP."""

from pathlib import Path

DATA = Path(__file__).parent
PACKAGE = DATA.parent
