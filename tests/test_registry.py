"""Types by name, with and without mmsegmentation's registry."""

from dataclasses import dataclass

import pytest
from mmengine.registry import Registry as MmengineRegistry

from rfclip.methods import METHODS
from rfclip.registry import Registry


@dataclass(frozen=True)
class Sharpen:
    amount: float = 1.0


def test_a_shared_registry_knows_what_came_before_and_after():
    ours, theirs = Registry("filter"), MmengineRegistry("theirs")
    ours.register(Sharpen)
    ours.share(theirs)
    ours.share(theirs)

    @ours.register
    class Later:
        pass

    @theirs.register_module()
    class Theirs:
        pass

    assert theirs.get("Sharpen") is Sharpen
    assert theirs.get("Later") is Later
    assert ours.get("Theirs") is Theirs
    assert ours.get("mmseg.Later") is Later
    assert ours.names() == ("Sharpen", "Later")


def test_blocks_become_objects_and_stay_as_they_are():
    ours = Registry("filter")
    ours.register(Sharpen)
    block = {"type": "Sharpen", "amount": 2.0, "note": "x"}
    assert ours.build(block, also=("note",)) == ours.build({"type": Sharpen, "amount": 2.0}) == Sharpen(2.0)
    assert block == {"type": "Sharpen", "amount": 2.0, "note": "x"}


@pytest.mark.parametrize(
    ("block", "error", "says"),
    [
        ("Sharpen", TypeError, r"filter must be a dict such as dict\(type='Sharpen'\), got 'Sharpen'"),
        ({"type": "Sharpn"}, ValueError, r"filter.type 'Sharpn' is not registered.*Sharpen.*there are Sharpen"),
        ({}, ValueError, "filter.type None is not registered"),
        ({"type": "Sharpen", "amonut": 2}, TypeError, "filter Sharpen has an unknown entry 'amonut'.*amount"),
    ],
)
def test_wrong_blocks_are_one_sentence(block, error, says):
    ours = Registry("filter")
    ours.register(Sharpen)
    with pytest.raises(error, match=says):
        ours.build(block)


def test_the_methods_are_listed_by_their_registry():
    assert METHODS.names()[:2] == ("RefocusCLIP", "RefocusCLIPRelease")
    assert set(METHODS.names()) - set(METHODS.complete()) >= {"Refocused", "ProxyCLIP"} and "SFP" in METHODS.complete()
    assert {"MeanKK", "NACLIP", "ClearCLIP", "SCLIP", "MaskCLIP", "VanillaCLIP"} < set(METHODS.names())


@pytest.mark.parametrize("name", ["FCNHead", "ResNet", "EncoderDecoder"])
def test_what_mmseg_has_beside_methods_is_no_method(name):
    import mmseg.models  # noqa: F401  (registers them)

    with pytest.raises(TypeError, match=f"method.type '{name}' is no method, which defines"):
        METHODS.build({"type": name})
