"""RefocusCLIPRelease against its rendering as loops; its own functions one by one."""

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS

from rfclip.methods import RefocusCLIPRelease
from rfclip.methods.refocus_clip_release import enhance, patch_similarity, smooth
from tests.support import loops
from tests.support.kept import Kept

SIZES = {"native": (80, 112), "square": (64, 64), "tall": (112, 50), "wide": (33, 130), "patch": (16, 16)}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_equal_loops(vit, dims, images, **settings):
    method = RefocusCLIPRelease(dims, **settings)
    exact = method(vit.double(), images.double())
    if "similarity_threshold" in settings:
        settings["threshold"] = settings.pop("similarity_threshold")
    for i, image in enumerate(images):
        patches, embedding, _ = loops.release(vit, image.double().numpy(), dims, **settings)
        torch.testing.assert_close(exact.patches[i], torch.tensor(patches), rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(exact.image[i], torch.tensor(embedding), rtol=1e-7, atol=1e-9)
    single = method(vit.float(), images)
    for value, truth in ((single.patches, exact.patches), (single.image, exact.image)):
        assert (value - truth).norm() <= 2e-4 * truth.norm()


@pytest.mark.parametrize("size", SIZES)
def test_equals_loops_on_every_grid(planted, make_images, size):
    assert_equal_loops(planted.vit, planted.dims, make_images(2, *SIZES[size], seed=3))


@pytest.mark.parametrize(
    "settings",
    [{"tau": 3.0}, {"tau": 1e6}, {"tau": 0}, {"alpha": 0.9}, {"alpha": 0}, {"similarity_threshold": 0.7}],
    ids=str,
)
def test_equals_loops_for_any_setting(planted, make_images, settings):
    assert_equal_loops(planted.vit, planted.dims, make_images(1, 64, 96, seed=4), **settings)


def test_equals_loops_in_a_tower_of_one_block(make_vit, make_images):
    assert_equal_loops(make_vit(layers=1), (3, 8), make_images(1, 80, 112), tau=2.0)


def test_every_step_equals_its_loop(planted, make_images):
    images = make_images(2, 80, 112, seed=5).double()
    record = Kept()
    RefocusCLIPRelease(planted.dims)(planted.vit.double(), images, record=record)
    for i, image in enumerate(images):
        _, _, trace = loops.release(planted.vit, image.numpy(), planted.dims)
        assert set(trace) == set(record.seen)
        for name, expected in trace.items():
            torch.testing.assert_close(record.seen[name][i], torch.as_tensor(expected), rtol=1e-6, atol=1e-9)


def test_the_fixture_puts_every_step_to_work(planted, make_images):
    record = Kept()
    RefocusCLIPRelease(planted.dims)(planted.vit, make_images(2, 80, 112, seed=5), record=record)
    for layer in range(1, 5):
        assert 0.01 < record.seen["distractors", layer].double().mean() < 0.3
    kept = record.seen["similarity", None] != 0
    assert 0.05 < kept.double().mean() < 0.95


def test_recording_changes_nothing(planted, make_images):
    images = make_images(3, 80, 112, seed=6)
    method = RefocusCLIPRelease(planted.dims)
    silent, shown = method(planted.vit, images), method(planted.vit, images, record=Kept())
    assert torch.equal(silent.patches, shown.patches)
    assert torch.equal(silent.image, shown.image)


def test_batch_is_its_images(planted, make_images):
    images = make_images(3, 80, 112, seed=7)
    together = RefocusCLIPRelease(planted.dims)(planted.vit, images)
    for i in range(3):
        alone = RefocusCLIPRelease(planted.dims)(planted.vit, images[i : i + 1])
        torch.testing.assert_close(together.patches[i], alone.patches[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.image[i], alone.image[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(planted, make_images, dtype):
    images = make_images(2, 80, 112)
    exact = RefocusCLIPRelease(planted.dims)(planted.vit, images)
    with torch.autocast("cpu", dtype):
        rounded = RefocusCLIPRelease(planted.dims)(planted.vit, images)
    assert torch.cosine_similarity(rounded.patches.float(), exact.patches, dim=-1).min() > 0.97


# --- smoothing


@pytest.mark.parametrize("grid", [(4, 5), (3, 2), (1, 6), (6, 1), (1, 1)])
@pytest.mark.parametrize("alpha", [0, 0.4, 1])
def test_smooth_equals_loops(grid, alpha):
    count = grid[0] * grid[1]
    patches, distractors = random(3, count, 7), random(3, count, seed=1) > 0
    distractors[1], distractors[2] = True, False
    before = patches.clone()
    result = smooth(patches, distractors, grid, alpha)
    for b in range(3):
        expected = loops.smooth(patches[b].numpy(), distractors[b].numpy(), grid, alpha)
        torch.testing.assert_close(result[b], torch.tensor(expected))
    assert torch.equal(patches, before)


def test_smooth_divides_by_nine_at_the_border_too():
    ones = torch.ones(1, 9, 2)
    result = smooth(ones, torch.ones(1, 9, dtype=torch.bool), (3, 3), 1.0)[0, :, 0]
    torch.testing.assert_close(result, torch.tensor([4.0, 6, 4, 6, 9, 6, 4, 6, 4]) / 9)


def test_smooth_equals_average_pooling():
    patches = random(2, 20, 3)
    pooled = F.avg_pool2d(patches.transpose(1, 2).unflatten(2, (4, 5)), 3, stride=1, padding=1)
    result = smooth(patches, torch.ones(2, 20, dtype=torch.bool), (4, 5), 1.0)
    torch.testing.assert_close(result, pooled.flatten(2).transpose(1, 2))


def test_smooth_refuses_another_grid():
    with pytest.raises(ValueError, match="do not stand on the grid"):
        smooth(random(1, 6, 2), torch.ones(1, 6, dtype=torch.bool), (2, 2), 0.4)


# --- enhancement


def test_similarity_keeps_cosines_from_the_threshold_on():
    patches = torch.tensor([[[1.0, 0], [3, 0], [0, 2], [3, 4], [-1, 0]]])
    expected = torch.tensor(
        [[1, 1, 0, 0.6, 0], [1, 1, 0, 0.6, 0], [0, 0, 1, 0.8, 0], [0.6, 0.6, 0.8, 1, 0], [0, 0, 0, 0, 1]]
    )
    torch.testing.assert_close(patch_similarity(patches, 0.5)[0], expected)
    torch.testing.assert_close(patch_similarity(patches, 0.7)[0], expected * (expected >= 0.7))


def test_similarity_under_autocast_is_not_rounded():
    patches = random(1, 8, 16).float()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = patch_similarity(patches, 0.1)
    assert torch.equal(rounded, patch_similarity(patches, 0.1))


def test_enhance_sums_without_normalising_and_keeps_the_class_token():
    tokens, similarity = random(2, 6, 4), random(2, 5, 5, seed=1)
    before = tokens.clone()
    result = enhance(tokens, similarity)
    for b in range(2):
        assert torch.equal(result[b, 0], tokens[b, 0])
        for i in range(5):
            expected = sum(similarity[b, i, j] * tokens[b, 1 + j] for j in range(5))
            torch.testing.assert_close(result[b, 1 + i], expected)
    assert torch.equal(tokens, before)


# --- settings


def test_registered():
    method = MODELS.build({"type": "RefocusCLIPRelease", "distraction_dims": [1, 2]})
    assert method == RefocusCLIPRelease((1, 2), 5.0, 0.4, 0.4)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"tau": float("nan")}, "tau must be a number, at least 0, got nan"),
        ({"alpha": -0.1}, r"alpha must be a number in 0..1, got -0.1"),
        ({"similarity_threshold": 2}, r"similarity_threshold must be a number in -1..1, got 2"),
        ({"distraction_dims": [True]}, "distraction_dims.*got True"),
    ],
)
def test_bad_settings(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        RefocusCLIPRelease(**{"distraction_dims": [1], **settings})


@pytest.mark.parametrize(("dims", "sentence"), [("auto", "resolve_distraction_dims"), ([64], "width 64")])
def test_dims_that_do_not_fit_the_tower(tiny_vit, make_images, dims, sentence):
    with pytest.raises(ValueError, match=sentence):
        RefocusCLIPRelease(dims)(tiny_vit, make_images(1, 80, 112))
