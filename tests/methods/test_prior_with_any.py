"""The object-presence prior is a step of its own: it goes with every registered method that gives embeddings."""

import pytest
import torch
import torch.nn.functional as F

from rfclip.methods import METHODS
from rfclip.methods.base import encode_image
from tests.support.vision import dino_state

PRIOR = {"image_weight": 0.25, "mean_vector_weight": 0.0, "cluster_threshold": 0.1}


@pytest.fixture
def block(request, tmp_path):
    """The block of a method, with what it cannot be built without."""
    name, more = request.param, {}
    if name == "Refocused":
        more = {"head": {"type": "SCCLIP"}}
    if "vfm" in getattr(METHODS.get(name), "__dataclass_fields__", ()):
        torch.save(dino_state(width=128, heads=2), tmp_path / "dino.pth")
        more = {"vfm": {"type": "DINO", "pretrained": str(tmp_path / "dino.pth"), "heads": 2}}
    return {"type": name, **more}


@pytest.mark.parametrize("scope", ["image", "window"])
@pytest.mark.parametrize("block", [name for name in METHODS.names() if name != "LPOSS"], indirect=True)
def test_the_prior_with_every_method(build, make_images, block, scope):
    """A quarter of the image's own cosine in all of its cosines, and with names that move, finite ones."""
    images = make_images(2, 64, 100)
    windows = {"mode": "slide", "crop_size": 64, "stride": 36} if scope == "image" else {"mode": "whole"}
    plain = build(method=block, test_cfg=windows)
    image = F.normalize(encode_image(plain.method, plain.clip.visual, images), dim=-1)
    expected = 0.75 * plain(images, mode="tensor") + 0.25 * (image @ plain.text_embeddings.T)[..., None, None]
    found = build(method=block, test_cfg=windows, prior={**PRIOR, "scope": scope})(images, mode="tensor")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    moved = build(method=block, test_cfg=windows, prior={**PRIOR, "mean_vector_weight": 0.2})(images, mode="tensor")
    assert moved.isfinite().all() and not torch.allclose(moved, expected, atol=1e-4)


@pytest.mark.parametrize("block", ["LPOSS"], indirect=True)
def test_scores_have_no_prior(build, block):
    for method in (block, {"type": "Refocused", "head": block}):
        with pytest.raises(ValueError, match="prior"):
            build(method=method, prior=PRIOR)
