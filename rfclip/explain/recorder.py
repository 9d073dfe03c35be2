"""Named activations: what a dense method shows while it runs, kept by name and layer.

A method is called as `method(vit, images, record=recorder)` and shows its intermediate values under the names
that rfclip/methods/base.py documents with their shapes. A recorder keeps what it was asked for and nothing
else. It is an argument of one call: there are no hooks, so nothing can stay behind on the model, whatever
happens during the call. Without a recorder a method shows nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from rfclip.checks import check_indices

Key = tuple[str, int | None]
Reduction = Callable[[Tensor], Tensor]


class RecordingError(ValueError):
    """A recorder was used in a way that would lose or mix up values."""


class Recorder:
    """Keeps copies, on the CPU, of the values that it is shown.

    Args:
        names: names to keep; None: all.
        layers: 0-based layers to keep; None: all. What belongs to no layer is kept in any case.
        heads: of values whose name begins with 'attn_', (B, H, N, N): None keeps all heads, 'mean' their mean
            over H, (B, N, N), a list those heads.
        image: index in the batch to keep, which takes the batch axis away; None: all.
        reduce: name -> function applied to a value (after `heads` and `image`), such as a mean: what it returns
            is kept in the value's place.
        dtype: floating-point values are kept in it; None: as they come.
        max_bytes: most that is kept in all.

    Raises:
        ValueError: a setting is of the wrong kind.
    """

    def __init__(
        self,
        names: Collection[str] | None = None,
        layers: Collection[int] | None = None,
        heads: str | Collection[int] | None = None,
        image: int | None = None,
        reduce: Mapping[str, Reduction] | None = None,
        dtype: torch.dtype | None = None,
        max_bytes: int = 2 << 30,
    ) -> None:
        if isinstance(names, str):
            raise ValueError(f"names is a list of names, got the string {names!r}: write [{names!r}]")
        if isinstance(heads, str) and heads != "mean":
            raise ValueError(f"heads is None, 'mean' or a list of head indices, got {heads!r}")
        chosen = None if heads is None or isinstance(heads, str) else list(check_indices("heads", tuple(heads)))
        self._names = None if names is None else frozenset(names)
        self._layers = None if layers is None else frozenset(check_indices("layers", tuple(layers)))
        self._mean_head = heads == "mean"
        self._heads = chosen
        self._image = None if image is None else check_indices("image", [image])[0]
        self._reduce = dict(reduce or {})
        self._dtype = dtype
        self._max_bytes = max_bytes
        self._values: dict[Key, Tensor] = {}

    def wants(self, name: str, layer: int | None = None) -> bool:
        """Whether a value of this name and layer would be kept."""
        layer_wanted = self._layers is None or layer is None or layer in self._layers
        return layer_wanted and (self._names is None or name in self._names)

    def record(self, name: str, layer: int | None, value: Tensor) -> None:
        """Take a value (called by methods). The value is copied, so later changes of it do not matter.

        Raises:
            RecordingError: the value is there already, does not fit the settings, or is too large.
        """
        if not self.wants(name, layer):
            return
        if (name, layer) in self._values:
            raise RecordingError(
                f"{_shown(name, layer)} was recorded before: take a new Recorder for each pass (an image that "
                "is cut into windows makes several)"
            )
        kept = self._kept(name, layer, value.detach())
        if self.nbytes + _nbytes(kept) > self._max_bytes:
            raise RecordingError(
                f"with {_shown(name, layer)} {tuple(kept.shape)} more than max_bytes={self._max_bytes} would be "
                "kept: choose names, layers, heads='mean', one image, or a reduction; or raise max_bytes"
            )
        self._values[name, layer] = kept

    def _kept(self, name: str, layer: int | None, value: Tensor) -> Tensor:
        """Cut down and copy."""
        if self._mean_head and name.startswith("attn_"):
            value = value.float().mean(1)
        if self._heads is not None and name.startswith("attn_"):
            _check_index("heads", self._heads, value.shape[1], name, layer)
            value = value[:, self._heads]
        if self._image is not None:
            _check_index("image", [self._image], len(value), name, layer)
            value = value[self._image]
        if name in self._reduce:
            value = self._reduce[name](value)
        dtype = self._dtype if self._dtype is not None and value.is_floating_point() else value.dtype
        return value.to("cpu", dtype, copy=True).contiguous()

    @property
    def values(self) -> Mapping[Key, Tensor]:
        """What was kept, read-only: (name, layer) -> tensor; layer is None for what belongs to no layer."""
        return MappingProxyType(self._values)

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return sum(map(_nbytes, self._values.values()))

    def layers_of(self, name: str) -> list[int]:
        """The layers of which a name was kept, ascending."""
        return sorted(layer for kept, layer in self._values if kept == name and layer is not None)

    def names(self) -> list[str]:
        """The names that were kept, in the order in which they came."""
        return list(dict.fromkeys(name for name, _ in self._values))

    def stack(self, name: str) -> Tensor:
        """All layers of a name, ascending, as one tensor (layers, ...).

        Raises:
            KeyError: nothing of that name was kept.
        """
        layers = self.layers_of(name)
        if not layers:
            raise KeyError(self._missing(name, None))
        return torch.stack([self._values[name, layer] for layer in layers])

    def __getitem__(self, key: Key | str) -> Tensor:
        name, layer = (key, None) if isinstance(key, str) else key
        try:
            return self._values[name, layer]
        except KeyError:
            raise KeyError(self._missing(name, layer)) from None

    def get(self, name: str, layer: int | None = None) -> Tensor | None:
        """What was kept of a name and layer, or None."""
        return self._values.get((name, layer))

    def __contains__(self, key: Key | str) -> bool:
        return ((key, None) if isinstance(key, str) else key) in self._values

    def __iter__(self) -> Iterator[Key]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def _missing(self, name: str, layer: int | None) -> str:
        there = ", ".join(self.names()) or "nothing"
        return f"{_shown(name, layer)} was not recorded; recorded: {there}, layers of {name!r}: {self.layers_of(name)}"


def _nbytes(value: Tensor) -> int:
    return value.nelement() * value.element_size()


def _shown(name: str, layer: int | None) -> str:
    return repr(name) if layer is None else f"{name!r} of layer {layer}"


def _check_index(what: str, wanted: list[int], size: int, name: str, layer: int | None) -> None:
    outside = [index for index in wanted if index >= size]
    if outside:
        raise RecordingError(f"{what} {outside} do not exist in {_shown(name, layer)}, which has {size}")
