"""Building: layers brought to the depth of a tower."""

from __future__ import annotations

import pytest

from rfclip.methods.build import fit_layers, scale_layer
from rfclip.methods.sc_clip import SCCLIP
from rfclip.methods.sfp import SFP


def test_the_published_depth_keeps_its_layers():
    assert [scale_layer(layer, 12, 12) for layer in range(11)] == list(range(11))


@pytest.mark.parametrize("depth", [3, 4, 5, 12, 24, 32])
def test_layers_stay_before_the_last_block_and_in_order(depth):
    layers = [scale_layer(layer, depth, 12) for layer in range(11)]
    assert layers == sorted(layers) and layers[0] == 0 and layers[-1] == depth - 2
    assert layers == [int(layer * (depth - 2) / 10 + 0.5) for layer in range(11)]


def test_layers_that_are_not_given_are_scaled_each_once(tiny_vit):
    fitted = fit_layers(SCCLIP(), {"type": "SCCLIP"}, tiny_vit)  # of 4 blocks
    assert (fitted.pre_layer, fitted.post_layer, fitted.fusion_layers) == (2, 1, (1, 2))
    v1 = fit_layers(SFP(version="v1"), {"type": "SFP", "version": "v1", "fusion_layers": None}, tiny_vit)
    assert v1.fusion_layers == (1, 2)


def test_a_layer_that_is_given_is_taken_as_it_is(tiny_vit):
    block = {"type": "SCCLIP", "pre_layer": 1}
    assert fit_layers(SCCLIP(pre_layer=1), block, tiny_vit).pre_layer == 1
    block = {"type": "SCCLIP", "pre_layer": 8}
    with pytest.raises(ValueError, match=r"layers \[8\] are no outputs of blocks before the last: this tower has 4"):
        fit_layers(SCCLIP(), block, tiny_vit)
