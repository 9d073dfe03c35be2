"""Train the tiny CLIP that ships with the package, on scenes of the sample world.

    python tools/train_tiny_clip.py --out rfclip/data/tiny_clip --minutes 60

It is a toy with the layout of OpenAI's CLIP, for a machine without downloads. Four losses, all on fresh scenes:

- captions: images against captions that name their regions (contrastive, as CLIP was trained);
- names: the image embedding against every name, the names in the scene being the targets;
- patches: the dense value path and the dense key-key path against every name, patch by patch;
- distraction: what large CLIPs grow by themselves and a small one does not. Patches with a glint are taught to be
  over-activated in two fixed channels and to draw attention from everywhere, so that there is something to refocus.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

import rfclip.clip.towers as V
from rfclip.clip.text import load_templates, load_vocabulary
from rfclip.io import sample_world

BENCHMARKS = ("voc21", "voc20", "context60", "context59", "coco_object", "coco_stuff", "cityscapes", "ade20k")
DISTRACTION_CHANNELS = (41, 137)
GLINT_ACTIVATION = 7.0  # in units of 1/d; a distractor is above tau = 5
PLAIN_ACTIVATION = 3.0
COMPETING = 160  # names that a step tells apart
GLINT_ATTENTION = 0.3  # share of a patch's attention that glints should draw, together
MEAN = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
STD = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)


class Scenes(IterableDataset):
    """Endless batches: images (B, 3, S, S) normalised, patch labels (B, N) with -1 where mixed, glints (B, N) bool."""

    def __init__(self, batch: int, side: int, patch: int, seed: int) -> None:
        self.batch, self.side, self.patch, self.seed = batch, side, patch, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        rng = np.random.default_rng(self.seed)
        layouts = [sample_world.layout((self.side, self.side), rng.integers(2, 10), rng) for _ in range(300)]
        while True:
            drawn = [self._scene(layouts[rng.integers(len(layouts))], rng) for _ in range(self.batch)]
            images, labels, glints = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
            yield (images.permute(0, 3, 1, 2) / 255 - MEAN) / STD, labels, glints

    def _scene(self, regions: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        regions = np.rot90(regions, rng.integers(4))
        names = rng.choice(len(sample_world.known_names()), regions.max() + 1, replace=False)
        spelled = [sample_world.known_names()[i] for i in names]
        period = sample_world.PERIOD * rng.uniform(0.75, 1.35)
        scene = sample_world.render(regions, spelled, rng, glint_share=rng.uniform(0, 0.08), period=period)
        return scene.image, self._patch_labels(names[regions]), self._patches(scene.glints).mean(-1) > 0.15

    def _patch_labels(self, labels: np.ndarray) -> np.ndarray:
        """The label of each patch, -1 where less than 80 % of its pixels agree with its median."""
        patches = np.sort(self._patches(labels), -1)
        middle = patches[:, patches.shape[-1] // 2]
        return np.where((patches == middle[:, None]).mean(-1) >= 0.8, middle, -1)

    def _patches(self, plane: np.ndarray) -> np.ndarray:
        """(S, S) -> (N, P*P)."""
        n, p = self.side // self.patch, self.patch
        return plane.reshape(n, p, n, p).transpose(0, 2, 1, 3).reshape(n * n, p * p)


class Captions:
    """Token ids of every name in every spelling and template, and of captions made of them."""

    def __init__(self) -> None:
        self.tokenize = open_clip.tokenizer.SimpleTokenizer()
        self.templates = load_templates("imagenet80")
        spellings: dict[str, set[str]] = {name: set() for name in sample_world.known_names()}
        for vocabulary in (b + suffix for b in BENCHMARKS for suffix in ("", "_clean")):
            for name in (*load_vocabulary(vocabulary).queries, *load_vocabulary(vocabulary).classes):
                spellings[sample_world.canonical(name)].add(name.strip())
        self.spellings = [sorted(spelled) for spelled in spellings.values()]
        self.encoded: dict[str, Tensor] = {}

    def ids(self, texts: list[str]) -> Tensor:
        """(count, longest) token ids; cutting the padding changes nothing, because attention is causal."""
        for text in texts:
            if text not in self.encoded:
                self.encoded[text] = self.tokenize([text])[0]
        stacked = torch.stack([self.encoded[text] for text in texts])
        return stacked[:, : int(stacked.argmax(-1).max()) + 1]

    def names(self, chosen: Tensor, rng: np.random.Generator) -> Tensor:
        """The chosen names (indices), each in a random spelling and template."""
        spelled = (self.spellings[i] for i in chosen.tolist())
        return self.ids(
            [self.templates[rng.integers(len(self.templates))].replace("{}", s[rng.integers(len(s))]) for s in spelled]
        )

    def caption(self, labels: Tensor, rng: np.random.Generator) -> str:
        """'a photo of a sky, a tree and a dog.' for up to five names of the scene."""
        present = labels[labels >= 0].unique().numpy()
        chosen = ["a " + self.spellings[i][0] for i in rng.permutation(present)[:5]]
        return "a photo of " + " and ".join(filter(None, [", ".join(chosen[:-1]), chosen[-1]])) + "."

    def used_ids(self) -> Tensor:
        """Sorted ids of every token that training may have seen."""
        texts = [t.replace("{}", s) for t in self.templates for spelled in self.spellings for s in spelled]
        return torch.cat([self.ids(["a, a and a."]).unique(), *(self.ids([t]).unique() for t in texts)]).unique()


def text_features(clip: nn.Module, ids: Tensor) -> Tensor:
    """(count, E) normalised text embeddings of ids cut to any length."""
    length = ids.shape[1]
    x = clip.token_embedding(ids) + clip.positional_embedding[:length]
    x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[:length, :length]))
    return F.normalize(x[torch.arange(len(x)), ids.argmax(-1)] @ clip.text_projection, dim=-1)


def image_features(vit: nn.Module, images: Tensor, glints: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One pass over the tower.

    Returns:
        image (B, E), value path (B, N, E), key-key path (B, N, E), all normalised, and the distraction loss.
    """
    x, _ = V.embed(vit, images)
    blocks = V.blocks(vit)
    key_key: Tensor | float = 0.0
    distraction = x.new_zeros(())
    for index, block in enumerate(blocks):
        q, k, v = V.qkv(block, x)
        key_key = key_key + V.softmax_attention(k, k) / len(blocks)
        attention = V.softmax_attention(q, k)
        value_path = V.attention_output(block, v)[:, 1:]
        x = V.add_mlp(block, x + V.attention_output(block, attention @ v))
        if index > 0:
            drawn = (attention[..., 1:, 1:] * glints[:, None, None].float()).sum(-1).mean(1)  # (B, N)
            distraction = distraction + 0.3 * (GLINT_ATTENTION - drawn).relu()[glints.any(-1)].mean()
        distraction = distraction + activation_loss(x[:, 1:], glints)
    dense = V.attention_output(blocks[-1], key_key[..., 1:, 1:] @ v[..., 1:, :])
    outputs = (V.project(vit, part) for part in (x[:, 0], value_path, dense))
    image, value, dense = (F.normalize(part, dim=-1) for part in outputs)
    return image, value, dense, distraction / len(blocks)


