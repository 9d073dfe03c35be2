"""Vision models by name and by file: read, shared, frozen, refused."""

import copy
import gc
import logging
import weakref

import pytest
import torch
from safetensors.torch import save_file

from rfclip.clip import downloads
from rfclip.clip.weights import WeightsError, WeightsNotFoundError
from rfclip.vision import files
from rfclip.vision.model import VISION_MODELS, check_vfm, load_vision
from tests.support.vision import dino_state, pictures


def settings(pretrained, heads=3):
    return check_vfm("vfm", {"type": "DINO", "pretrained": pretrained, "heads": heads})


@pytest.fixture
def file(tmp_path):
    torch.save(dino_state(), tmp_path / "dino.pth")
    return tmp_path / "dino.pth"


def wrapped(state, prefix):
    return {prefix + name: value for name, value in state.items()}


HEAD = {"head.mlp.0.weight": torch.zeros(4, 96), "head.last_layer.weight_g": torch.zeros(4, 1)}


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": dino_state()},
        {"teacher": wrapped(dino_state(), "backbone.") | HEAD, "epoch": 3},
        {"student": wrapped(wrapped(dino_state(), "backbone.") | HEAD, "module.")},
        wrapped(dino_state(), "module.backbone."),
        wrapped(dino_state(), "backbone.") | HEAD,
    ],
)
def test_wrapped_weights_are_the_same_weights(content, file, tmp_path):
    torch.save(content, tmp_path / "wrapped.pth")
    plain, other = load_vision(settings(file)), load_vision(settings(tmp_path / "wrapped.pth"))
    assert plain is not other and plain.weights_hash == other.weights_hash


def test_safetensors_and_half_precision(tmp_path):
    save_file({name: value.half() for name, value in dino_state().items()}, tmp_path / "dino.safetensors")
    model = load_vision(settings(tmp_path / "dino.safetensors"))
    assert {weight.dtype for weight in model.tower.parameters()} == {torch.float32}
    assert torch.equal(model.tower.norm.weight, dino_state()["norm.weight"].half().float())


def test_two_networks_in_a_file_are_one_sentence(tmp_path):
    torch.save({"teacher": dino_state(), "student": dino_state()}, tmp_path / "both.pth")
    with pytest.raises(WeightsError, match=r"both\.pth holds several models \(teacher, student\): save the state_dict"):
        load_vision(settings(tmp_path / "both.pth"))


def test_one_model_is_shared_and_let_go(file, caplog):
    with caplog.at_level(logging.INFO, "rfclip"):
        one, other = load_vision(settings(file)), load_vision(settings(str(file)))
    assert one is other and "patches of 8, width 96, 3 heads" in caplog.text
    assert load_vision(settings(file, heads=2)) is not one
    torch.save(dino_state(seed=5), file)
    assert load_vision(settings(file)) is not one  # what stands in the file now
    gone = weakref.ref(one)
    del one, other
    gc.collect()
    assert gone() is None


def test_a_copy_is_the_model_itself(file):
    model = load_vision(settings(file))
    assert copy.copy(model) is model and copy.deepcopy({"a": [model]})["a"][0] is model


def test_a_model_is_on_each_device_that_asks(file):
    model = load_vision(settings(file))
    there = model.on(torch.device("meta"))
    assert model.on(torch.device("meta")) is there and there is not model.tower
    assert {weight.device.type for weight in there.parameters()} == {"meta"}
    assert {weight.device.type for weight in model.tower.parameters()} == {"cpu"}
    assert model.last_keys_values(torch.zeros(1, 3, 16, 24, device="meta"))[0].shape == (1, 3, 6, 32)
    assert model.final_patches(pictures(1, 16, 24))[0].isfinite().all()


@pytest.mark.parametrize(
    ("pretrained", "says"),
    [
        ("dino_vitb9", r"is no file here, nor a name \(did you mean 'dino_vitb8'\?\): there are dino_vits8, .*tiny16"),
        ("nowhere/dino.pth", "is no file here, nor a name"),
        ("x" * 5000, "is no file here, nor a name"),
    ],
)
def test_no_such_weights_are_one_sentence(pretrained, says):
    with pytest.raises(WeightsNotFoundError, match=says):
        load_vision(settings(pretrained))


def test_a_folder_and_auto_are_one_sentence(tmp_path):
    with pytest.raises(WeightsError, match="is a folder: give the path of a file in it"):
        load_vision(settings(tmp_path))
    with pytest.raises(ValueError, match=r"vfm\.pretrained='auto' hangs on the CLIP beside it"):
        load_vision(settings("auto"))


def test_a_file_that_is_none_is_one_sentence(tmp_path):
    (tmp_path / "dino.pth").write_bytes(b"PK not at all")
    with pytest.raises(WeightsError, match=r"weights file .*dino\.pth is damaged"):
        load_vision(settings(tmp_path / "dino.pth"))


@pytest.mark.parametrize("name", list(files.PUBLISHED))
def test_offline_a_name_is_one_sentence(name, monkeypatch):
    def refuse():
        raise OSError("no network")

    monkeypatch.setattr(downloads, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(downloads, "_require_network", refuse)
    with pytest.raises(
        WeightsNotFoundError, match=rf"'{name}' of the vision model cannot be downloaded .*OSError.*local"
    ) as e:
        load_vision(settings(name))
    assert "vfm.pretrained" in str(e.value) and "'tiny8'" in str(e.value)


def test_a_name_is_fetched_from_timms_repository(file, monkeypatch):
    asked = []

    def cached(repository, name):
        asked.append((repository, name))
        return str(file)

    monkeypatch.setattr(downloads, "try_to_load_from_cache", cached)
    assert load_vision(settings("dino_vitb8")) is load_vision(settings(file))
    assert asked == [("timm/vit_base_patch8_224.dino", "model.safetensors")]


@pytest.mark.parametrize(
    ("published", "tiny", "name"),
    [("dino_vitb8", True, "tiny8"), ("dino_vitb16", True, "tiny16"), ("dino_vitb8", False, "dino_vitb8")],
)
def test_auto_hangs_on_the_clip(published, tiny, name):
    assert files.resolved_name("auto", published, tiny) == name
    assert files.resolved_name("mine.pth", published, tiny) == "mine.pth"


def test_files_that_are_here(file, tmp_path):
    assert files.local_vision(str(file)) == file
    assert files.local_vision("dino_vitb8") is None and files.local_vision(str(tmp_path / "none.pth")) is None


def test_what_there_is():
    assert VISION_MODELS.names() == ("DINO",)
