"""A method whose outputs are kept, for those who look at one picture more than once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from open_clip.transformer import VisionTransformer
from torch import Tensor

from rfclip.methods.base import DenseOutput, Method, Recorder
from rfclip.methods.needs import Given, needs_of


class Replay:
    """Encodes each piece once, and gives it again in the same order.

    It holds what it has encoded, so it is for one picture. A method that needs the words gives the same again only
    for the same words.

    Args:
        method: what encodes.
    """

    def __init__(self, method: Method) -> None:
        self.needs = needs_of(method)
        self._method: Any = method
        self._kept: list[Any] = []
        self._place = 0
        if hasattr(method, "image_embedding"):
            self.image_embedding = self._image_embedding

    def again(self) -> Replay:
        """Start over; returns itself."""
        self._place = 0
        return self

    def __call__(self, vit: VisionTransformer, images: Tensor, record: Recorder | None = None, **given: Any) -> Any:
        """The method's output for the piece."""
        return self._next(partial(self._method, vit, images, record, **given))

    def joined(
        self, vit: VisionTransformer, windows: Tensor, record: Recorder | None = None, given: Given | None = None
    ) -> DenseOutput:
        """The method's output for all windows of the picture."""
        output: DenseOutput = self._next(lambda: self._method.joined(vit, windows, record, given))
        return output

    def merged(self, maps: Tensor, given: Given) -> Tensor:
        """What the method makes of merged maps; not kept, since they differ from call to call."""
        merged: Tensor = self._method.merged(maps, given)
        return merged

    def _image_embedding(self, vit: VisionTransformer, images: Tensor) -> Tensor:
        embedding: Tensor = self._next(partial(self._method.image_embedding, vit, images))
        return embedding

    def _next(self, make: Callable[[], Any]) -> Any:
        if self._place == len(self._kept):
            self._kept.append(make())
        self._place += 1
        return self._kept[self._place - 1]
