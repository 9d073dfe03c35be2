"""Full-size random towers (ViT-B/16 beside DINO B/8) on a picture of 336 x 448, within 4 GB."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import resource, sys
import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from rfclip.methods import METHODS
from tests.support.vision import pictures, sight

vit = _build_vision_tower(512, CLIPVisionCfg(image_size=224, patch_size=16, width=768, layers=12)).eval()
seen = sight(heads=12, width=768, depth=12, patch=8, side=28)
method = METHODS.build({"type": sys.argv[1], "vfm": {"type": "DINO", "pretrained": "of this script"}}).with_sight(seen)
out = method(vit, pictures(1, 336, 448))
assert out.patches.isfinite().all()
print(*out.grid, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)  # GiB, on Linux
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
@pytest.mark.parametrize(("kind", "grid"), [("ProxyCLIP", ("42", "56")), ("CASS", ("21", "28"))])
def test_full_size_towers_need_less_than_four_gigabytes(kind, grid):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, kind]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *found, peak = done.stdout.split()[-3:]
    assert tuple(found) == grid
    assert float(peak) < 4, peak
