"""In which precision the steps between half-precision tensors are computed."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_fp32(tensor: Tensor) -> torch.dtype:
    """The dtype to compute in: fp32 for half precision, the tensor's own otherwise."""
    return torch.promote_types(tensor.dtype, torch.float32)
