"""The object-presence prior is a step of its own: it goes with every method that is registered."""

import pytest
import torch
import torch.nn.functional as F

from rfclip.methods import METHODS
from rfclip.methods.base import encode_image

MORE = {"Refocused": {"head": {"type": "SCCLIP"}}}  # what a method cannot be built without
PRIOR = {"image_weight": 0.25, "mean_vector_weight": 0.0, "cluster_threshold": 0.1}


@pytest.mark.parametrize("scope", ["image", "window"])
@pytest.mark.parametrize("name", METHODS.names())
def test_the_prior_with_every_method(build, make_images, name, scope):
    """A quarter of the image's own cosine in all of its cosines, and with names that move, finite ones."""
    images, block = make_images(2, 64, 100), {"type": name, **MORE.get(name, {})}
    windows = {"mode": "slide", "crop_size": 64, "stride": 36} if scope == "image" else {"mode": "whole"}
    plain = build(method=block, test_cfg=windows)
    image = F.normalize(encode_image(plain.method, plain.clip.visual, images), dim=-1)
    expected = 0.75 * plain(images, mode="tensor") + 0.25 * (image @ plain.text_embeddings.T)[..., None, None]
    found = build(method=block, test_cfg=windows, prior={**PRIOR, "scope": scope})(images, mode="tensor")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    moved = build(method=block, test_cfg=windows, prior={**PRIOR, "mean_vector_weight": 0.2})(images, mode="tensor")
    assert moved.isfinite().all() and not torch.allclose(moved, expected, atol=1e-4)
