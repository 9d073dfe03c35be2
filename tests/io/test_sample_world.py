"""The sample world: deterministic scenes whose looks can be told apart."""

import json

import numpy as np
import pytest

from rfclip.clip.text import load_vocabulary, shipped_vocabularies
from rfclip.io import sample_world


def test_spellings_share_a_look() -> None:
    assert sample_world.look("traffic light") == sample_world.look("trafficlight") == sample_world.look("Traffic-Light")


@pytest.mark.parametrize("name", [name for name in shipped_vocabularies() if not name.endswith("_sfp")])
def test_every_shipped_name_has_a_look(name: str) -> None:
    """But for SFP's "people", which the tiny CLIP has not learned."""
    for query in load_vocabulary(name).queries:
        assert sample_world.canonical(query) in sample_world.looks()


def test_looks_differ() -> None:
    looks = sample_world.looks()
    assert len(set(looks.values())) == len(looks) == len(sample_world.known_names())


def test_unknown_name_is_an_error_that_names_it() -> None:
    with pytest.raises(KeyError, match="gryphon"):
        sample_world.look("gryphon")


def test_names_file_is_canonical_and_without_repeats() -> None:
    names = json.loads(sample_world.NAMES_FILE.read_text(encoding="utf-8"))["names"]
    assert len(set(names)) == len(names)
    assert all(sample_world.canonical(name) == name for name in names)


def test_layout_uses_every_region_and_the_size_asked_for() -> None:
    regions = sample_world.layout((90, 140), 7, np.random.default_rng(3))
    assert regions.shape == (90, 140)
    assert set(np.unique(regions)) == set(range(7))


def test_render_shows_the_look_of_each_region() -> None:
    regions = np.zeros((64, 96), np.int64)
    regions[:, 48:] = 1
    before = regions.copy()
    names = ["sky", "tree"]
    scene = sample_world.render(regions, names, np.random.default_rng(0), glint_share=0)
    np.testing.assert_array_equal(regions, before)
    assert not scene.glints.any()
    for index, name in enumerate(names):
        look = sample_world.look(name)
        shown = scene.image[regions == index].reshape(-1, 3)
        low, high = np.minimum(look.first, look.second), np.maximum(look.first, look.second)
        assert (shown.min(0) >= low * 0.92 - 30).all()
        assert (shown.max(0) <= high * 1.08 + 30).all()


def test_glints_are_marked_where_they_are_drawn() -> None:
    regions = np.zeros((96, 128), np.int64)
    rng = np.random.default_rng(5)
    scene = sample_world.render(regions, ["sky"], rng, glint_share=0.3)
    bare = sample_world.render(regions, ["sky"], np.random.default_rng(5), glint_share=0)
    assert 0.01 < scene.glints.mean() < 0.3
    assert (scene.image[~scene.glints] == bare.image[~scene.glints]).all()
    assert set(np.unique(scene.image[scene.glints])) == {10, 250}


def test_calibration_images_are_seeded() -> None:
    first = sample_world.calibration_images(2, (64, 96), seed=1)
    assert first.shape == (2, 64, 96, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, sample_world.calibration_images(2, (64, 96), seed=1))
    assert (first != sample_world.calibration_images(2, (64, 96), seed=2)).any()
