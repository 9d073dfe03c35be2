"""Distraction dimensions: the profile against loops, the rule on planted channels, and where a spec leads."""

import dataclasses
import json
import logging

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image

from rfclip.clip import towers as V
from rfclip.clip.loader import LoadedCLIP
from rfclip.io.sample_world import calibration_images
from rfclip.methods import distraction as C
from rfclip.refocus import distraction_scores
from tests.support.log import keep_log

OPENAI_B16 = (4, 162, 189, 326, 429, 474, 633, 713)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def loaded(planted):
    """A LoadedCLIP around the planted tower, of unknown origin."""
    model = torch.nn.Module()
    model.visual = planted.vit
    return LoadedCLIP(
        model=model,
        tokenizer=SimpleTokenizer(),
        mean=(122.771, 116.746, 104.094),
        std=(68.501, 66.632, 70.323),
        architecture="ViT-64x4-16-80x112",
        origin=None,
        weights_hash="0" * 64,
        activation="QuickGELU",
    )


def scenes(count=16, size=(80, 112), seed=0):
    images = torch.from_numpy(calibration_images(count, size, seed)).permute(0, 3, 1, 2).float()
    return (images - 115) / 68


@pytest.fixture
def logged(monkeypatch):
    """What was logged: (message, level)."""
    lines = []
    keep_log(monkeypatch, C, lambda message, level: lines.append((message, level)))
    return lines


def test_channel_shares_equal_a_loop_and_the_methods_scores():
    tokens = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    shares = C.channel_shares(tokens)
    for b in range(2):
        for i in range(5):
            row = tokens[b, i].tolist()
            total = sum(value - min(row) for value in row)
            expected = [(value - min(row)) / total for value in row]
            torch.testing.assert_close(shares[b, i], torch.tensor(expected))
    for dim in range(7):
        torch.testing.assert_close(shares[..., dim], distraction_scores(tokens, [dim]))


def test_a_constant_embedding_has_no_shares():
    assert C.channel_shares(torch.full((1, 3, 4), 2.0)).abs().sum() == 0


def test_measure_equals_a_loop_over_images_boundaries_and_patches(tiny_vit, make_images):
    batches = [make_images(2, 48, 80, seed=1), make_images(1, 80, 112, seed=2)]
    rows = []
    for image in [image for batch in batches for image in batch]:
        tokens, _ = V.embed(tiny_vit, image[None])
        rows.extend(tokens[0, 1:])
        for block in V.blocks(tiny_vit):
            tokens = V.run_block(block, tokens)
            rows.extend(tokens[0, 1:])
    shares = torch.stack([(row - row.min()) / (row - row.min()).sum() for row in rows]).double()
    statistics = C.measure(tiny_vit, iter(batches))
    assert len(rows) == 5 * (2 * 15 + 35)
    torch.testing.assert_close(statistics.profile, shares.mean(0), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(statistics.crossings, (shares > 5 / 64).double().mean(0))
    assert statistics.profile.sum() == pytest.approx(1)


def test_distraction_profile_is_the_measured_one(tiny_vit, make_images):
    images = make_images(2, 48, 80)
    profile = C.distraction_profile(tiny_vit, images)
    assert profile.shape == (64,)
    torch.testing.assert_close(profile, C.measure(tiny_vit, [images]).profile)


def test_measuring_nothing_is_an_error(tiny_vit):
    with pytest.raises(ValueError, match="no image"):
        C.measure(tiny_vit, [])


def test_planted_channels_are_found_exactly(planted):
    statistics = C.measure(planted.vit, scenes().split(4))
    assert C.pick_peaks(statistics.profile, statistics.crossings) == planted.dims


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("width", "dims"), [(64, (1, 2)), (128, (0, 40, 127)), (256, (9, 10, 99, 200, 255))])
def test_planted_channels_are_found_in_other_vits(make_vit, plant, seed, width, dims):
    vit = make_vit(seed=seed, width=width, heads=width // 32, layers=3)
    assert picked(vit) == ()
    assert picked(plant(vit, dims, seed=seed).vit) == dims


def picked(vit):
    statistics = C.measure(vit, scenes(8).split(8))
    return C.pick_peaks(statistics.profile, statistics.crossings)


def test_channels_that_are_always_strong_are_found_by_the_profile_alone(make_vit):
    vit = make_vit(seed=5, width=128)
    for block in V.blocks(vit):
        block.mlp.c_proj.bias[[17, 90]] += 4
    assert C.pick_peaks(C.distraction_profile(vit, scenes(8))) == (17, 90)


def test_both_halves_of_the_images_agree(planted):
    halves = [
        C.pick_peaks(s.profile, s.crossings) for s in (C.measure(planted.vit, [scenes()[part::2]]) for part in (0, 1))
    ]
    assert C.agreement(*halves) == 1.0


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [((1, 2), (2, 3), 1 / 3), ((), (), 1.0), ((1,), (), 0.0), ((4, 5), (5, 4), 1.0)],
)
def test_agreement_is_intersection_over_union(first, second, expected):
    assert C.agreement(first, second) == pytest.approx(expected)


