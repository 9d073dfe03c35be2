"""GLA-CLIP and LPOSS, which look at all windows of an image at once."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rfclip.methods import GLACLIP, LPOSS, VanillaCLIP, gla_clip, lposs
from rfclip.methods.base import DenseOutput
from rfclip.methods.gla_clip import joint_attention, proxy_cosines
from rfclip.methods.needs import Given
from tests.support import window_loops as loops
from tests.support.kept import Kept
from tests.support.loops import Tower
from tests.support.vision import dino_state, pictures, sight
from tests.support.vision_loops import Dino

VFM = {"type": "DINO", "pretrained": "tests"}
GLA = {"threshold": 0.3, "iterations": 2, "beta_alpha": 0.3, "gamma_alpha": 30.0}
LP = {"neighbors": 9, "gamma": 3.0, "sigma": 0.01, "alpha": 0.95, "iterations": 10, "tolerance": 1e-6}
CORNERS = [(0, 0), (0, 24), (16, 0)]


def gla(patch=8, **changed):
    return GLACLIP(VFM, **GLA | changed).with_sight(sight(patch=patch))


def lposs_of(patch=16, **changed):
    return LPOSS(VFM, **LP | changed).with_sight(sight(patch=patch))


def dino(patch):
    return Dino(dino_state(heads=3, patch=patch), 3)


def words(count=5, width=32):
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(3)), dim=-1)


def given(corners, batch=8, text=None):
    return Given(words() if text is None else text, 40.0, batch, tuple(corners))


def windows_of(image, height, width):
    return torch.stack([image[:, y : y + height, x : x + width] for y, x in CORNERS])


@pytest.mark.parametrize(("size", "patch"), [((48, 64), 8), ((64, 40), 8), ((48, 64), 16)])
def test_gla_equals_loops(planted, size, patch):
    windows = windows_of(pictures(1, 80, 100)[0], *size)
    output = gla(patch).joined(planted.vit, windows)
    wanted, grid = loops.gla_clip(Tower(planted.vit), dino(patch), windows.double().numpy(), **GLA)
    assert output.grid == grid
    assert np.abs(output.patches.numpy() - wanted).max() < 1e-5 * np.abs(wanted).max()
    torch.testing.assert_close(output.image, VanillaCLIP()(planted.vit, windows).image, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "patch"), [((48, 64), 16), ((64, 40), 16), ((48, 64), 8)])
def test_lposs_equals_loops(planted, size, patch):
    windows = windows_of(pictures(1, 80, 100)[0], *size)
    output = lposs_of(patch).joined(planted.vit, windows, None, given(CORNERS))
    tower, text = Tower(planted.vit), words().double().numpy()
    wanted = loops.lposs(tower, dino(patch), patch, windows.double().numpy(), CORNERS, text, LP)
    assert np.abs(output.scores.numpy() - wanted).max() < 1e-5 * np.abs(wanted).max()
    embedded, grid, _, _ = loops.lposs_features(tower, dino(patch), windows[1].double().numpy())
    assert output.grid == grid
    assert np.abs(output.patches[1].numpy() - embedded).max() < 1e-5 * np.abs(embedded).max()


@pytest.mark.parametrize("method", [gla(), lposs_of()], ids=["gla", "lposs"])
def test_images_of_a_batch_are_windows_of_their_own(planted, method):
    images = pictures(3, 48, 64)
    together = method(planted.vit, images, given=given([(0, 0)]))
    for i in range(3):
        alone = method.joined(planted.vit, images[i : i + 1], None, given([(0, 0)]))
        torch.testing.assert_close(together.patches[i : i + 1], alone.patches, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.image[i : i + 1], alone.image, rtol=1e-4, atol=1e-5)
        if alone.scores is not None:
            torch.testing.assert_close(together.scores[i : i + 1], alone.scores, rtol=1e-4, atol=1e-5)
    joined = method.joined(planted.vit, images, None, given([(0, 0)] * 3))
    changed = joined.patches if joined.scores is None else joined.scores
    apart = together.patches if joined.scores is None else together.scores
    assert (changed - apart).abs().max() > 1e-3  # windows of one image do know each other


@pytest.mark.parametrize("method", [gla(), lposs_of()], ids=["gla", "lposs"])
def test_window_batch_does_not_change_the_output(planted, method):
    windows = windows_of(pictures(1, 80, 100)[0], 48, 64)
    one, eight = (method.joined(planted.vit, windows, None, given(CORNERS, batch)) for batch in (1, 8))
    torch.testing.assert_close(one.patches, eight.patches, rtol=1e-4, atol=1e-5)
    if one.scores is not None:
        torch.testing.assert_close(one.scores, eight.scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", [gla(), lposs_of()], ids=["gla", "lposs"])
def test_listening_changes_nothing_and_the_image_alone_is_the_same(planted, method):
    images, record = pictures(2, 48, 64), Kept()
    plain, heard = (method(planted.vit, images, who, given=given([(0, 0)])) for who in (None, record))
    torch.testing.assert_close(heard.patches, plain.patches)
    torch.testing.assert_close(method.image_embedding(planted.vit, images), plain.image, rtol=1e-4, atol=1e-5)
    assert {layer for what, layer in record.seen if what == "residual"} == {0, 1, 2, 3, 4}
    assert torch.equal(record.seen["dense", None], heard.patches)
    if method.needs == {"windows"}:
        attention = record.seen["attn_dense", None]
        assert attention.shape == (2, 1, 48, 48)
        torch.testing.assert_close(attention.sum(-1), torch.ones(2, 1, 48))


@pytest.mark.parametrize("method", [gla(), lposs_of()], ids=["gla", "lposs"])
def test_half_precision_stays_near(planted, method):
    images = pictures(2, 48, 64)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = method(planted.vit, images)
    assert torch.cosine_similarity(rounded.patches.float(), method(planted.vit, images).patches, dim=-1).mean() > 0.97


@pytest.mark.parametrize("windows", [1, 7])
def test_rows_of_the_joint_attention_equal_loops(windows):
    keys = F.normalize(torch.randn(29, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=-1)
    for threshold, iterations in ((0.55, 2), (0.2, 1), (0.9, 5)):
        cosines, members = proxy_cosines(keys, slice(0, 29), threshold, iterations)
        wanted, counted = loops.proxies(keys.numpy(), threshold, iterations)
        np.testing.assert_allclose(cosines, wanted, atol=1e-12)
        assert members.tolist() == counted
        attention = joint_attention(cosines, members, windows, 0.3, 30.0)
        np.testing.assert_allclose(attention, loops.joint_attention(wanted, counted, windows, 0.3, 30.0), atol=1e-12)


def test_a_row_that_is_negative_throughout_keeps_its_largest_entry():
    attention = joint_attention(torch.tensor([[0.10, 0.11, 0.105]]), torch.tensor([3]), 8, 0.3, 30.0)
    assert attention.tolist() == [[0.0, 1.0, 0.0]]


def test_a_proxy_without_members_is_its_own_patch():
    keys = F.normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    cosines, members = proxy_cosines(keys, slice(2, 5), 1.0, 1)
    assert members.tolist() == [1, 1, 1]
    torch.testing.assert_close(cosines, keys[2:5] @ keys.T)


def test_rows_in_blocks_are_the_same_and_no_block_is_larger_than_stated(planted, monkeypatch):
    windows = windows_of(pictures(1, 80, 100)[0], 48, 64)  # 3 * 48 tokens
    once = gla().joined(planted.vit, windows).patches
    sizes = []

    def listened(cosines, *others):
        sizes.append(cosines.numel())
        return joint_attention(cosines, *others)

    monkeypatch.setattr(gla_clip, "joint_attention", listened)
    for piece in ("_CPU_PIECE", "_GPU_PIECE"):
        monkeypatch.setattr(gla_clip, piece, 144 * 10)
    torch.testing.assert_close(gla().joined(planted.vit, windows).patches, once)
    assert len(sizes) == 15 and max(sizes) == 144 * 10


@pytest.mark.parametrize("size", [(7, 9), (12, 5)])
def test_lposs_plus_propagates_over_pixels(size, monkeypatch):
    method = lposs_of(plus=True, reach=2)
    picture = pictures(1, *size)[0]
    rgb = torch.from_numpy(loops.rgb_of(picture.double().numpy()))
    maps = torch.randn(4, *size, generator=torch.Generator().manual_seed(1))
    found = method.merged(maps, dataclasses.replace(given([(0, 0)]), picture=rgb.float()))
    colours = np.array([[loops.lab(rgb[:, y, x].tolist()) for x in range(size[1])] for y in range(size[0])])
    weights = loops.pixel_weights(colours, 0.01, 2)
    wanted = loops.propagate(weights, maps.double().flatten(1).T.numpy(), 0.95, 10, 1e-6)
    np.testing.assert_allclose(found, wanted.T.reshape(4, *size), rtol=1e-3, atol=1e-4)  # tau amplifies rounding
    monkeypatch.setattr(lposs, "_PIECE", size[0] * size[1])
    again = method.merged(maps, dataclasses.replace(given([(0, 0)]), picture=rgb.float()))
    torch.testing.assert_close(again, found)


def test_what_is_declared():
    assert gla().needs == {"windows"}
    assert lposs_of().needs == {"text", "windows"} and lposs_of(plus=True).needs == {"text", "windows", "picture"}
    maps = torch.zeros(2, 3, 3)
    assert torch.equal(lposs_of().merged(maps, given([(0, 0)])), maps)
    with pytest.raises(ValueError, match="needs the picture"):
        lposs_of(plus=True).merged(maps, given([(0, 0)]))


def test_without_words_lposs_has_embeddings_and_no_scores(planted):
    images = pictures(2, 48, 64)
    plain, scored = (lposs_of()(planted.vit, images, given=who) for who in (None, given([(0, 0)])))
    assert isinstance(plain, DenseOutput) and plain.scores is None and scored.scores.shape == (2, 5, 3, 4)
    assert torch.equal(plain.patches, scored.patches)
    with pytest.raises(ValueError, match="LPOSS needs the words"):
        lposs_of().joined(planted.vit, images)


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (GLACLIP, {"threshold": 1.5}, "threshold"),
        (GLACLIP, {"iterations": 0}, "iterations"),
        (GLACLIP, {"beta_alpha": -1}, "beta_alpha"),
        (GLACLIP, {"gamma_alpha": "many"}, "gamma_alpha"),
        (LPOSS, {"neighbors": 0}, "neighbors"),
        (LPOSS, {"gamma": 0}, "gamma"),
        (LPOSS, {"alpha": 1}, "alpha must be less than 1"),
        (LPOSS, {"alpha": 1.2}, "alpha"),
        (LPOSS, {"iterations": 2.5}, "iterations"),
        (LPOSS, {"plus": "yes"}, "plus"),
        (LPOSS, {"tau": 0}, "tau"),
        (LPOSS, {"reach": 0}, "reach"),
    ],
)
def test_bad_settings(kind, settings, said):
    with pytest.raises(ValueError, match=said):
        kind(VFM, **settings)


@pytest.mark.parametrize("kind", [GLACLIP, LPOSS])
def test_without_its_vision_model_it_says_so(planted, kind):
    with pytest.raises(ValueError, match="no vision model yet"):
        kind(VFM)(planted.vit, pictures(1, 48, 64))


MEASURED = """
import resource, sys, torch
import torch.nn.functional as F
from rfclip.methods import GLACLIP
from rfclip.methods.label_propagation import patch_graph

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

keys, values = F.normalize(torch.randn(28224, 768), dim=-1), torch.randn(28224, 768)  # 36 windows of 28 x 28
before, rows = peak(), GLACLIP({"type": "DINO", "pretrained": "x"})._rows(keys, 36)
for _ in range(2):
    next(rows)[1] @ values
print(peak() - before)
features, positions = keys[:7056].clone(), 500 * torch.rand(7056, 2)  # 36 windows of 14 x 14
before = peak()
patch_graph(features, positions, 400, 3.0, 0.01)
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_stays_within_what_is_stated():
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    joint, graph = map(int, done.stdout.split())
    assert joint < 0.4e9
    assert graph < 100 * 7056 * 400
