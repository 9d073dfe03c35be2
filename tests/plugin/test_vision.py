"""A segmentor whose method has a vision model: shared, frozen, nowhere in a state_dict, and the same in every batch."""

import copy

import pytest
import torch
from mmengine.model import BaseModule
from torch import nn

import rfclip
from rfclip import OpenVocabSegmenter
from rfclip.clip.weights import WeightsError
from tests.support.vision import dino_state, pictures


@pytest.fixture
def vfm(tmp_path):
    torch.save(dino_state(width=128, heads=2), tmp_path / "dino.pth")  # the heads of conftest's CLIP
    return {"type": "DINO", "pretrained": str(tmp_path / "dino.pth")}


@pytest.fixture(params=["ProxyCLIP", "CASS"])
def model(request, build, vfm):
    return build(method={"type": request.param, "vfm": vfm}, test_cfg={"mode": "slide", "crop_size": 64, "stride": 32})


def test_weights_are_nobodys(model):
    tower = model.method.sight.model.tower
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    around = nn.ModuleDict({"inner": model, "own": nn.Linear(2, 2)})
    assert set(around.state_dict()) == {"own.weight", "own.bias"} and not model.state_dict()
    around.load_state_dict(around.state_dict())
    around.train()
    model.apply(lambda module: [nn.init.zeros_(weight) for weight in module.parameters(recurse=False)])
    BaseModule.init_weights(model)
    assert not tower.training and not any(weight.requires_grad for weight in tower.parameters())
    assert all(torch.equal(value, before[name]) for name, value in tower.state_dict().items())


def test_images_of_a_batch_do_not_know_each_other(model):
    images = pictures(3, 90, 70)
    together = rfclip.encode_dense(model, images)
    for i in range(3):
        alone = rfclip.encode_dense(model, images[i : i + 1])
        torch.testing.assert_close(alone.patches[0], together.patches[i], rtol=1e-4, atol=1e-4)
    labels = [sample.pred_sem_seg.data for sample in model.predict(images)]
    for i in range(3):
        assert labels[i].shape == (1, 90, 70)
        (alone,) = model.predict(images[i : i + 1])
        assert (alone.pred_sem_seg.data == labels[i]).float().mean() > 0.999


def test_segmentors_share_one_tower_and_copies_work(model, build, vfm):
    other = build(method={"type": type(model.method).__name__, "vfm": vfm})
    assert other.method.sight.model is model.method.sight.model
    images = pictures(1, 70, 70)
    copied = copy.deepcopy(model)
    assert copied.method.sight.model is model.method.sight.model
    assert torch.equal(rfclip.encode_dense(copied, images).patches, rfclip.encode_dense(model, images).patches)


def test_the_tower_goes_where_the_pictures_are(model):
    seen = model.method.sight.model
    k, v, grid = seen.last_keys_values(pictures(1, 32, 40).to("meta"))
    assert k.device.type == v.device.type == "meta" and grid == (4, 5)
    assert rfclip.encode_dense(model, pictures(1, 32, 40)).patches.device.type == "cpu"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("kind", ["ProxyCLIP", "CASS"])
def test_half_precision_is_the_towers_alone(build, settings, vfm, precision, kind):
    method, images = {"type": kind, "vfm": vfm}, pictures(1, 64, 96)
    half = build(method=method, clip={**settings["clip"], "precision": precision})
    full = build(method=method)
    assert {weight.dtype for weight in half.method.sight.model.tower.parameters()} == {torch.float32}
    patches = rfclip.encode_dense(half, images).patches
    assert patches.dtype == torch.float32
    similarity = torch.cosine_similarity(patches, rfclip.encode_dense(full, images).patches, dim=-1)
    assert similarity.mean() > 0.95  # CASS: ties of its pairing fall otherwise


def test_a_caller_under_autocast_changes_nothing(model):
    images = pictures(1, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found = rfclip.encode_dense(model, images).patches
    assert torch.equal(found, rfclip.encode_dense(model, images).patches)


def test_the_dense_grid_is_the_methods(model):
    grid = rfclip.encode_dense(model, pictures(1, 64, 96)).grid
    assert grid == ((8, 12) if type(model.method).__name__ == "ProxyCLIP" else (4, 6))
    assert model.extract_feat(pictures(1, 64, 96)).shape[-2:] == grid


def test_a_clip_is_no_vision_model(build, clip_files):
    with pytest.raises(WeightsError, match=r"seem to be a CLIP's \(clip\.pretrained takes that\)"):
        build(method={"type": "ProxyCLIP", "vfm": {"type": "DINO", "pretrained": clip_files["pretrained"]}})


def test_other_heads_are_one_sentence(build, vfm):
    with pytest.raises(ValueError, match="this one has 4 of 32 channels, the CLIP 2 of 64"):
        build(method={"type": "CASS", "vfm": {**vfm, "heads": 4}})


def test_pictures_in_labels_out_without_mmseg(vfm, clip_files):
    seg = OpenVocabSegmenter(
        clip_files["model"], clip_files["pretrained"], "cpu", method={"type": "CASS", "vfm": vfm}, templates=["{}"]
    )
    picture = torch.randint(0, 256, (50, 80, 3), dtype=torch.uint8).numpy()
    assert seg(picture, ["a", "b"]).labels.shape == (50, 80)
