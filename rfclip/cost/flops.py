"""Arithmetic and parameters, counted while the real thing runs.

torch's FlopCounterMode counts matrix products and convolutions, two operations per multiply-add, and nothing
else: no element-wise arithmetic, no softmax, no normalisation. It does not know the fused attention of the CPU and
the in-place products, and would count them as nothing; they are added here, and so are the factorisations of the
normalised cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from rfclip.benchmarks.configs import method_block, profiles
from rfclip.clip.architecture import build
from rfclip.cost.bench import Size, fitted, plain
from rfclip.cost.weights import Tower, build_tower, model_config, smooth_images
from rfclip.methods import METHODS
from rfclip.methods.needs import needs_of

BACKBONES = ("ViT-B-16", "ViT-L-14", "ViT-H-14")
SIZES: tuple[Size, ...] = ((224, 224), (336, 448))


@dataclass(frozen=True)
class Cost:
    """What one image costs.

    Attributes:
        backbone: open_clip model name.
        method: class name of the method, or 'plain': the tower without a method.
        size: (height, width) of the image in pixels.
        flops: operations, two per multiply-add; text tower and labels not included.
        tower_parameters: of the image tower.
        clip_parameters: of both towers.
    """

    backbone: str
    method: str
    size: Size
    flops: int
    tower_parameters: int
    clip_parameters: int


def count_flops(task: Callable[[], object]) -> int:
    """Count the operations of a task: matrix products, convolutions, attention and factorisations."""
    counter = FlopCounterMode(display=False, custom_mapping=_MISSING)
    with counter, _WithoutOut():
        task()
    return counter.get_total_flops()


class _WithoutOut(TorchDispatchMode):
    """Hands the counter an operation without its `out`, of which that of torch 2.3 makes a TypeError."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not isinstance(kwargs.get("out"), Tensor):
            return func(*args, **kwargs)
        rest = {name: value for name, value in kwargs.items() if name != "out"}
        return kwargs["out"].copy_(func.overloadpacket(*args, **rest))


def count_parameters(model: str | Mapping[str, Any]) -> tuple[int, int]:
    """Return the parameters of a model's image tower, and of both towers; no memory is needed."""
    with torch.device("meta"):
        clip = build(model_config(model), True, "the backbone")
    return count(clip.visual), count(clip)


def measure(model: str | Mapping[str, Any], name: str) -> list[Cost]:
    """Count every method on a model, on planted weights so that no work is skipped; `name` is to be printed."""
    tower = build_tower(model)
    parameters = count_parameters(model)
    return [
        Cost(name, method, size, count_flops(task), *parameters)
        for size in SIZES
        for method, task in _tasks(tower, smooth_images(1, *size, seed=7)).items()
    ]


def counted() -> tuple[str, ...]:
    """The methods of the profiles that need the tower and nothing else, neither words nor a vision model."""
    kinds = {method_block(name)["type"] for name in profiles()}
    return tuple(name for name in METHODS.complete() if name in kinds and not needs_of(METHODS.get(name)))


def _tasks(tower: Tower, images: Tensor) -> dict[str, Callable[[], object]]:
    methods = {name: fitted(name, tower) for name in counted()}
    return {"plain": partial(plain, tower.vit, images)} | {n: partial(m, tower.vit, images) for n, m in methods.items()}


def count(module: torch.nn.Module) -> int:
    """Count a module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _added_product(_: torch.Size, left: torch.Size, right: torch.Size, *__: Any, **___: Any) -> int:
    """(..., m, k) times (..., k, n)."""
    return 2 * left.numel() * right[-1]


def _vector(matrix: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * matrix.numel()


_MISSING = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten.baddbmm_: _added_product,
    torch.ops.aten.addmm_: _added_product,
    torch.ops.aten.addbmm: _added_product,
    torch.ops.aten.addmv: lambda _, matrix, *__, **___: _vector(matrix),
    torch.ops.aten.mv: _vector,
    torch.ops.aten.dot: _vector,
    # n^3 / 3, and 9 n^3 for all eigenvectors (Golub and Van Loan, Matrix Computations, sections 4.2 and 8.3)
    torch.ops.aten.linalg_cholesky_ex: lambda matrix, *_, **__: matrix.numel() * matrix[-1] // 3,
    torch.ops.aten._linalg_eigh: lambda matrix, *_, **__: 9 * matrix.numel() * matrix[-1],
}
