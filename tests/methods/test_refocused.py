"""Refocusing under another method's last block, against loops and against RefocusCLIP."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS

from rfclip import methods
from rfclip.methods import (
    CASS,
    GLACLIP,
    LPOSS,
    METHODS,
    PEARL,
    SCCLIP,
    SFP,
    MeanKK,
    ProxyCLIP,
    RefocusCLIP,
    Refocused,
    ResCLIP,
)
from rfclip.methods.base import describe, encode_image
from rfclip.methods.needs import Given, needs_of
from rfclip.methods.stream import OnStream
from tests.support import family_loops, loops
from tests.support.kept import Kept
from tests.support.refocused_loops import RefocusedTower
from tests.support.vision import sight

LAYERS = {"pre_layer": 2, "post_layer": 1, "fusion_layers": (1, 2)}
SC = {"class_weight": 0.3, "similarity_threshold": 0.4, "lof_neighbors": 6, "contamination": 0.1, "contrast": 3.0}
SF = {"class_weight": 0.3, "salience": 9.0, "max_tokens": 4, "similarity_threshold": 0.4, "contrast": 3.0}
RES = {"rcs_layers": (1, 2), "rcs_scale": 2.0, "rcs_weight": 0.4}
BASELINES = ["VanillaCLIP", "MaskCLIP", "SCLIP", "ClearCLIP", "NACLIP", "MeanKK"]


def _baseline(name):
    return getattr(methods, name)(), lambda t, i: loops.baseline(t, i, name)[0]


HEADS = {
    **{name: _baseline(name) for name in BASELINES},
    "SCCLIP": (SCCLIP(**LAYERS, **SC), lambda t, i: family_loops.sc_clip(t, i, 2, 1, (1, 2), SC)),
    "SFP v1": (SFP("v1", **LAYERS, **SF), lambda t, i: family_loops.sfp(t, i, "v1", 2, 1, (1, 2), SF)),
    "SFP v2": (SFP("v2", **LAYERS, **SF), lambda t, i: family_loops.sfp(t, i, "v2", 2, 1, (1, 2), SF)),
    "PEARL": (PEARL(alpha=0.3), lambda t, i: family_loops.pearl(t, i, 0.3, 5)),
    "ResCLIP": (
        ResCLIP(sfr=False, **RES, gaussian_std=3.0),
        lambda t, i: family_loops.resclip(
            t, i, None, (i.shape[1] // 16, i.shape[2] // 16), "naclip", {**RES, "rcs": True, "gaussian_std": 3.0}
        ),
    ),
}


def seeing(kind, **settings):
    """A method with a vision model of the planted tower's heads and width."""
    method = kind(vfm={"type": "DINO", "pretrained": "a file", "heads": 4}, **settings)
    return method.with_sight(sight(width=64, heads=4))


SIGHTED = {
    "ProxyCLIP": lambda: seeing(ProxyCLIP),
    "CASS": lambda: seeing(CASS),
    "GLACLIP": lambda: seeing(GLACLIP),
    "LPOSS": lambda: seeing(LPOSS, neighbors=9),
}
ALL = {**{name: lambda name=name: HEADS[name][0] for name in HEADS}, **SIGHTED}


def words(method, **more):
    """What the engine would hand to a method, as keyword arguments."""
    text = F.normalize(torch.randn(5, 32, generator=torch.Generator().manual_seed(0)), dim=-1)
    return {"given": Given(text, 40.0, **more)} if needs_of(method) else {}


def assert_same(first, second):
    assert torch.equal(first.patches, second.patches) and torch.equal(first.image, second.image)
    assert first.grid == second.grid and (first.scores is None) == (second.scores is None)
    assert first.scores is None or torch.equal(first.scores, second.scores)


def assert_equals_loops(planted, images, name, tau=5.0, beta=0.7, layers=(0, 1, 2)):
    head, rendering = HEADS[name]
    method = Refocused(
        head=head, distraction_dims=planted.dims, tau=tau, beta=beta, layers="all" if layers == (0, 1, 2) else layers
    )
    found = method(planted.vit.double(), images.double(), **words(method)).patches
    for i, image in enumerate(images):
        tower = RefocusedTower(planted.vit, planted.dims, tau, beta, layers)
        wanted = torch.tensor(rendering(tower, image.double().numpy()))
        assert (found[i] - wanted).abs().max() < 1e-5 * wanted.abs().max()
    return found


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("size", [(80, 112), (112, 50)])
def test_equals_loops(planted, make_images, name, size):
    images = make_images(2, *size, seed=3)
    found = assert_equals_loops(planted, images, name)
    head = HEADS[name][0]
    alone = head(planted.vit, images.double(), **words(head)).patches
    assert (found - alone).norm() > 1e-3 * alone.norm()  # refocusing moved something


