"""What a recorder does to the methods: nothing. And what it sees of the redistribution, on arrays."""

import dataclasses

import pytest
import torch
from mmseg.registry import MODELS

from rfclip.clip.towers import num_layers
from rfclip.explain.recorder import Recorder

DIMS = (5, 23, 42)  # of the fixture `planted`
METHODS = {
    "RefocusCLIP": {"distraction_dims": DIMS},
    "RefocusCLIPRelease": {"distraction_dims": DIMS},
    **{name: {} for name in ("VanillaCLIP", "MaskCLIP", "SCLIP", "ClearCLIP", "NACLIP", "MeanKK")},
}


class FailingRecorder(Recorder):
    """Raises when it is shown its n-th value."""

    def __init__(self, failing_call: int) -> None:
        super().__init__()
        self.left = failing_call

    def record(self, name, layer, value):
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("the disk is full")
        super().record(name, layer, value)


def state_of(vit):
    """Everything by which a pass could leave something behind on a model."""
    modules = {
        name: (sorted(vars(module)), len(module._forward_hooks), len(module._forward_pre_hooks), module.training)
        for name, module in vit.named_modules()
    }
    return modules, {name: value.clone() for name, value in vit.state_dict().items()}


def assert_same_state(vit, before):
    modules, weights = state_of(vit)
    assert modules == before[0]
    assert weights.keys() == before[1].keys()
    assert all(torch.equal(weights[name], value) for name, value in before[1].items())


@pytest.mark.parametrize("name", METHODS)
def test_recording_changes_no_result_and_leaves_nothing_behind(name, planted, make_images):
    method = MODELS.build({"type": name, **METHODS[name]})
    images = make_images(2, 80, 112)
    plain = method(planted.vit, images)
    before, recorder = state_of(planted.vit), Recorder()
    recorded = method(planted.vit, images, record=recorder)
    assert recorded.grid == plain.grid
    torch.testing.assert_close(recorded.patches, plain.patches, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(recorded.image, plain.image, rtol=1e-4, atol=1e-5)
    assert torch.equal(recorder["dense"], recorded.patches)
    assert recorder.layers_of("residual") == list(range(num_layers(planted.vit) + 1))
    assert_same_state(planted.vit, before)


@pytest.mark.parametrize("failing_call", [1, 4, 9])
@pytest.mark.parametrize("name", ["RefocusCLIP", "RefocusCLIPRelease", "MeanKK"])
def test_nothing_is_left_behind_after_an_exception(name, failing_call, planted, make_images):
    method = MODELS.build({"type": name, **METHODS[name]})
    images = make_images(2, 80, 112)
    plain = method(planted.vit, images)
    before, settings = state_of(planted.vit), dataclasses.asdict(method)
    with pytest.raises(RuntimeError, match="the disk is full"):
        method(planted.vit, images, record=FailingRecorder(failing_call))
    assert_same_state(planted.vit, before)
    assert dataclasses.asdict(method) == settings
    assert torch.equal(method(planted.vit, images).patches, plain.patches)


@pytest.fixture
def seen(planted, make_images):
    """RefocusCLIP on planted distractors, recorded whole."""
    recorder = Recorder()
    method = MODELS.build({"type": "RefocusCLIP", "distraction_dims": DIMS, "beta": 0.7})
    method(planted.vit, make_images(2, 80, 112), record=recorder)
    return recorder


def test_refocusing_leaves_a_distractor_one_minus_beta_of_its_attention(seen):
    for layer in seen.layers_of("attn_refocused"):
        before, after = (seen[name, layer][:, :, 1:, 1:] for name in ("attn_qk", "attn_refocused"))
        distractors = seen["distractors", layer][:, None, None].expand_as(before)
        assert distractors.any()
        torch.testing.assert_close(after[distractors], 0.3 * before[distractors])
        torch.testing.assert_close(after.sum(-1), before.sum(-1))
        assert (after[~distractors] >= before[~distractors] - 1e-6).all()


def test_so_it_is_in_the_last_block(seen, planted):
    last = num_layers(planted.vit) - 1
    before, after = seen["attn_dense"], seen["attn_dense_refocused"]
    distractors = seen["distractors", last][:, None, None].expand_as(before)
    assert distractors.any()
    torch.testing.assert_close(after[distractors], 0.3 * before[distractors])


def test_one_image_one_layer_and_the_mean_head(planted, make_images, seen):
    recorder = Recorder(["attn_qk", "dense"], layers=[1], heads="mean", image=1)
    method = MODELS.build({"type": "RefocusCLIP", "distraction_dims": DIMS, "beta": 0.7})
    method(planted.vit, make_images(2, 80, 112), record=recorder)
    assert list(recorder) == [("attn_qk", 1), ("dense", None)]
    torch.testing.assert_close(recorder["attn_qk", 1], seen["attn_qk", 1][1].mean(0))
    assert recorder["dense"].shape == seen["dense"].shape[1:]
