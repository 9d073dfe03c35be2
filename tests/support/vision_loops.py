"""DINO's ViT, ProxyCLIP and CASS written again as plain loops over one image, in fp64; nothing is the package's."""

import math

import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment

from tests.support.loops import cubic, softmax, times

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Dino:
    """A state dict of DINO's release as arrays, and its parts as loops over tokens."""

    def __init__(self, state, heads):
        self.state = {name: value.double().numpy() for name, value in state.items()}
        self.heads = heads
        self.layers = sum(name.endswith("attn.qkv.weight") for name in self.state)

    def norm(self, name, x):
        out = np.zeros_like(x)
        for i, token in enumerate(x):
            centred = token - token.mean()
            out[i] = centred / math.sqrt((centred**2).mean() + 1e-6)
        return out * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def linear(self, name, x):
        return np.stack([self.state[f"{name}.weight"] @ token + self.state[f"{name}.bias"] for token in x])

    def embed(self, image):
        kernel, bias = self.state["patch_embed.proj.weight"], self.state["patch_embed.proj.bias"]
        side = kernel.shape[-1]
        h, w = image.shape[1] // side, image.shape[2] // side
        table = self.positions((h, w))
        tokens = [self.state["cls_token"][0, 0] + table[0]]
        for y in range(h):
            for x in range(w):
                window = image[:, y * side : (y + 1) * side, x * side : (x + 1) * side]
                tokens.append((kernel * window).sum((1, 2, 3)) + bias + table[1 + y * w + x])
        return np.stack(tokens), (h, w)

    def positions(self, grid):
        table = self.state["pos_embed"][0]
        side = math.isqrt(len(table) - 1)
        if grid == (side, side):
            return table
        rows = [table[0]]
        for y in range(grid[0]):
            for x in range(grid[1]):
                total = 0
                for row, wy in cubic(y, (grid[0] + 0.1) / side, side):
                    for column, wx in cubic(x, (grid[1] + 0.1) / side, side):
                        total = total + wy * wx * table[1 + row * side + column]
                rows.append(total)
        return np.stack(rows)

    def qkv(self, layer, x):
        every = self.linear(f"blocks.{layer}.attn.qkv", self.norm(f"blocks.{layer}.norm1", x))
        size = x.shape[1] // self.heads
        parts = [every[:, part * x.shape[1] : (part + 1) * x.shape[1]] for part in range(3)]
        return [np.stack([part[:, h * size : (h + 1) * size] for h in range(self.heads)]) for part in parts]

    def block(self, layer, x):
        q, k, v = self.qkv(layer, x)
        heads = times(softmax(q, k), v)
        x = x + self.linear(f"blocks.{layer}.attn.proj", np.concatenate(list(heads), axis=1))
        hidden = self.linear(f"blocks.{layer}.mlp.fc1", self.norm(f"blocks.{layer}.norm2", x))
        hidden = hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) / 2
        return x + self.linear(f"blocks.{layer}.mlp.fc2", hidden)

    def final_patches(self, image):
        x, grid = self.embed(image)
        for layer in range(self.layers):
            x = self.block(layer, x)
        return self.norm("norm", x)[1:], grid

    def last_keys_values(self, image):
        x, grid = self.embed(image)
        for layer in range(self.layers - 1):
            x = self.block(layer, x)
        _, k, v = self.qkv(self.layers - 1, x)
        return k[:, 1:], v[:, 1:], grid


def per_channel(image, function):
    return np.stack([function(plane, channel) for channel, plane in enumerate(image)])


def bilinear(plane, size):
    """(h, w) -> size, align_corners False."""

    def taps(i, new, old):
        source = max((i + 0.5) * old / new - 0.5, 0)
        first = min(math.floor(source), old - 1)
        share = source - first
        return [(first, 1 - share), (min(first + 1, old - 1), share)]

    out = np.zeros(size)
    for y in range(size[0]):
        for x in range(size[1]):
            for row, wy in taps(y, size[0], plane.shape[0]):
                for column, wx in taps(x, size[1], plane.shape[1]):
                    out[y, x] += wy * wx * plane[row, column]
    return out


def on_grid(heads, grid, other):
    out = np.zeros((heads.shape[0], other[0] * other[1], heads.shape[2]))
    for h in range(heads.shape[0]):
        for c in range(heads.shape[2]):
            out[h, :, c] = bilinear(heads[h, :, c].reshape(grid), other).ravel()
    return out


