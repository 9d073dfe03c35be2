"""RefocusCLIP against its rendering as loops, and what its settings mean."""

import dataclasses

import pytest
import torch
from mmseg.registry import MODELS

from rfclip.clip.towers import blocks
from rfclip.methods import MeanKK, RefocusCLIP
from tests.support import loops
from tests.support.kept import Kept

SIZES = {"native": (80, 112), "square": (64, 64), "tall": (112, 50), "wide": (33, 130), "row": (16, 96)}


def assert_equal_loops(vit, dims, images, tau=5.0, beta=0.7, layers=(0, 1, 2, 3), **settings):
    """Compare in fp64 with the loops, image by image; in fp32 within the promised relative error."""
    method = RefocusCLIP(dims, tau=tau, beta=beta, **{"layers": list(layers), **settings})
    exact = method(vit.double(), images.double())
    for i, image in enumerate(images):
        patches, embedding, _ = loops.refocus_clip(vit, image.double().numpy(), dims, tau, beta, set(layers))
        torch.testing.assert_close(exact.patches[i], torch.tensor(patches), rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(exact.image[i], torch.tensor(embedding), rtol=1e-7, atol=1e-9)
    single = method(vit.float(), images)
    for value, truth in ((single.patches, exact.patches), (single.image, exact.image)):
        assert (value - truth).norm() <= 2e-4 * truth.norm()


@pytest.mark.parametrize("size", SIZES)
def test_equals_loops_on_every_grid(planted, make_images, size):
    assert_equal_loops(planted.vit, planted.dims, make_images(2, *SIZES[size], seed=3))


@pytest.mark.parametrize("layers", [[0], [1], [2], [3], [0, 2], [1, 3], [2, 3], []])
def test_equals_loops_for_lists_of_layers(planted, make_images, layers):
    assert_equal_loops(planted.vit, planted.dims, make_images(1, 80, 112, seed=1), layers=layers)


@pytest.mark.parametrize(("layers", "same"), [("all", (0, 1, 2, 3)), ("last", (3,))])
def test_equals_loops_for_named_layers(planted, make_images, layers, same):
    images = make_images(1, 80, 112, seed=2)
    named = RefocusCLIP(planted.dims, layers=layers)(planted.vit, images)
    listed = RefocusCLIP(planted.dims, layers=same)(planted.vit, images)
    assert torch.equal(named.patches, listed.patches)
    assert_equal_loops(planted.vit, planted.dims, images, layers=same)


@pytest.mark.parametrize(("tau", "beta"), [(5, 0), (5, 1), (3, 0.7), (2.0, 0.35), (0, 0.7), (1e6, 0.7)])
def test_equals_loops_for_any_tau_and_beta(planted, make_images, tau, beta):
    assert_equal_loops(planted.vit, planted.dims, make_images(1, 64, 96, seed=4), tau=tau, beta=beta)


def test_equals_loops_without_neighbours_or_cut(planted, make_images):
    assert_equal_loops(planted.vit, planted.dims, make_images(2, 16, 16), tau=1)  # grid (1, 1)


def test_every_step_equals_its_loop(planted, make_images):
    images = make_images(2, 80, 112, seed=5).double()
    record = Kept()
    RefocusCLIP(planted.dims)(planted.vit.double(), images, record=record)
    for i, image in enumerate(images):
        _, _, trace = loops.refocus_clip(planted.vit, image.numpy(), planted.dims, 5.0, 0.7, {0, 1, 2, 3})
        assert set(trace) == set(record.seen)
        for name, expected in trace.items():
            torch.testing.assert_close(
                record.seen[name][i],
                torch.as_tensor(expected),
                rtol=1e-6,
                atol=3e-4 if name[0] == "fiedler" else 1e-9,
            )


def test_the_fixture_puts_every_step_to_work(planted, make_images):
    record = Kept()
    RefocusCLIP(planted.dims)(planted.vit, make_images(2, 80, 112, seed=5), record=record)
    for layer in range(4):
        share = record.seen["distractors", layer].double().mean()
        assert 0.01 < share < 0.3
        assert record.seen["defocus", layer].any()


def test_recording_changes_nothing(planted, make_images):
    images = make_images(3, 80, 112, seed=6)
    for method in (
        RefocusCLIP(planted.dims),
        RefocusCLIP(planted.dims, tau=1e6),
        RefocusCLIP(planted.dims, layers=[1]),
    ):
        silent, shown = method(planted.vit, images), method(planted.vit, images, record=Kept())
        assert torch.equal(silent.patches, shown.patches)
        assert torch.equal(silent.image, shown.image)


def test_received_attention_of_a_distractor_falls_to_one_minus_beta(planted, make_images):
    record = Kept()
    RefocusCLIP(planted.dims, beta=0.6)(planted.vit, make_images(1, 80, 112), record=record)
    for layer in range(3):
        distractor = int(record.seen["distractors", layer][0].nonzero()[0]) + 1
        before, after = (record.seen[name, layer][0, :, 1:, distractor] for name in ("attn_qk", "attn_refocused"))
        torch.testing.assert_close(after, 0.4 * before)


def test_batch_is_its_images(planted, make_images):
    images = make_images(4, 80, 112, seed=7)
    together = RefocusCLIP(planted.dims)(planted.vit, images)
    for i in range(4):
        alone = RefocusCLIP(planted.dims)(planted.vit, images[i : i + 1])
        torch.testing.assert_close(together.patches[i], alone.patches[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.image[i], alone.image[0], rtol=1e-4, atol=1e-5)


def test_solvers_agree(planted, make_images):
    images = make_images(2, 80, 112)
    fast, exact = (RefocusCLIP(planted.dims, solver=s)(planted.vit, images).patches for s in ("auto", "eigh"))
    torch.testing.assert_close(fast, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{"layers": []}, {"distraction_dims": []}, {"tau": 1e9}])
def test_nothing_to_refocus_is_mean_kk(planted, make_images, settings):
    images = make_images(2, 80, 112)
    method = RefocusCLIP(**{"distraction_dims": planted.dims, **settings})
    plain, refocused = MeanKK()(planted.vit, images), method(planted.vit, images)
    torch.testing.assert_close(refocused.patches, plain.patches, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(refocused.image, plain.image, rtol=1e-5, atol=1e-6)


def test_refocusing_does_something(planted, make_images):
    images = make_images(1, 80, 112)
    outputs = [RefocusCLIP(planted.dims, layers=layers)(planted.vit, images).patches for layers in ([], "last", "all")]
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert (outputs[a] - outputs[b]).norm() > 1e-3 * outputs[a].norm()


def test_no_cut_is_made_where_no_token_is_a_distractor(planted, make_images, monkeypatch):
    monkeypatch.setattr("rfclip.methods.refocusing.cut_vector", None)  # calling it would be a TypeError
    images = make_images(1, 80, 112)
    nothing_found = RefocusCLIP(planted.dims, tau=1e9)(planted.vit, images)
    torch.testing.assert_close(nothing_found.patches, MeanKK()(planted.vit, images).patches)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(planted, make_images, dtype):
    images = make_images(2, 80, 112)
    exact = RefocusCLIP(planted.dims)(planted.vit, images)
    with torch.autocast("cpu", dtype):
        rounded = RefocusCLIP(planted.dims)(planted.vit, images)
    assert torch.cosine_similarity(rounded.patches.float(), exact.patches, dim=-1).min() > 0.97


def test_needs_no_gradient_and_leaves_the_model_alone(planted, make_images):
    planted.vit.requires_grad_(True)
    before = {name: value.clone() for name, value in planted.vit.state_dict().items()}
    images = make_images(1, 80, 112)
    given = images.clone()
    assert not RefocusCLIP(planted.dims)(planted.vit, images).patches.requires_grad
    assert torch.equal(images, given)
    assert all(torch.equal(value, before[name]) for name, value in planted.vit.state_dict().items())
    assert not any(module._forward_hooks for module in planted.vit.modules())


def test_registered_and_frozen():
    method = MODELS.build({"type": "RefocusCLIP", "distraction_dims": [1, 2], "layers": [0, 3]})
    assert (method.distraction_dims, method.tau, method.beta, method.layers) == ((1, 2), 5.0, 0.7, (0, 3))
    assert MODELS.build({"type": "RefocusCLIP"}) == RefocusCLIP("auto", 5.0, 0.7, "all")
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.tau = 3


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"tau": -1}, "tau must be a number, at least 0, got -1"),
        ({"beta": 1.5}, r"beta must be a number in 0..1, got 1.5"),
        ({"layers": "first"}, "layers.*'all', 'last'.*got 'first'"),
        ({"layers": [-1]}, "layers.*counted from 0, got -1"),
        ({"layers": [True]}, "layers.*got True"),
        ({"layers": [1.0]}, "layers.*got 1.0"),
        ({"layers": 2}, "layers.*got 2"),
        ({"layers": None}, "layers.*got None"),
        ({"distraction_dims": "all"}, "distraction_dims must be 'auto' or a list of integers, got 'all'"),
        ({"distraction_dims": [0.5]}, "distraction_dims must be integers.*got 0.5"),
        ({"distraction_dims": [-3]}, "distraction_dims.*got -3"),
        ({"solver": "fast"}, "solver must be one of .*got 'fast'"),
    ],
)
def test_bad_settings(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        RefocusCLIP(**{"distraction_dims": [1], **settings})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"distraction_dims": "auto"}, "'auto'.*resolve_distraction_dims"),
        ({"distraction_dims": [3, 64]}, r"\[64\] do not exist in embeddings of width 64 \(0..63\)"),
        ({"layers": [0, 4]}, r"layers \[4\] do not exist: this tower has the blocks 0..3"),
    ],
)
def test_settings_that_do_not_fit_the_tower(tiny_vit, make_images, settings, sentence):
    assert len(blocks(tiny_vit)) == 4
    with pytest.raises(ValueError, match=sentence):
        RefocusCLIP(**{"distraction_dims": [1], **settings})(tiny_vit, make_images(1, 80, 112))
