"""What mmengine's runner needs beside the model: a progress bar, and a wrapper for several processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODEL_WRAPPERS
from torch import nn
from tqdm import tqdm


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """A bar with images per second and time left while a test runs; nothing is shown off a terminal."""

    bar: tqdm | None = None

    def before_test_epoch(self, runner: Any) -> None:
        """Open the bar, at the images that an earlier run finished."""
        if is_main_process():
            total = len(runner.test_dataloader.dataset)
            todo = len(runner.test_dataloader.sampler) * get_world_size()
            self.bar = tqdm(total=total, initial=max(total - todo, 0), unit="image", disable=None)

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Move on by a batch of each process."""
        if self.bar is not None and outputs is not None:
            done = len(outputs) * get_world_size()
            self.bar.update(min(done, int(self.bar.total) - int(self.bar.n)))

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


@MODEL_WRAPPERS.register_module()
class FrozenDistributed(nn.Module):
    """Stands where DistributedDataParallel would, for a model without anything to train.

    torch's own wrapper refuses a frozen model. The processes exchange nothing but their results.

    Args:
        module: The model.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module: Any = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model."""
        return self.module(*args, **kwargs)

    def test_step(self, data: Any) -> Any:
        """Predict a batch."""
        return self.module.test_step(data)

    def val_step(self, data: Any) -> Any:
        """Predict a batch."""
        return self.module.val_step(data)