def last_qkv(tower, image):
    x, grid = tower.embed(image)
    for layer in range(tower.layers - 1):
        x = tower.ordinary(layer, x)
    return [part[:, 1:] for part in tower.qkv(tower.layers - 1, x)], grid


def dense(tower, attention, v):
    return tower.project(tower.out_proj(tower.layers - 1, times(attention, v)))


def proxy_attention(similarity, beta, gamma):
    mean = similarity.sum() / similarity.size
    out = np.zeros_like(similarity)
    for i, row in enumerate(similarity):
        z = [gamma * (s - beta * mean) for s in row]
        weights = [math.exp(value) if value >= 0 else 0 for value in z]
        if not any(weights):
            weights[i] = 1
        out[i] = np.array(weights) / sum(weights)
    return out


def proxy_clip(tower, dino, image, beta, gamma):
    shown = per_channel(image, lambda plane, c: (plane * CLIP_STD[c] + CLIP_MEAN[c] - MEAN[c]) / STD[c])
    tokens, fine = dino.final_patches(shown)
    unit = np.stack([token / math.sqrt(token @ token) for token in tokens])
    similarity = np.array([[a @ b for b in unit] for a in unit])
    (_, _, v), grid = last_qkv(tower, image)
    attention = proxy_attention(similarity, beta, gamma)
    return dense(tower, np.stack([attention] * len(v)), on_grid(v, grid, fine)), fine


def mapped(values, low, high):
    return (values - values.min()) / (values.max() - values.min()) * (high - low) + low


def spectrum(graph, size):
    values = sorted(np.linalg.eigvalsh(graph), reverse=True)[: min(size, len(graph))]
    return np.array(values) / sum(abs(value) for value in values)


def low_rank(graph, rank, stretch):
    values, vectors = np.linalg.eigh(graph)
    kept = sorted(range(len(values)), key=lambda t: -values[t])[: min(rank, len(values))]
    most, least = values[kept[0]], values[kept[-1]]
    out = np.zeros_like(graph)
    for t in kept:
        s = values[t]
        if stretch:
            s = (s - least) / (most - least) * (1.5 * most - 0.5 * least) + 0.5 * least
        out += s * np.outer(vectors[:, t], vectors[:, t])
    return out


def cass_picture(image):
    bytes_ = per_channel(image, lambda plane, c: 255 * (plane * (0.229, 0.224, 0.255)[c] + MEAN[c]))
    pixels = np.trunc(bytes_.clip(0, 255)).astype(np.uint8).transpose(1, 2, 0)
    side = min(pixels.shape[:2])
    if pixels.shape[0] != pixels.shape[1]:
        pixels = np.array(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))
    return per_channel(pixels.transpose(2, 0, 1) / 255, lambda plane, c: (plane - MEAN[c]) / STD[c])


def pairing(one, other, size):
    """W, and for each row the column that it goes with."""
    w = np.array([[np.abs(spectrum(a, size) - spectrum(b, size)).sum() for b in other] for a in one])
    return w, linear_sum_assignment(-w.round(6))[1]


def cass(tower, dino, image, std, rank, size, balance, stretch):
    (_, k, v), grid = last_qkv(tower, image)
    seen, _, fine = dino.last_keys_values(cass_picture(image))
    seen = mapped(on_grid(seen, fine, grid), k.min(), k.max())
    scale = k.shape[2] ** -0.5
    clip_graphs = [scale * head @ head.T for head in k]
    seen_graphs = [scale * head @ head.T for head in seen]
    w, partner = pairing(seen_graphs, clip_graphs, size)
    n = grid[0] * grid[1]
    near = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            squared = (i // grid[1] - j // grid[1]) ** 2 + (i % grid[1] - j % grid[1]) ** 2
            near[i, j] = math.exp(-squared / (2 * std**2))
    attention = []
    for i, graph in enumerate(clip_graphs):
        low = low_rank(seen_graphs[partner[i]], rank, stretch)
        low = mapped(low - np.diag(np.diag(low)), graph.min(), graph.max())
        weight = balance * w[i, partner[i]]
        scores = (weight * low + graph) / (weight + 1) + near
        weights = np.exp(scores - scores.max(1, keepdims=True))
        attention.append(weights / weights.sum(1, keepdims=True))
    return dense(tower, np.stack(attention), v), grid
