"""The recorder alone; methods that are recorded: test_recorded_methods.py."""

import pytest
import torch

from rfclip.explain.recorder import Recorder, RecordingError

ATTENTION = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))


def test_keeps_all_by_default():
    recorder = Recorder()
    recorder.record("attn_qk", 1, ATTENTION)
    recorder.record("dense", None, ATTENTION[:, 0])
    assert torch.equal(recorder["attn_qk", 1], ATTENTION)
    assert torch.equal(recorder["dense"], ATTENTION[:, 0])
    assert len(recorder) == 2 and list(recorder) == [("attn_qk", 1), ("dense", None)]
    assert ("attn_qk", 1) in recorder and "dense" in recorder and "phi" not in recorder


def test_keeps_a_copy():
    recorder, value = Recorder(), ATTENTION.clone().requires_grad_(True)
    recorder.record("attn_qk", 0, value)
    with torch.no_grad():
        value += 1
    assert torch.equal(recorder["attn_qk", 0], ATTENTION)
    assert not recorder["attn_qk", 0].requires_grad


def test_a_kept_row_does_not_keep_its_matrix_alive():
    recorder = Recorder(image=1, reduce={"attn_qk": lambda value: value[0, 0]})
    recorder.record("attn_qk", 0, ATTENTION)
    assert recorder["attn_qk", 0].untyped_storage().nbytes() == 5 * 4 == recorder.nbytes


def test_choice_of_names_and_layers():
    recorder = Recorder(names=["phi", "dense"], layers=[0, 2])
    for layer in range(4):
        recorder.record("phi", layer, torch.full((1, 2), float(layer)))
        recorder.record("residual", layer, torch.zeros(1, 2))
    recorder.record("dense", None, torch.zeros(1))
    assert recorder.names() == ["phi", "dense"]
    assert recorder.layers_of("phi") == [0, 2]
    assert recorder.stack("phi")[:, 0, 0].tolist() == [0.0, 2.0]
    assert recorder.wants("phi", 2) and not recorder.wants("phi", 1) and not recorder.wants("residual", 0)


def test_choice_of_heads_and_image():
    mean, some = Recorder(heads="mean", image=1), Recorder(heads=[2, 0])
    for recorder in (mean, some):
        recorder.record("attn_kk", 0, ATTENTION)
        recorder.record("phi", 0, ATTENTION[:, 0])
    torch.testing.assert_close(mean["attn_kk", 0], ATTENTION[1].mean(0))
    assert torch.equal(some["attn_kk", 0], ATTENTION[:, [2, 0]])
    assert torch.equal(mean["phi", 0], ATTENTION[1, 0])


def test_dtype_changes_floats_only():
    recorder = Recorder(dtype=torch.float16)
    recorder.record("attn_kk", 0, ATTENTION)
    recorder.record("defocus", 0, ATTENTION > 0.5)
    assert recorder["attn_kk", 0].dtype == torch.float16
    assert recorder["defocus", 0].dtype == torch.bool


def test_memory_is_bounded():
    recorder = Recorder(max_bytes=ATTENTION.nelement() * 4 + 10)
    recorder.record("attn_kk", 0, ATTENTION)
    with pytest.raises(RecordingError, match=r"'attn_kk' of layer 1 \(2, 3, 5, 5\).*max_bytes"):
        recorder.record("attn_kk", 1, ATTENTION)
    assert recorder.nbytes == ATTENTION.nelement() * 4


def test_a_second_pass_is_refused():
    recorder = Recorder()
    recorder.record("phi", 0, ATTENTION)
    with pytest.raises(RecordingError, match="'phi' of layer 0 was recorded before"):
        recorder.record("phi", 0, ATTENTION)


@pytest.mark.parametrize("settings", [{"heads": [3]}, {"image": 2}])
def test_what_does_not_exist(settings):
    with pytest.raises(RecordingError, match="do not exist in 'attn_qk' of layer 0"):
        Recorder(**settings).record("attn_qk", 0, ATTENTION)


@pytest.mark.parametrize("settings", [{"names": "phi"}, {"heads": "max"}, {"layers": [-1]}, {"image": -1}])
def test_wrong_settings(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Recorder(**settings)


def test_missing_values_say_what_is_there():
    recorder = Recorder()
    recorder.record("phi", 0, ATTENTION)
    with pytest.raises(KeyError, match="'phi' of layer 3 was not recorded; recorded: phi, layers of 'phi': \\[0\\]"):
        recorder["phi", 3]
    with pytest.raises(KeyError, match="'fiedler' was not recorded"):
        recorder.stack("fiedler")


def test_values_are_read_only():
    with pytest.raises(TypeError):
        Recorder().values["phi", 0] = ATTENTION
