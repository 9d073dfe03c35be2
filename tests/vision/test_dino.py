"""DINO's tower in pieces: against loops, against timm, and what is refused."""

import numpy as np
import pytest
import torch

from rfclip.clip.weights import WeightsError
from rfclip.vision import dino
from tests.support.vision import dino_state, pictures
from tests.support.vision_loops import Dino


@pytest.fixture
def vit():
    return dino.build(dino_state(side=6), 3, "a test")


@pytest.mark.parametrize("size", [(48, 48), (40, 64), (57, 39)])  # the trained grid, another, sides that fill no patch
def test_pieces_equal_loops(vit, size):
    images = pictures(2, *size).double()
    vit = vit.double()
    tokens, grid = dino.final_patches(vit, images)
    k, v, same = dino.last_keys_values(vit, images)
    for i in range(2):
        loops = Dino(dino_state(side=6), 3)
        wanted, wanted_grid = loops.final_patches(images[i].numpy())
        assert grid == same == wanted_grid == (size[0] // 8, size[1] // 8)
        np.testing.assert_allclose(tokens[i], wanted, rtol=1e-9, atol=1e-9)
        keys, values, _ = loops.last_keys_values(images[i].numpy())
        np.testing.assert_allclose(k[i], keys, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(v[i], values, rtol=1e-9, atol=1e-9)


def test_pieces_equal_timms_own_forward(vit):
    images = pictures(2, 48, 48)
    tokens, _ = dino.final_patches(vit, images)
    torch.testing.assert_close(tokens, vit.forward_features(images)[:, 1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_stream_stays_in_fp32(vit, dtype):
    images = pictures(1, 48, 64)
    with torch.autocast("cpu", dtype):
        tokens, _ = dino.final_patches(vit, images)
    assert tokens.dtype == torch.float32
    exact, _ = dino.final_patches(vit, images)
    assert torch.cosine_similarity(tokens, exact, dim=-1).min() > 0.995


@pytest.mark.parametrize("sizes", [{"hidden": 96}, {"hidden": 101}, {"depth": 1}, {"patch": 16, "side": 3}])
def test_sizes_come_from_the_shapes(sizes):
    vit = dino.build(dino_state(**sizes), 3, "a test")
    state = dino_state(**sizes)
    assert {name: tuple(value.shape) for name, value in vit.state_dict().items()} == {
        name: tuple(value.shape) for name, value in state.items()
    }
    assert all(torch.equal(value, state[name]) for name, value in vit.state_dict().items())
    assert not vit.training and not any(weight.requires_grad for weight in vit.parameters())
    assert dino.patch_size(vit) == sizes.get("patch", 8) and dino.num_heads(vit) == 3 and dino.width(vit) == 96
    assert {module.eps for module in vit.modules() if isinstance(module, torch.nn.LayerNorm)} == {1e-6}


def test_building_draws_nothing_random():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    dino.build(dino_state(), 3, "a test")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("width", "heads"), [(384, 6), (768, 12), (64, 1)])
def test_heads_are_64_wide_unless_given(width, heads):
    assert dino.heads_of(width, None, "a file") == heads
    assert dino.heads_of(width, 2, "a file") == 2


def test_wrong_heads_are_one_sentence():
    with pytest.raises(WeightsError, match=r"vfm\.heads is missing: a file is 96 channels wide, .* multiple of the 64"):
        dino.heads_of(96, None, "a file")
    with pytest.raises(WeightsError, match=r"vfm\.heads=5 does not divide the 96 channels of a file"):
        dino.heads_of(96, 5, "a file")


def changed(**entries):
    state = {**dino_state(), **entries}
    return {name: value for name, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (changed(pos_embed=None), "not those of a DINO: pos_embed is missing; give the backbone's state dict"),
        ({"visual.proj": torch.zeros(3, 3)}, r"seem to be a CLIP's \(clip\.pretrained takes that\)"),
        ({"embeddings.cls_token": torch.zeros(3)}, "seem to be of a later DINO or in transformers' layout"),
        (changed(pos_embed=torch.zeros(1, 18, 96)), r"its positional table \(1, 18, 96\) must be square"),
        (changed(pos_embed=torch.zeros(18, 96)), r"its positional table \(18, 96\) must be square"),
        (changed(**{"patch_embed.proj.weight": torch.zeros(96, 3, 8, 16)}), r"its patches \(96, 3, 8, 16\)"),
        (changed(**{"blocks.1.ls1.gamma": torch.zeros(96)}), r"1 unexpected \(blocks\.1\.ls1\.gamma\)"),
        (changed(**{"blocks.1.attn.qkv.bias": None}), r"1 missing \(blocks\.1\.attn\.qkv\.bias\)"),
        (changed(**{"head.weight": torch.zeros(9, 96)}), r"1 unexpected \(head\.weight\)"),
        (changed(**{"norm.bias": torch.zeros(95)}), r"1 other shape \(norm\.bias is \(95,\), expected \(96,\)\)"),
        (changed(**{"norm.bias": torch.full((96,), torch.nan)}), r"not finite \(norm\.bias\)"),
        (changed(**{"blocks.x.norm1.bias": torch.zeros(96)}), r"unexpected \(blocks\.x\.norm1\.bias\)"),
    ],
)
def test_another_models_weights_are_one_sentence(state, says):
    with pytest.raises(WeightsError, match=says):
        dino.build(state, 3, "a file")
