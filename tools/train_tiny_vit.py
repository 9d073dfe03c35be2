"""Train the tiny vision models that ship with the package, without labels, on scenes of the sample world.

    python tools/train_tiny_vit.py --patch 8 --out rfclip/data/tiny_vit
    python tools/train_tiny_vit.py --patch 16 --out rfclip/data/tiny_vit

A toy with the layout of DINO, for a machine without downloads. What it is taught: to find, for each patch of a view of
a scene, the patch that lies there in another view, among all patches of other scenes. Views are shifted crops in
another light, so a patch's phase, shade and place cannot be told from one view to the other, and what it belongs to
can; other patches of the same scene, which may belong to the same thing, are no wrong answers. Blocks of other scenes
are put into every view, so that no patch is told by its company. The final tokens and the last
block's keys and values are taught alike, since methods read all three. The same seed, steps and number of threads give
the same weights.

At the end it prints, on scenes that it never saw, what the final tokens, keys and values are worth, beside those of the
untrained tower: the share of patches whose nearest patch of another scene has the same look, and how often two patches
of one region are more alike than two of different regions of a scene (0.5: by chance).
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from rfclip.io import sample_world
from rfclip.vision import dino
from rfclip.vision.model import VisionModel

SIZES = {8: {"width": 192, "heads": 3, "side": 8}, 16: {"width": 128, "heads": 2, "side": 8}}  # by patch
DEPTH = 2
READ = ("token", "key", "value")
BLOCK = 2  # patches
TEMPERATURE = 0.1
MEAN = torch.tensor(VisionModel.mean).view(3, 1, 1)
STD = torch.tensor(VisionModel.std).view(3, 1, 1)


class Views(NamedTuple):
    """Two views of scenes, and which patches of them lie together.

    Attributes:
        first, second: (B, 3, S, S), normalised.
        partner: (B, N), for each patch of the first the patch of the second that holds its centre, or -1.
    """

    first: Tensor
    second: Tensor
    partner: Tensor


class Scenes:
    """Endless pairs of views; no label of a scene is looked at."""

    def __init__(self, patch: int, side: int, seed: int) -> None:
        self.patch, self.side, self.pixels = patch, side, patch * side
        self.whole = self.pixels + 4 * patch
        self.rng = np.random.default_rng(seed)
        self.layouts = [
            sample_world.layout((self.whole, self.whole), self.rng.integers(2, 8), self.rng) for _ in range(300)
        ]

    def scene(self) -> tuple[np.ndarray, np.ndarray]:
        """A picture (H, W, 3) uint8 and the names' numbers (H, W), which training leaves aside."""
        rng = self.rng
        regions = np.rot90(self.layouts[rng.integers(len(self.layouts))], rng.integers(4))
        names = rng.choice(len(sample_world.known_names()), regions.max() + 1, replace=False)
        spelled = [sample_world.known_names()[i] for i in names]
        period = sample_world.PERIOD * rng.uniform(0.75, 1.35)
        drawn = sample_world.render(regions, spelled, rng, glint_share=rng.uniform(0, 0.06), period=period)
        return drawn.image, names[regions]

    def batches(self, count: int) -> Iterator[Views]:
        """Pairs of views of `count` scenes each."""
        while True:
            drawn = [self._pair() for _ in range(count)]
            first, second, partner = (torch.stack(part) for part in zip(*drawn, strict=True))
            yield Views(first, second, partner)

    def _pair(self) -> tuple[Tensor, Tensor, Tensor]:
        image, _ = self.scene()
        corners = self.rng.integers(0, self.whole - self.pixels + 1, (2, 2))
        first, second = (self._view(image, corner) for corner in corners)
        centres = (np.arange(self.side) + 0.5) * self.patch
        rows, columns = ((centres + shift) // self.patch for shift in corners[0] - corners[1])
        inside = [(index >= 0) & (index < self.side) for index in (rows, columns)]
        partner = np.where(inside[0][:, None] & inside[1], rows[:, None] * self.side + columns, -1)
        return first, second, torch.from_numpy(partner.ravel().astype(np.int64))

    def _view(self, image: np.ndarray, corner: np.ndarray) -> Tensor:
        """A crop in another light, with noise of its own."""
        top, left = corner
        crop = torch.from_numpy(image[top : top + self.pixels, left : left + self.pixels].copy()).permute(2, 0, 1) / 255
        light = torch.from_numpy(self.rng.uniform(0.9, 1.1, (3, 1, 1)).astype(np.float32))
        noise = torch.from_numpy(self.rng.normal(0, 0.02, crop.shape).astype(np.float32))
        return ((crop * light + noise).clamp(0, 1) - MEAN) / STD


def features(vit: VisionTransformer, images: Tensor) -> dict[str, Tensor]:
    """What methods read of the patches: final tokens, and the last block's joined keys and values, each (B, N, d)."""
    tokens, _ = dino.embed(vit, images)
    *earlier, last = vit.blocks
    for block in earlier:
        tokens = dino.run_block(block, tokens)
    _, k, v = dino.qkv(last, tokens)
    final = vit.norm(dino.run_block(last, tokens))
    joined = (part.transpose(1, 2).flatten(2) for part in (k, v))
    return {name: part[:, 1:] for name, part in zip(READ, (final, *joined), strict=True)}


def untrained(patch: int) -> VisionTransformer:
    """A tower of random weights."""
    size = SIZES[patch]
    vit = dino.skeleton(depth=DEPTH, hidden=size["width"], patch=patch, **size)
    for name, weight in vit.named_parameters():
        if weight.ndim > 1:
            nn.init.trunc_normal_(weight, std=0.02 if name in ("cls_token", "pos_embed") else 0.05)
        elif name.endswith("bias"):
            nn.init.zeros_(weight)
    return vit


def mixed(images: Tensor, patch: int, shift: int) -> tuple[Tensor, Tensor]:
    """Put blocks of other scenes into images, so that no patch is told by the company it is in.

    Args:
        images: (B, 3, S, S), an image of each scene.
        patch: side of a patch in pixels.
        shift: image b gets blocks of image b - shift.

    Returns:
        The images, and the scene of each patch (B, N).
    """
    batch, side = len(images), images.shape[-1] // patch
    blocks = torch.rand(batch, 1, side // BLOCK, side // BLOCK) < 0.5
    foreign = F.interpolate(blocks.float(), scale_factor=BLOCK) > 0.5  # (B, 1, side, side)
    pixels = F.interpolate(foreign.float(), scale_factor=patch) > 0.5
    scene = torch.where(
        foreign.flatten(1), (torch.arange(batch) - shift)[:, None] % batch, torch.arange(batch)[:, None]
    )
    return torch.where(pixels, images.roll(shift, 0), images), scene


def loss_of(vit: VisionTransformer, views: Views) -> Tensor:
    """Cross-entropy of finding a patch's partner among those of other scenes, both ways, over all that is read."""
    patch = dino.patch_size(vit)
    (first, scenes), (second, others) = mixed(views.first, patch, 1), mixed(views.second, patch, 2)
    image, place = (views.partner >= 0).nonzero(as_tuple=True)
    partner = views.partner[image, place]
    kept = (scenes[image, place] == image) & (others[image, partner] == image)
    image, place, partner = image[kept], place[kept], partner[kept]
    losses = []
    for read in features(vit, torch.cat([first, second])).values():
        one, two = F.normalize(read, dim=-1).chunk(2)
        right = (one[image, place] * two[image, partner]).sum(-1, keepdim=True)  # (M, 1)
        for near, far, owner in ((one[image, place], two, others), (two[image, partner], one, scenes)):
            wrong = (near @ far.flatten(0, 1).T).masked_fill(owner.flatten() == image[:, None], -torch.inf)
            scores = torch.cat([right, wrong], 1) / TEMPERATURE
            losses.append(F.cross_entropy(scores, torch.zeros(len(near), dtype=torch.long)))
    return torch.stack(losses).mean()


def train(patch: int, steps: int, batch: int, rate: float, seed: int) -> VisionTransformer:
    """Train for a number of steps: a short warm-up, then half a cosine."""
    torch.manual_seed(seed)
    vit = untrained(patch)
    optimizer = torch.optim.AdamW(vit.parameters(), lr=rate, weight_decay=0.02)
    began = time.monotonic()
    for step, views in zip(range(steps), Scenes(patch, SIZES[patch]["side"], seed + 1).batches(batch), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss = loss_of(vit, views)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vit.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step:5d}  loss {loss.item():.3f}  {time.monotonic() - began:5.0f} s", flush=True)
    return vit


@torch.no_grad()
def worth(vit: VisionTransformer, scenes: int = 40, seed: int = 10_000) -> dict[str, tuple[float, float]]:
    """What is read of patches is worth: (share with the right nearest neighbour, share of pairs in the right order)."""
    patch = dino.patch_size(vit)
    world = Scenes(patch, SIZES[patch]["side"], seed)
    images, labels, owners = [], [], []
    for number in range(scenes):
        image, names = world.scene()
        images.append(
            (torch.from_numpy(image[: world.pixels, : world.pixels].copy()).permute(2, 0, 1) / 255 - MEAN) / STD
        )
        planes = names[: world.pixels, : world.pixels].reshape(world.side, patch, world.side, patch).swapaxes(1, 2)
        planes = planes.reshape(world.side**2, -1)
        labels.append(torch.from_numpy(np.where((planes == planes[:, :1]).all(1), planes[:, 0], -1)))
        owners.append(torch.full((world.side**2,), number))
    label, owner = torch.cat(labels), torch.cat(owners)
    pure = label >= 0
    label, owner = label[pure], owner[pure]
    elsewhere, inside = owner[:, None] != owner, owner[:, None] == owner
    same = label[:, None] == label
    findable = (same & elsewhere).any(1)
    found = {}
    for name, read in features(vit, torch.stack(images)).items():
        unit = F.normalize(read.flatten(0, 1)[pure], dim=-1)
        cosines = unit @ unit.T
        nearest = cosines.masked_fill(~elsewhere, -2).argmax(1)
        alike, unlike = cosines[inside & same], cosines[inside & ~same]
        draw = torch.Generator().manual_seed(0)
        pairs = (part[torch.randint(len(part), (100_000,), generator=draw)] for part in (alike, unlike))
        found[name] = (
            (label[nearest] == label)[findable].float().mean().item(),
            torch.gt(*pairs).float().mean().item(),
        )
    return found


def save(vit: VisionTransformer, path: Path) -> None:
    """Write the tower's state dict in half precision."""
    save_file({name: value.detach().half().contiguous() for name, value in vit.state_dict().items()}, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, choices=sorted(SIZES), required=True, help="side of a patch in pixels")
    parser.add_argument("--out", type=Path, required=True, help="folder; tiny8.safetensors or tiny16.safetensors")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=8, help="scenes a step")
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    random = worth(untrained(args.patch))
    vit = train(args.patch, args.steps, args.batch, args.rate, args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    save(vit, args.out / f"tiny{args.patch}.safetensors")
    for name, (retrieved, ordered) in worth(vit).items():
        before = random[name]
        print(
            f"{name}: nearest patch {retrieved:.3f} (untrained {before[0]:.3f}), pairs {ordered:.3f} ({before[1]:.3f})"
        )


if __name__ == "__main__":
    main()