@pytest.mark.parametrize("layers", [(0,), (1,), (2,), (0, 2), ()])
def test_equals_loops_for_lists_of_layers(planted, make_images, layers):
    assert_equals_loops(planted, make_images(1, 80, 112, seed=1), "ClearCLIP", layers=layers)


@pytest.mark.parametrize(("tau", "beta"), [(5, 0), (5, 1), (2.0, 0.35), (0, 0.7)])
def test_equals_loops_for_any_tau_and_beta(planted, make_images, tau, beta):
    assert_equals_loops(planted, make_images(1, 64, 96, seed=4), "SFP v2", tau=tau, beta=beta)


def test_under_mean_kk_it_is_refocus_clip_without_its_last_block(planted, make_images):
    images, seen = make_images(3, 80, 112, seed=5), (Kept(), Kept())
    ours = Refocused(head=MeanKK(), distraction_dims=planted.dims)
    theirs = RefocusCLIP(planted.dims, layers=(0, 1, 2))
    for first, second in (
        (ours(planted.vit, images), theirs(planted.vit, images)),
        (ours(planted.vit, images, seen[0]), theirs(planted.vit, images, seen[1])),
    ):
        assert_same(first, second)
    assert seen[0].seen.keys() == seen[1].seen.keys()
    assert all(torch.equal(value, seen[1].seen[name]) for name, value in seen[0].seen.items())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("settings", [{"distraction_dims": []}, {"layers": []}, {"tau": 1e9}])
def test_with_nothing_to_refocus_it_is_the_head(planted, make_images, name, settings):
    head, images = ALL[name](), make_images(2, 80, 112)
    found = Refocused(head=head, **{"distraction_dims": planted.dims, **settings})
    assert_same(found(planted.vit, images, **words(head)), head(planted.vit, images, **words(head)))


@pytest.mark.parametrize("name", ["GLACLIP", "LPOSS"])
def test_all_windows_at_once(planted, make_images, name):
    head, windows = SIGHTED[name](), make_images(2, 80, 112)
    given = words(head, corners=((0, 0), (0, 64)))
    alone = head.joined(planted.vit, windows, None, **given)
    assert_same(Refocused(head=head, distraction_dims=[]).joined(planted.vit, windows, None, **given), alone)
    moved = Refocused(head=head, distraction_dims=planted.dims).joined(planted.vit, windows, None, **given)
    assert moved.grid == alone.grid and (moved.patches - alone.patches).norm() > 1e-3 * alone.patches.norm()


def test_every_head_is_tried_here():
    kinds = {name for name in METHODS.names() if issubclass(METHODS.get(name), OnStream)}
    assert kinds <= {type(make()).__name__ for make in ALL.values()}


@pytest.mark.parametrize("name", ALL)
def test_recording_shows_the_refocused_stream_and_changes_nothing(planted, make_images, name):
    images, record = make_images(2, 80, 112, seed=5), Kept()
    method = Refocused(head=ALL[name](), distraction_dims=planted.dims)
    shown, silent = method(planted.vit, images, record, **words(method)), method(planted.vit, images, **words(method))
    assert_same(shown, silent)
    there = {what: [layer for named, layer in record.seen if named == what] for what, _ in record.seen}
    assert there["residual_refocused"] == [1, 2, 3] and there["phi"] == there["distractors"] == [0, 1, 2, 3]
    assert there["attn_refocused"] == there["fiedler"] == there["defocus"] == [0, 1, 2]
    assert there["residual"] == [0, 1, 2, 3, 4] and there["attn_qk"] == there["attn_kk"] == [0, 1, 2, 3]
    assert "attn_dense_refocused" not in there  # the last block is the head's
    assert torch.equal(record.seen["dense", None], shown.patches)


