"""Small random CLIPs and images that every test can build on; nothing here needs a network.

Fixtures named `make_*` and `plant` are functions: call them with your own sizes and seed.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # read when torch is imported, here and in the programs that tests start
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.transformer import QuickGELU, VisionTransformer
from safetensors.torch import save_file
from torch import Tensor, nn

import rfclip  # before any test imports mmseg
from rfclip.cost.weights import plant as plant_distractors
from tests.support import chromium
from tests.support.devices import wrap_imports

MMLogger.get_current_instance()  # holds on to the stdout of now, which outlives that of whichever test logs first
TENSOR_TESTS = ("test_refocus.py", "test_normalized_cut.py", "methods", "pipeline", "clip/test_towers.py")
PLANTED_DIMS = (5, 23, 42)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="run the tests of tensors, and no others, on this torch device")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where another device is asked for, leave out the tests that have no part in it."""
    if config.getoption("--device") != "cpu":
        places = [Path(__file__).parent / name for name in TENSOR_TESTS]
        chosen = [item for item in items if any(item.path == place or place in item.path.parents for place in places)]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device of --device."""
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(autouse=True)
def _there(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what a test module imports of rfclip work on the device of --device."""
    if request.config.getoption("--device") != "cpu":
        wrap_imports(request.module, request.getfixturevalue("device"), monkeypatch)


@pytest.fixture
def make_vit() -> Callable[..., VisionTransformer]:
    """make_vit(seed=0, image_size=(80, 112), **settings): patch 16, width 64, 4 layers, 4 heads, E = 32."""
    return _make_vit


@pytest.fixture
def tiny_vit() -> VisionTransformer:
    """A random ViT with native grid (5, 7). No bias is 0 and no LayerNorm is the identity."""
    return _make_vit()


@pytest.fixture
def make_images() -> Callable[..., Tensor]:
    """make_images(batch, height, width, seed=0): smooth random images (B, 3, height, width), variance 1."""
    return _make_images


@dataclass(frozen=True)
class Planted:
    """A ViT whose over-activated channels are known.

    At every boundary (ln_pre output, each block output) some patches have phi > 5/d in `dims`, not the same
    at all boundaries, and none has it in another channel.
    """

    vit: VisionTransformer
    dims: tuple[int, ...]


@pytest.fixture
def planted() -> Planted:
    """As tiny_vit, with planted channels: 3 to 10 % of make_images(4, 80, 112) patches are distractors."""
    return _plant(_make_vit(seed=1), PLANTED_DIMS)


@pytest.fixture
def plant() -> Callable[..., Planted]:
    """plant(vit, dims, seed=0): the same for any ViT of yours; the ViT is changed."""
    return _plant


@pytest.fixture
def random_clip() -> CLIP:
    """A random CLIP in OpenAI's layout: QuickGELU, head width 64, native grid (4, 4), full BPE vocabulary."""
    return _make_clip()


@pytest.fixture
def make_clip() -> Callable[..., CLIP]:
    """make_clip(seed=0, quick_gelu=True, **vision): as random_clip; the text tower is 64 wide, 2 deep."""
    return _make_clip


@pytest.fixture
def clip_files(tmp_path: Path) -> dict[str, Any]:
    """A random CLIP with planted channels on disk, as the `clip` block of a config."""
    clip = _make_clip()
    _plant(clip.visual, (5, 23))
    config = {
        "embed_dim": 32,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 128, "layers": 3},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
    }
    (tmp_path / "clip.json").write_text(json.dumps(config))
    state = {k: v.detach().contiguous() for k, v in clip.state_dict().items() if k != "attn_mask"}
    save_file(state, tmp_path / "clip.safetensors")
    return {"model": str(tmp_path / "clip.json"), "pretrained": str(tmp_path / "clip.safetensors")}


@pytest.fixture
def settings(clip_files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The config of an RFCLIP on the random CLIP, with known distraction dimensions."""
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "cache"))
    return {
        "type": "mmseg.RFCLIP",
        "clip": clip_files,
        "vocabulary": [["background", "wall"], ["cat"], ["dog", "puppy"]],
        "method": {"type": "RefocusCLIP", "distraction_dims": [5, 23]},
        "templates": ["a {}."],
    }


@pytest.fixture
def build(settings: dict[str, Any]) -> Callable[..., rfclip.RFCLIP]:
    """build(**changes) -> that RFCLIP, with other settings."""
    return lambda **changes: MODELS.build({**settings, **changes}).eval()


def _make_vit(seed: int = 0, image_size: tuple[int, int] = (80, 112), **settings: Any) -> VisionTransformer:
    sizes = {"patch_size": 16, "width": 64, "layers": 4, "heads": 4, "mlp_ratio": 4.0, "output_dim": 32}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vit = VisionTransformer(image_size=image_size, act_layer=QuickGELU, **{**sizes, **settings})
        return _randomise(vit)


def _make_clip(seed: int = 0, quick_gelu: bool = True, **vision: Any) -> CLIP:
    sizes = {"image_size": 64, "patch_size": 16, "width": 128, "layers": 3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text = CLIPTextCfg(width=64, heads=1, layers=2)
        clip = CLIP(32, CLIPVisionCfg(**{**sizes, **vision}), text, quick_gelu=quick_gelu)
        return _randomise(clip)


def _randomise(model: nn.Module) -> nn.Module:
    """Give every bias and LayerNorm a value that a forgotten term would betray; freeze the model."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(False)
        if name.endswith("bias"):
            parameter.normal_(std=0.1)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.weight.normal_(mean=1.0, std=0.1)
    return model.eval()


def _make_images(batch: int, height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, 3, height // 12 + 2, width // 12 + 2, generator=generator)
    images = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    return images / images.std()


def _plant(vit: VisionTransformer, dims: tuple[int, ...], seed: int = 0) -> Planted:
    images = _make_images(16, *vit.image_size, seed=seed + 1)
    plant_distractors(vit, dims, images, torch.Generator().manual_seed(seed), positions=0.06, contents=0.04)
    return Planted(vit, tuple(dims))


@pytest.fixture
def save_torchscript() -> Callable[[Mapping[str, Tensor], Path], None]:
    """save_torchscript(tensors, path): write an archive in the layout in which OpenAI publishes its CLIPs."""
    return _save_torchscript


class _Holder(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def _save_torchscript(tensors: Mapping[str, Tensor], path: Path) -> None:
    root = _Holder()
    for name, tensor in tensors.items():
        *parents, leaf = name.split(".")
        module: nn.Module = root
        for parent in parents:
            if parent not in dict(module.named_children()):
                module.add_module(parent, _Holder())
            module = module.get_submodule(parent)
        module.register_buffer(leaf, tensor)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*torch\.jit.* is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", r".*torch\.jit.* is deprecated", DeprecationWarning)
        traced = torch.jit.trace_module(root, {"forward": torch.zeros(1)}, check_trace=False)
        torch.jit.save(traced, path)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """A headless Chromium, driven by selenium."""
    driver = chromium.start(tmp_path / "profile")
    yield driver
    driver.quit()
