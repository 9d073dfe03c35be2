"""The tiny vision models that ship with the package."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rfclip import OpenVocabSegmenter
from rfclip.io import sample_world
from rfclip.vision.files import TINY
from rfclip.vision.model import DINO, VisionModel, check_vfm, load_vision
from tests.support.vision import dino_state


@pytest.fixture(scope="module")
def scene():
    """A drawn picture of 128 x 160 and its regions, neither seen in training."""
    rng = np.random.default_rng(4321)
    regions = sample_world.layout((128, 160), 5, rng)
    return sample_world.render(regions, ["cat", "sky", "grass", "traffic light", "pizza"], rng)


def order(model: VisionModel, scene: sample_world.Scene) -> float:
    """How often two patches within a region are more alike than two of different regions; 0.5 is chance."""
    picture = torch.from_numpy(scene.image).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.mean, model.std))
    tokens, (h, w) = model.final_patches((picture - mean) / std)
    unit = F.normalize(tokens[0], dim=-1)
    planes = scene.regions.reshape(h, model.patch, w, model.patch).swapaxes(1, 2).reshape(h * w, -1)
    pure = torch.from_numpy((planes == planes[:, :1]).all(1))
    label = torch.from_numpy(planes[:, 0])[pure]
    cosines, same = unit[pure] @ unit[pure].T, label[:, None] == label
    own, others = cosines[same & ~torch.eye(len(label), dtype=torch.bool)], cosines[~same]
    return (own[::7, None] > others[None, ::7]).float().mean().item()


@pytest.mark.parametrize(("name", "patch", "heads", "width"), [("tiny8", 8, 3, 192), ("tiny16", 16, 2, 128)])
def test_the_tiny_models_tell_regions_apart(name, patch, heads, width, scene):
    model = load_vision(check_vfm("vfm", {"type": "DINO", "pretrained": name}))
    assert (model.patch, model.heads, model.width) == (patch, heads, width)
    untrained = DINO(dino_state(width=width, heads=heads, depth=2, patch=patch, hidden=width), heads, "a test")
    found = order(model, scene)
    assert found > 0.95, found
    assert found > order(untrained, scene)


def test_they_are_small():
    assert all(path.stat().st_size < 1.1e6 for path in TINY.values())


@pytest.mark.parametrize("kind", ["ProxyCLIP", "CASS"])
def test_auto_is_the_tiny_model_beside_the_tiny_clip(kind, scene):
    seg = OpenVocabSegmenter("tiny", device="cpu", method={"type": kind, "vfm": {"type": "DINO", "pretrained": "auto"}})
    assert seg.method.vfm == {"type": "DINO", "pretrained": "tiny8", "heads": None}
    labels = seg(scene.image, ["cat", "sky", "grass", "traffic light", "pizza"]).labels
    assert (labels == scene.regions).mean() > 0.7
