"""Lets the tools run from a checkout that was not installed: importing this puts the checkout on the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
