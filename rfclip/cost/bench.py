"""What the measurements share: the tower, the methods, the sizes, and the reference without a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from rfclip.benchmarks.configs import config, method_block
from rfclip.clip import towers as V
from rfclip.clip.loader import LoadedCLIP
from rfclip.clip.text import load_vocabulary
from rfclip.cost.weights import Tower, build_tower, random_vision, smooth_images
from rfclip.methods import METHODS, Method
from rfclip.methods.build import fit_layers
from rfclip.methods.vision import Sight, SightedMethod
from rfclip.pipeline.engine import DenseEngine
from rfclip.pipeline.prior import Prior
from rfclip.pipeline.queries import Queries
from rfclip.pipeline.settings import Settings
from rfclip.pipeline.windows import Windows
from rfclip.refiners import PAMR

Size = tuple[int, int]  # (height, width) in pixels
PROFILES = ("release", "paper")  # of the rows of speed, memory and precision
QUICK_MODEL: Mapping[str, Any] = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 64, "patch_size": 8, "width": 128, "layers": 3, "head_width": 32},
    "text_cfg": {"vocab_size": 64, "width": 32, "heads": 1, "layers": 1},
}


@dataclass(frozen=True)
class Case:
    """One image on its way through a benchmark's pipeline.

    Attributes:
        benchmark: whose settings and names, such as 'voc21'.
        seen: size of the network's input.
        labelled: size of the labels.
    """

    benchmark: str
    seen: Size
    labelled: Size


@dataclass(frozen=True)
class Scale:
    """How large everything is. The two scales have the same windows and names.

    Attributes:
        model: of the tower, an open_clip model name or a model config.
        name: to be printed.
        shrink: factor on all sizes in pixels.
    """

    model: str | Mapping[str, Any]
    name: str
    shrink: float = 1.0

    def pixels(self, side: int) -> int:
        """Return a side of the full scale in pixels of this one."""
        return round(side * self.shrink)

    def size(self, size: Size) -> Size:
        """Return a size of the full scale in pixels of this one."""
        return self.pixels(size[0]), self.pixels(size[1])


FULL = Scale("ViT-B-16", "ViT-B-16")
QUICK = Scale(QUICK_MODEL, "a toy tower (--quick): these numbers mean nothing", 2 / 7)  # windows of 64 pixels


@dataclass(frozen=True, eq=False)
class Bench:
    """A tower and what goes with it.

    Attributes:
        tower: random, with planted distractors.
        scale: sizes.
        device: of the tower.
    """

    tower: Tower
    scale: Scale
    device: torch.device

    @classmethod
    def build(cls, scale: Scale, device: str = "cpu") -> Bench:
        """Plant a tower of the scale's model."""
        tower = build_tower(scale.model)
        return cls(replace(tower, vit=tower.vit.to(device)), scale, torch.device(device))

    def images(self, batch: int, size: Size, seed: int = 7) -> Tensor:
        """Return smooth images (B, 3, height, width); `size` is of the full scale."""
        return smooth_images(batch, *self.scale.size(size), seed=seed).to(self.device)

    def method(self, name: str) -> Method:
        """Return the method of a profile, or a registered one, :func:`fitted` to the tower."""
        return fitted(name, self.tower)

    def settings(self, benchmark: str, pamr: bool = False) -> Settings:
        """Return the settings of a benchmark's config, with windows of this scale."""
        shipped = config(benchmark)
        windows = Windows(**shipped["test_cfg"])
        return Settings(
            windows=replace(
                windows,
                crop_size=self.scale.pixels(windows.crop_size),
                stride=self.scale.pixels(windows.stride),
            ),
            prior=Prior(**shipped["prior"]),
            refiner=PAMR() if pamr else None,
            logit_scale=shipped["logit_scale"],
            prob_thd=shipped["prob_thd"],
            background_index=shipped["background_index"],
            patch_fit=shipped["patch_fit"],
            keep_probs=shipped["keep_seg_logits"],
        )

    def engine(self, profile: str, settings: Settings, precision: str = "fp32") -> DenseEngine:
        """Return an engine round the tower with a profile's method; see :meth:`engine_of`."""
        return self.engine_of(self.method(profile), settings, precision)

    def engine_of(self, method: Method, settings: Settings, precision: str = "fp32") -> DenseEngine:
        """Return an engine round the tower; a text tower it has none, and its queries are random."""
        model = nn.Module()
        model.visual = self.tower.vit
        grey = (127.5,) * 3
        clip = LoadedCLIP(model, SimpleTokenizer(), grey, grey, self.scale.name, None, "", "QuickGELU")
        return DenseEngine(clip, method, settings, precision=precision)

    def queries(self, benchmark: str, settings: Settings) -> Queries:
        """Return random text embeddings for a benchmark's names: no text tower has to run."""
        words = load_vocabulary(benchmark)
        generator = torch.Generator().manual_seed(11)
        text = torch.randn(len(words.queries), self.tower.vit.output_dim, generator=generator)
        return Queries.of(F.normalize(text, dim=-1).to(self.device), words, settings)

    def to_labels(self, case: Case, profile: str, pamr: bool = False) -> Callable[[], Tensor]:
        """Return a task that takes one normalised image through the whole pipeline to its labels (H0, W0)."""
        engine = self.engine(profile, self.settings(case.benchmark, pamr))
        queries = self.queries(case.benchmark, engine.settings)
        images, size = self.images(1, case.seen), self.scale.size(case.labelled)

        def task() -> Tensor:
            maps = engine.cosine_maps(images, queries, on_grid=True)
            return engine.label_image(maps[0], images[0], size, queries).labels

        return task

    def window_batches(self, case: Case) -> list[Tensor]:
        """Return what the pipeline encodes for a case, in its batches; without the whole image of the prior."""
        windows = self.settings(case.benchmark).windows
        image = self.images(1, case.seen)[0]
        pieces = [image[:, y0:y1, x0:x1] for y0, x0, y1, x1 in windows.boxes(*image.shape[-2:])]
        batch = windows.window_batch
        return [torch.stack(pieces[start : start + batch]) for start in range(0, len(pieces), batch)]


def fitted(name: str, tower: Tower) -> Method:
    """Build a method for a tower; its distraction dimensions are the planted ones, its vision model random.

    Args:
        name: a profile or a registered method.
        tower: random, planted.

    Raises:
        ValueError: no such profile and no such method.
    """
    block = method_block(name)
    if hasattr(METHODS.get(block["type"]), "distraction_dims") and block.get("distraction_dims", "auto") == "auto":
        block["distraction_dims"] = tower.dims
    method = METHODS.build(block)
    if isinstance(method, SightedMethod):
        vision = random_vision(tower.vit, method.published_vision)
        method = method.with_sight(Sight(vision, *2 * (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)))
    return fit_layers(method, block, tower.vit)


@torch.no_grad()
def plain(vit: VisionTransformer, images: Tensor) -> Tensor:
    """Run the tower's blocks over the same tokens with fused attention, then ln_post and the projection: no method.

    Returns:
        (B, 1+N, E).
    """
    tokens, _ = V.embed(vit, images)
    for block in V.blocks(vit):
        tokens = V.run_block(block, tokens)
    return V.project(vit, tokens)
