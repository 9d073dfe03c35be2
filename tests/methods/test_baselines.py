"""The baselines against their rendering as loops."""

import pytest
import torch
from mmseg.registry import MODELS

from rfclip import methods
from rfclip.methods import NACLIP, DenseOutput
from rfclip.methods.base import encode_image
from rfclip.methods.baselines import neighbourhood
from tests.support import loops
from tests.support.kept import Kept

BASELINES = ["VanillaCLIP", "MaskCLIP", "SCLIP", "ClearCLIP", "NACLIP", "MeanKK"]
SIZES = [(80, 112), (48, 100), (112, 64)]


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("size", SIZES)
def test_equals_loops(planted, make_images, name, size):
    images = make_images(2, *size, seed=1)
    output = MODELS.build({"type": name})(planted.vit.double(), images.double())
    for i, image in enumerate(images):
        patches, embedding = loops.baseline(planted.vit, image.double().numpy(), name)
        torch.testing.assert_close(output.patches[i], torch.tensor(patches), rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(output.image[i], torch.tensor(embedding), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["MaskCLIP", "ClearCLIP", "NACLIP", "MeanKK", "RefocusCLIP", "RefocusCLIPRelease"])
def test_layer_scale_belongs_to_the_residual_stream(planted, make_vit, make_images, name):
    """A last block that is scaled to nothing in its stream still gives out_proj(A V)."""
    settings = {"distraction_dims": planted.dims} if name.startswith("Refocus") else {}
    method, images = getattr(methods, name)(**settings), make_images(2, 80, 112)
    scaled = make_vit(ls_init_value=1.0)
    scaled.load_state_dict({**scaled.state_dict(), **planted.vit.state_dict()})
    plain = method(planted.vit, images)
    torch.testing.assert_close(method(scaled, images).patches, plain.patches)
    scaled.transformer.resblocks[-1].ls_1.gamma.zero_()
    unscaled = method(scaled, images)
    if name != "RefocusCLIPRelease":  # whose enhancement reads the last block's stream
        torch.testing.assert_close(unscaled.patches, plain.patches)
    assert unscaled.patches.abs().max() > 0.1
    assert not torch.allclose(unscaled.image, plain.image)


@pytest.mark.parametrize("name", BASELINES)
def test_output_and_recording(planted, make_images, name):
    images = make_images(2, 80, 112)
    method, record = getattr(methods, name)(), Kept()
    silent, shown = method(planted.vit, images), method(planted.vit, images, record=record)
    assert isinstance(silent, DenseOutput)
    assert (silent.patches.shape, silent.image.shape, silent.grid) == ((2, 35, 32), (2, 32), (5, 7))
    assert torch.equal(silent.patches, shown.patches)
    assert torch.equal(silent.image, shown.image)
    assert torch.equal(record.seen["dense", None], silent.patches)
    assert {layer for what, layer in record.seen if what == "residual"} == {0, 1, 2, 3, 4}
    assert record.seen["attn_qk", 3].shape == record.seen["attn_kk", 0].shape == (2, 4, 36, 36)
    torch.testing.assert_close(record.seen["attn_qk", 1].sum(-1), torch.ones(2, 4, 36))


@pytest.mark.parametrize("name", BASELINES)
def test_image_embedding_is_open_clips(planted, make_images, name):
    images = make_images(2, 80, 112)
    torch.testing.assert_close(
        getattr(methods, name)()(planted.vit, images).image, planted.vit(images), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", [*BASELINES, "RefocusCLIP", "RefocusCLIPRelease"])
def test_short_way_to_the_image_embedding(planted, make_images, name):
    images = make_images(2, 48, 100)
    settings = {"distraction_dims": planted.dims} if name.startswith("Refocus") else {}
    method = getattr(methods, name)(**settings)
    torch.testing.assert_close(
        encode_image(method, planted.vit, images), method(planted.vit, images).image, rtol=1e-5, atol=1e-6
    )


def test_image_embedding_of_a_method_without_a_short_way(tiny_vit, make_images):
    images = make_images(2, 48, 100)
    full = methods.VanillaCLIP()(tiny_vit, images)
    assert torch.equal(encode_image(lambda vit, images: full, tiny_vit, images), full.image)


@pytest.mark.parametrize("name", BASELINES)
def test_autocast(planted, make_images, name):
    images = make_images(1, 80, 112)
    method = getattr(methods, name)()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = method(planted.vit, images).patches.float()
    cosines = torch.cosine_similarity(rounded, method(planted.vit, images).patches, dim=-1).flatten()
    assert cosines.sort().values[2] > 0.97  # of 35; a planted unit may tip for a patch at its threshold


def test_recorded_attention_gives_the_dense_output(planted, make_images):
    images = make_images(1, 80, 112).double()
    for name in ("ClearCLIP", "NACLIP", "MeanKK"):
        record = Kept()
        output = getattr(methods, name)()(planted.vit.double(), images, record=record)
        tower = loops.Tower(planted.vit)
        attention = record.seen["attn_dense", None][0].numpy()
        v = tower.qkv(3, record.seen["residual", 3][0].numpy())[2]
        patches = tower.out_proj(3, loops.times(attention, v[:, -attention.shape[-1] :]))[-35:]
        torch.testing.assert_close(output.patches[0], torch.tensor(tower.project(patches)), rtol=1e-6, atol=1e-9)


def test_neighbourhood_of_naclip():
    omega = neighbourhood((2, 3), 5.0)
    assert torch.equal(omega.diagonal(), torch.ones(6).double())
    torch.testing.assert_close(omega, omega.T)
    torch.testing.assert_close(omega[0, 5], torch.tensor(-5 / 50).double().exp())  # (1, 2) apart: 1 + 4


def test_a_narrow_neighbourhood_raises_only_the_patch_itself(planted, make_images):
    images = make_images(1, 80, 112)
    record = Kept()
    NACLIP(sigma=0.01)(planted.vit, images, record=record)
    scores = record.seen["attn_kk", 3].log()
    scores[..., 1:, 1:] += torch.eye(35)
    torch.testing.assert_close(record.seen["attn_dense", None], scores.softmax(-1))


@pytest.mark.parametrize("sigma", [0, -1, float("inf"), "5"])
def test_bad_sigma(sigma):
    with pytest.raises(ValueError, match="sigma must be a number above 0, got"):
        NACLIP(sigma=sigma)