def test_nothing_peaks_in_a_flat_or_evenly_spread_profile():
    assert C.pick_peaks(torch.full((64,), 1 / 64, dtype=torch.float64)) == ()
    spread = torch.rand(256, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert C.pick_peaks(spread / spread.sum()) == ()


def test_pick_peaks_takes_either_half_of_the_rule():
    profile = torch.full((100,), 0.009, dtype=torch.float64)
    profile[[3, 60]] = torch.tensor([0.05, 0.021], dtype=torch.float64)
    crossings = torch.zeros(100)
    crossings[[8, 9]] = torch.tensor([0.003, 0.001])
    assert C.pick_peaks(profile) == (3, 60)
    assert C.pick_peaks(profile, crossings) == (3, 8, 60)


def test_the_data_file_holds_the_published_dimensions():
    table = json.loads(C.DATA_FILE.read_text())
    assert tuple(table["ViT-B-16"]["openai"]) == OPENAI_B16
    assert table["ViT-L-14"]["openai"] == [250, 261, 437, 650, 720, 779, 936, 1005]
    assert set(table) == {"ViT-B-16", "ViT-L-14"}


def test_auto_takes_the_data_file_for_known_weights_only(loaded, make_vit, logged, monkeypatch):
    loaded.model.visual = make_vit(width=768, heads=12, layers=1)
    monkeypatch.setattr(C, "_calibrated", lambda clip, folder: "calibrated")
    openai = dataclasses.replace(loaded, architecture="ViT-B-16", origin="openai")
    assert C.resolve_distraction_dims(openai) == OPENAI_B16
    assert "4, 162" in logged[-1][0]
    assert C.resolve_distraction_dims(dataclasses.replace(openai, origin="laion2b_s34b_b88k")) == "calibrated"
    assert C.resolve_distraction_dims(dataclasses.replace(openai, origin=None)) == "calibrated"
    assert C.resolve_distraction_dims(dataclasses.replace(openai, architecture="ViT-L-14-336")) == "calibrated"


def test_auto_calibrates_unknown_weights_says_so_and_keeps_the_result(loaded, planted, logged, monkeypatch):
    assert C.resolve_distraction_dims(loaded) == planted.dims
    message, level = logged[-1]
    assert "calibrated on 32 generated scenes: 5, 23, 42" in message
    assert level == logging.INFO
    monkeypatch.setattr(C, "measure", lambda *_: pytest.fail("was kept"))
    assert C.resolve_distraction_dims(loaded, "auto") == planted.dims


def test_other_weights_are_calibrated_anew(loaded, planted, make_vit):
    assert C.resolve_distraction_dims(loaded) == planted.dims
    loaded.model.visual = make_vit(seed=3)
    assert C.resolve_distraction_dims(dataclasses.replace(loaded, weights_hash="1" * 64)) == ()


@pytest.mark.parametrize("change", ["mean", "std", "eps", "ln_pre", "activation"])
def test_all_that_a_calibration_depends_on_is_in_its_key(loaded, change, monkeypatch):
    keys = []
    monkeypatch.setattr(C, "cached_tensors", lambda key, make: keys.append(key) or {"dims": torch.tensor([5])})
    C.resolve_distraction_dims(loaded)
    vit, other = loaded.model.visual, loaded
    if change in ("mean", "std"):
        other = dataclasses.replace(loaded, **{change: (127.5, 127.5, 127.5)})
    elif change == "eps":
        vit.ln_pre.eps = 1e-6
    elif change == "ln_pre":
        vit.ln_pre = torch.nn.Identity()
    else:
        vit.transformer.resblocks[1].mlp.gelu = torch.nn.GELU()
    C.resolve_distraction_dims(other)
    C.resolve_distraction_dims(other)
    assert keys[0] != keys[1] == keys[2]


def test_weights_without_peaks_are_warned_about(loaded, make_vit, logged):
    loaded.model.visual = make_vit(seed=3)
    assert C.resolve_distraction_dims(loaded) == ()
    assert "no token will be a distractor" in logged[-1][0]
    assert logged[-1][1] == logging.WARNING


def test_calibration_on_a_folder_of_images(loaded, planted, logged, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "notes.txt").write_text("no image")
    for index, image in enumerate(calibration_images(6, (100, 150), seed=4)):
        Image.fromarray(image).save(folder / f"{index}.png")
    assert C.resolve_distraction_dims(loaded, calibration_images=str(folder)) == planted.dims
    assert f"6 images of {folder}" in logged[-1][0]


def test_a_folder_without_images_is_an_error(loaded, tmp_path):
    with pytest.raises(ValueError, match="holds no image"):
        C.resolve_distraction_dims(loaded, calibration_images=str(tmp_path / "nothing"))


def test_many_images_are_thinned_out_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr(C, "MOST_IMAGES", 4)
    for index in range(10):
        (tmp_path / f"{index}.jpg").touch()
    assert [path.stem for path in C.image_files(tmp_path)] == ["0", "2", "5", "7"]


def test_a_list_is_taken_as_it_is(loaded):
    assert C.resolve_distraction_dims(loaded, [7, 3]) == (7, 3)
    assert C.resolve_distraction_dims(loaded, []) == ()


@pytest.mark.parametrize("spec", [[64], [-1], [1.5], [True]])
def test_dimensions_that_do_not_exist_are_refused(loaded, spec):
    with pytest.raises(ValueError, match="distraction dimensions"):
        C.resolve_distraction_dims(loaded, spec)


def test_a_data_file_of_ones_own(loaded, tmp_path):
    file = tmp_path / "dims.json"
    file.write_text(json.dumps({loaded.architecture: {loaded.weights_hash: [3, 9], "other": [1]}}))
    assert C.resolve_distraction_dims(loaded, str(file)) == (3, 9)
    assert C.resolve_distraction_dims(dataclasses.replace(loaded, origin="other"), str(file)) == (3, 9)
    stranger = dataclasses.replace(loaded, weights_hash="2" * 64)
    with pytest.raises(ValueError, match="holds nothing for"):
        C.resolve_distraction_dims(stranger, str(file))


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"ViT-64x4-16-80x112": 5}', "\x00"])
def test_a_broken_data_file_is_an_error(loaded, tmp_path, text):
    file = tmp_path / "dims.json"
    file.write_text(text)
    with pytest.raises(ValueError, match="is no data file"):
        C.resolve_distraction_dims(loaded, str(file))


def test_a_missing_data_file_is_an_error(loaded):
    with pytest.raises(ValueError, match="is no data file"):
        C.resolve_distraction_dims(loaded, "nowhere.json")
