"""A settings block becomes a dense method that fits the weights."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from open_clip.transformer import VisionTransformer

from rfclip.checks import shown
from rfclip.clip.loader import LoadedCLIP
from rfclip.clip.towers import num_layers
from rfclip.methods.base import METHODS, Method
from rfclip.methods.distraction import resolve_distraction_dims
from rfclip.methods.vision import SightedMethod, load_sight, resolved_vfm

LOG = logging.getLogger(__name__)


def build_method(settings: Mapping[str, Any] | None, loaded: LoadedCLIP) -> Method:
    """Build a dense method and give it what belongs to the weights: distraction dimensions, layers, a vision model.

    A `head` in the block that is itself the block of a method is built first, in the same way.

    Args:
        settings: `type` and the method's own arguments; `calibration_images` (a folder) serves 'auto' dimensions.
            None: RefocusCLIP.
        loaded: the CLIP.

    Raises:
        TypeError: no dict, an unknown argument, or a registered type that is no method.
        ValueError: an unknown type, or settings that do not fit the tower (see :func:`fit_layers`).
        WeightsError: the weights of its vision model are not here, or another model's.
    """
    block = {"type": "RefocusCLIP"} if settings is None else settings
    head = block.get("head") if isinstance(block, Mapping) else None
    if isinstance(head, Mapping):
        block = {**block, "head": build_method(head, loaded)}
    method = METHODS.build(block, also=("calibration_images",))
    folder = block.get("calibration_images")
    if folder is not None and not isinstance(folder, (str, Path)):
        raise TypeError(f"calibration_images must be the path of a folder, got {shown(folder)}")
    dims = getattr(method, "distraction_dims", None)
    if folder is not None and not isinstance(dims, str):
        raise ValueError(
            f"calibration_images={folder!r} would not be looked at: it serves the distraction_dims='auto' of a method "
            f"that has them, and this is {method}"
        )
    if dims is not None:
        method = dataclasses.replace(method, distraction_dims=resolve_distraction_dims(loaded, dims, folder))
    if isinstance(method, SightedMethod):
        method = dataclasses.replace(method, vfm=resolved_vfm(method, loaded))  # type: ignore[type-var]  # a dataclass
        method = method.with_sight(load_sight(method.vfm, loaded))
    return fit_layers(method, block, loaded.model.visual)


def fit_layers(method: Method, given: Mapping[str, Any], vit: VisionTransformer) -> Method:
    """Bring the layers that a method names to the depth of a tower.

    Layers (block outputs or blocks before the last) that are not given are those of the tower the method was
    published with, D blocks deep. On one of L blocks, layer l becomes the nearest whole number to l (L-2) / (D-2),
    halves up, so that the output before the last block stays that; of a list each layer once. What is given is taken
    as it is.

    Args:
        method: as it was built.
        given: the settings block that it was built from.
        vit: the tower.

    Raises:
        ValueError: from the method's `check_tower`: the tower does not have a layer, or something else it needs.
    """
    depth = num_layers(vit)
    scaled: dict[str, Any] = {}
    fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(method) if dataclasses.is_dataclass(method) else ()
    for each in fields:
        published = each.metadata.get("depth", depth)
        if published != depth and given.get(each.name) is None:
            layers = getattr(method, each.name)
            scaled[each.name] = (
                scale_layer(layers, depth, published)
                if isinstance(layers, int)
                else tuple(dict.fromkeys(scale_layer(layer, depth, published) for layer in layers))
            )
    if scaled:
        fitted: Any = dataclasses.replace(method, **scaled)  # type: ignore[type-var]  # a dataclass
        method = fitted.with_sight(method.sight) if isinstance(method, SightedMethod) else fitted
        listed = ", ".join(f"{name}={value}" for name, value in scaled.items())
        LOG.info(f"{type(method).__name__} on a tower of {depth} blocks: {listed}, scaled from its published layers.")
    if hasattr(method, "check_tower"):
        method.check_tower(vit)
    return method


def scale_layer(layer: int, depth: int, published: int) -> int:
    """Return where a layer of a tower of `published` blocks lies in one of `depth` blocks, both at least 3.

    Example:
        >>> [scale_layer(layer, depth=24, published=12) for layer in (3, 8, 10)]
        [7, 18, 22]
    """
    return (2 * layer * (depth - 2) + published - 2) // (2 * (published - 2))
