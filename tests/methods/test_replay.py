"""A method whose outputs are kept."""

import torch

from rfclip.methods.base import DenseOutput
from rfclip.methods.needs import Given
from rfclip.methods.replay import Replay


class Counts:
    """Counts its calls; encodes windows at once."""

    needs = frozenset({"windows"})

    def __init__(self):
        self.calls = []

    def __call__(self, vit, images, record=None, given=None):
        self.calls.append("one")
        return DenseOutput(images + len(self.calls), images[:, 0], (1, 1))

    def joined(self, vit, windows, record=None, given=None):
        self.calls.append("joined")
        return DenseOutput(windows + len(self.calls), windows[:, 0], given.corners[0])

    def image_embedding(self, vit, images):
        self.calls.append("image")
        return images + len(self.calls)

    def merged(self, maps, given):
        return maps + 1


def test_the_same_in_the_same_order():
    method, images = Counts(), torch.zeros(1, 3)
    replay = Replay(method)
    assert replay.needs == method.needs

    def outputs():
        given = Given(torch.empty(0, 0), 40.0, corners=((5, 7),))
        return [
            replay(None, images, None, given=given),
            replay.joined(None, images, None, given),
            replay.image_embedding(None, images),
            replay(None, images, None, given=given),
        ]

    first = outputs()
    again = [new is old for new, old in zip(replay.again() and outputs(), first, strict=True)]
    assert all(again) and method.calls == ["one", "joined", "image", "one"]
    assert first[1].grid == (5, 7)
    assert torch.equal(replay.merged(images, None), images + 1)
    outputs()
    assert len(method.calls) == 8
