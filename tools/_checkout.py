"""What every tool imports first: this checkout's rfclip, installed or not, and before anything of mmseg."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rfclip  # noqa: F401  (from that path; it lets mmseg import without a compiled mmcv)