def activation_loss(patches: Tensor, glints: Tensor) -> Tensor:
    """Hinge on phi (in units of 1/d): high for glints in each distraction channel, low elsewhere in any channel."""
    shifted = patches - patches.amin(-1, keepdim=True)
    phi = shifted / shifted.sum(-1, keepdim=True) * patches.shape[-1]
    low = (GLINT_ACTIVATION - phi[..., list(DISTRACTION_CHANNELS)]).relu()[glints].sum()
    others = phi.amax(-1)
    high = (others - PLAIN_ACTIVATION).relu()[~glints].sum()
    return low / max(int(glints.sum()), 1) + high / glints.numel()


def competing_names(labels: Tensor, total: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """The names of a batch and as many others as make COMPETING, and the labels as indices into them (-1 stays)."""
    present = labels[labels >= 0].unique()
    others = np.setdiff1d(np.arange(total), present.numpy())
    extra = rng.choice(others, max(0, min(COMPETING - len(present), len(others))), replace=False)
    chosen = torch.cat([present, torch.from_numpy(extra)])
    position = torch.full((total + 1,), -1)
    position[chosen] = torch.arange(len(chosen))
    return chosen, position[labels]


def loss_of(
    clip: nn.Module, batch: tuple[Tensor, Tensor, Tensor], captions: Captions, rng: np.random.Generator
) -> dict[str, Tensor]:
    """The four losses of a batch, by name, and the share of patches that the key-key path names rightly."""
    images, labels, glints = batch
    image, value, dense, distraction = image_features(clip.visual, images, glints)
    written = text_features(clip, captions.ids([captions.caption(row, rng) for row in labels]))
    chosen, labels = competing_names(labels, len(captions.spellings), rng)
    names = text_features(clip, captions.names(chosen, rng))
    pure = labels >= 0
    present = F.one_hot(labels.clamp(min=0), len(names)).mul(pure[..., None]).sum(1).gt(3).float()
    pairs = clip.logit_scale.exp().clamp(max=100) * image @ written.T
    same = torch.arange(len(images))
    losses = {
        "captions": (F.cross_entropy(pairs, same) + F.cross_entropy(pairs.T, same)) / 2,
        "names": F.cross_entropy(20 * image @ names.T, present / present.sum(-1, keepdim=True).clamp(min=1)),
        "value": F.cross_entropy(20 * value[pure] @ names.T, labels[pure]),
        "key-key": F.cross_entropy(20 * dense[pure] @ names.T, labels[pure]),
        "distraction": distraction,
    }
    with torch.no_grad():
        losses["hit"] = (dense[pure] @ names.T).argmax(-1).eq(labels[pure]).float().mean()
    return losses


WEIGHTS = {"captions": 0.3, "names": 0.3, "value": 1.0, "key-key": 1.0, "distraction": 0.5}


def train(
    config: dict, minutes: float, batch: int, seed: int, rate: float, start: Path | None
) -> tuple[nn.Module, Captions]:
    """Train for a given time (the learning rate follows the clock: a short warm-up, then half a cosine)."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    clip = open_clip.CLIP(**config)
    if start is not None:
        go_on_from(clip, start)
    side, patch = config["vision_cfg"]["image_size"], config["vision_cfg"]["patch_size"]
    captions = Captions()
    optimizer = torch.optim.AdamW(clip.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.02)
    scenes = DataLoader(Scenes(batch, side, patch, seed + 1), batch_size=None, num_workers=1)
    began = time.monotonic()
    for step, drawn in enumerate(scenes):
        done = (time.monotonic() - began) / (60 * minutes)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * done))
        losses = loss_of(clip, drawn, captions, rng)
        optimizer.zero_grad()
        torch.stack([WEIGHTS[name] * losses[name] for name in WEIGHTS]).sum().backward()
        nn.utils.clip_grad_norm_(clip.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0:
            shown = "  ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
            print(f"{100 * done:5.1f} %  step {step:5d}  {shown}", flush=True)
    return clip, captions


def go_on_from(clip: nn.Module, weights: Path) -> None:
    """Load weights that :func:`save` wrote; token rows that were not kept stay random."""
    state = load_file(weights)
    rows = clip.token_embedding.weight.detach().clone()
    rows[state.pop("token_ids").long()] = state["token_embedding.weight"].float()
    clip.load_state_dict({**state, "token_embedding.weight": rows}, strict=False)


def save(clip: nn.Module, captions: Captions, out: Path) -> None:
    """Write tiny_clip.safetensors: fp16, and of the token embedding only the rows that were trained."""
    kept = captions.used_ids()
    state = {name: value.detach() for name, value in clip.state_dict().items() if name != "attn_mask"}
    state["token_embedding.weight"] = state["token_embedding.weight"][kept]
    tensors = {name: value.half().contiguous() for name, value in state.items()}
    tensors["token_ids"] = kept.int()
    save_file(tensors, out / "tiny_clip.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder that holds config.json; the weights are written there"
    )
    parser.add_argument("--minutes", type=float, default=60, help="how long to train")
    parser.add_argument("--start", type=Path, help="weights to go on from, e.g. an earlier tiny_clip.safetensors")
    parser.add_argument("--batch", type=int, default=8, help="scenes a step")
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = json.loads((args.out / "config.json").read_text(encoding="utf-8"))
    save(*train(config, args.minutes, args.batch, args.seed, args.rate, args.start), args.out)


if __name__ == "__main__":
    main()