@pytest.mark.parametrize("name", [name for name in ALL if name != "LPOSS"])  # whose tower has windows of its own
def test_the_image_embedding_is_that_of_refocus_clip(planted, make_images, name):
    """An ordinary last block behind the refocused ones, whatever the head does to the patches."""
    images = make_images(2, 48, 100)
    method = Refocused(head=ALL[name](), distraction_dims=planted.dims)
    full, short = method(planted.vit, images, **words(method)).image, encode_image(method, planted.vit, images)
    reference = RefocusCLIP(planted.dims)(planted.vit, images).image
    torch.testing.assert_close(full, reference, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(short, reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", HEADS)
def test_autocast(planted, make_images, name):
    images = make_images(1, 80, 112)
    method = Refocused(head=HEADS[name][0], distraction_dims=planted.dims)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = method(planted.vit, images, **words(method)).patches.float()
    exact = method(planted.vit, images, **words(method)).patches
    assert torch.cosine_similarity(rounded, exact, dim=-1).median() > 0.97


def test_the_head_is_built_for_the_tower(build):
    block = {"type": "Refocused", "head": {"type": "SCCLIP", "contrast": 2}, "distraction_dims": [5, 23]}
    method = build(method=block).method  # of 3 blocks
    assert (method.head.pre_layer, method.head.post_layer, method.head.fusion_layers) == (1, 0, (0, 1))
    assert block["head"] == {"type": "SCCLIP", "contrast": 2}
    described = describe(method)
    assert described["type"] == "Refocused" and described["head"]["type"] == "SCCLIP"
    assert described["head"]["contrast"] == 2.0 and described["beta"] == 0.7
    assert build(method={"type": "Refocused", "head": {"type": "PEARL"}}).method.distraction_dims != "auto"


def test_what_the_head_needs_is_handed_on(build, make_images):
    block = {"type": "Refocused", "head": {"type": "ResCLIP", "label_threshold": 0.1}, "distraction_dims": [5, 23]}
    model = build(method=block, test_cfg={"mode": "slide", "crop_size": 64, "stride": 32})
    assert model.method.needs == {"text"}
    assert model.predict(make_images(1, 64, 100))[0].pred_sem_seg.data.shape == (1, 64, 100)
    assert Refocused(head=MeanKK()).needs == frozenset()


@pytest.mark.parametrize(
    ("entries", "error", "says"),
    [
        ({}, TypeError, "method Refocused lacks head: give head=.*; it takes"),
        ({"head": {"type": "RefocusCLIP"}}, ValueError, r"head must be a method .*: VanillaCLIP|.*got RefocusCLIP"),
        ({"head": {"type": "Refocused", "head": {"type": "MeanKK"}}}, ValueError, "got Refocused"),
        ({"head": "SCCLIP"}, ValueError, "NACLIP, .*SCCLIP, .*; got 'SCCLIP'"),
        ({"head": {"type": "SCLIPP"}}, ValueError, "did you mean 'SCLIP'"),
        ({"head": {"type": "MeanKK", "tau": 3}}, TypeError, "method MeanKK has an unknown entry 'tau'"),
        ({"head": {"type": "SCCLIP", "pre_layer": 8}}, ValueError, r"layers \[8\] are no outputs of blocks before"),
        ({"head": {"type": "MeanKK"}, "layers": "last"}, ValueError, "layers must be 'all' or a list of integers"),
        ({"head": {"type": "MeanKK"}, "layers": [0, 2]}, ValueError, r"layers \[2\] is the head's block: .*0..1"),
        ({"head": {"type": "MeanKK"}, "layers": [7]}, ValueError, r"layers \[7\] do not exist"),
        ({"head": {"type": "MeanKK"}, "beta": 2}, ValueError, "beta must be a number in 0..1"),
    ],
)
def test_wrong_settings_are_one_sentence(build, entries, error, says):
    with pytest.raises(error, match=says) as raised:
        build(method={"type": "Refocused", "distraction_dims": [], **entries})
    assert "\n" not in str(raised.value)


def test_it_is_found_in_mmsegs_registry_and_frozen():
    method = MODELS.build({"type": "Refocused", "head": {"type": "NACLIP", "sigma": 3}})
    assert method.head == methods.NACLIP(3) and method == METHODS.build({"type": "Refocused", "head": method.head})
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.head = MeanKK()
