"""Vision models by type, loaded once and shared: the settings `vfm=dict(type='DINO', pretrained=..., heads=None)`."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from rfclip.checks import check_block, check_whole, near, shown
from rfclip.clip.weights import hash_file, hash_tensors
from rfclip.registry import Registry
from rfclip.vision import dino
from rfclip.vision.files import AUTO, find_weights, read_tensors

LOG = logging.getLogger(__name__)

VISION_MODELS = Registry("vfm", "final_patches")
_UNTESTED = {
    "dinov2": "its register tokens, LayerScale and patches of 14 are not told apart from patch tokens here yet",
    "dinov3": "its rotary positions and register tokens are not implemented here yet",
}
_SHARED: WeakValueDictionary[tuple[Any, ...], VisionModel] = WeakValueDictionary()


class VisionModel:
    """A frozen vision model and its accessors; the base of those in `VISION_MODELS`.

    It stands on the CPU, and on each device from which images came. Whoever holds it shares it: a copy is itself.

    Args:
        tensors: the weights by name.
        heads: of a block, or None for what the type's published models have.
        source: where the tensors come from, for messages.

    Attributes:
        mean, std: of the pictures that it was trained on, per RGB channel on 0..1.
        weights_hash: sha256 of the fp32 weights and the number of heads.
        patch: side of a patch in pixels.
        heads: attention heads of a block.
        width: channels of a token.

    Raises:
        WeightsError: the tensors are another model's.
    """

    mean: ClassVar[tuple[float, float, float]] = (0.485, 0.456, 0.406)
    std: ClassVar[tuple[float, float, float]] = (0.229, 0.224, 0.225)

    def __init__(self, tensors: Mapping[str, Tensor], heads: int | None, source: str) -> None:
        vit = self.build(tensors, heads, source)
        self._towers = {torch.device("cpu"): vit}
        self.patch, self.heads, self.width = dino.patch_size(vit), dino.num_heads(vit), dino.width(vit)
        self.weights_hash = hash_tensors(vit.state_dict(), f"{type(self).__name__} {self.heads}")

    def build(self, tensors: Mapping[str, Tensor], heads: int | None, source: str) -> VisionTransformer:
        """Return the tower of a state dict, frozen and in evaluation."""
        raise NotImplementedError

    def final_patches(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return the patch tokens (B, N, d) that leave the tower, normalised by its last norm, and the grid (h, w).

        Args:
            images: (B, 3, height, width), normalised by `mean` and `std`.
        """
        raise NotImplementedError

    def last_keys_values(self, images: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Return keys and values of the last block for the patches, each (B, H, N, d/H), and the grid (h, w)."""
        raise NotImplementedError

    @property
    def tower(self) -> VisionTransformer:
        """The tower on the CPU, as it was built."""
        return self.on(torch.device("cpu"))

    def on(self, device: torch.device) -> VisionTransformer:
        """The tower on a device."""
        tower = self._towers.get(device)
        if tower is None:  # of two threads that come here at once, one's copy stays
            tower = self._towers.setdefault(device, copy.deepcopy(self.tower).to(device))
        return tower

    def __copy__(self) -> VisionModel:
        return self

    def __deepcopy__(self, memo: object) -> VisionModel:
        return self


@VISION_MODELS.register
class DINO(VisionModel):
    """DINO's ViT: the release's state dict, or timm's, whose names are the same."""

    def build(self, tensors: Mapping[str, Tensor], heads: int | None, source: str) -> VisionTransformer:
        """Return timm's VisionTransformer with these weights; see :func:`rfclip.vision.dino.build`."""
        return dino.build(tensors, heads, source)

    def final_patches(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """See :func:`rfclip.vision.dino.final_patches`."""
        return dino.final_patches(self.on(images.device), images)

    def last_keys_values(self, images: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """See :func:`rfclip.vision.dino.last_keys_values`."""
        return dino.last_keys_values(self.on(images.device), images)


def check_vfm(name: str, value: object) -> dict[str, Any]:
    """Return the settings of a vision model as a plain dict of type, pretrained and heads.

    Raises:
        TypeError: no dict, an unknown entry, or one that is missing.
        ValueError: an unknown type, or an entry of the wrong kind.
    """

    def entries(type: str, pretrained: str | Path, heads: int | None = None) -> dict[str, Any]:
        return {"type": type, "pretrained": pretrained, "heads": heads}

    settings = entries(**check_block(name, value, entries))
    kind, pretrained, heads = settings.values()
    if not isinstance(kind, str) or VISION_MODELS.get(kind) is None:
        reason = _UNTESTED.get(str(kind).lower().replace("_", ""), "there is no such vision model here")
        raise ValueError(
            f"{name}.type {shown(kind)} cannot be used: {reason}{near(kind, VISION_MODELS.names())}; "
            f"there are {', '.join(VISION_MODELS.names())}"
        )
    if not isinstance(pretrained, (str, Path)) or not str(pretrained):
        raise ValueError(f"{name}.pretrained must be a name or the path of a file, got {shown(pretrained)}")
    checked = None if heads is None else check_whole(f"{name}.heads", heads, 1)
    return {"type": kind, "pretrained": str(pretrained), "heads": checked}


def load_vision(settings: Mapping[str, Any]) -> VisionModel:
    """Load a vision model, or return the one that somebody holds of the same file.

    Args:
        settings: as :func:`check_vfm` returns them, with a name or a file as `pretrained`.

    Raises:
        WeightsNotFoundError: there is no such file, or it cannot be downloaded.
        WeightsError: the weights are another model's, or have other heads.
        ValueError: `pretrained` is 'auto', which only a method that knows its CLIP can resolve.
    """
    kind, pretrained, heads = settings["type"], settings["pretrained"], settings["heads"]
    if pretrained == AUTO:
        raise ValueError(
            "vfm.pretrained='auto' hangs on the CLIP beside it: build the method through RFCLIP, OpenVocabSegmenter or "
            "rfclip.methods.build.build_method, or give a name or a file"
        )
    path = find_weights(pretrained)
    key = (kind, path.resolve(), hash_file(path), heads)
    model = _SHARED.get(key)
    if model is None:
        made: VisionModel = VISION_MODELS.get(kind)(read_tensors(path), heads, str(path))
        model = _SHARED.setdefault(key, made)
        LOG.info(
            f"Vision model {kind} from {path}: patches of {model.patch}, width {model.width}, {model.heads} heads."
        )
    return model
