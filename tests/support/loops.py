"""Sections 3, 4 and 9 of the method, written again as plain loops, one image at a time, in fp64.

Nothing here comes from the package: the weights are read from open_clip's modules, and images, layers, heads,
tokens and neighbours are loops. Each rendering also returns its intermediate values under the names that
`rfclip.methods.base` gives to recorders: {(name, layer): array}.
"""

import math

import numpy as np
import scipy.linalg

AROUND = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


class Tower:
    """The weights of a vision tower as arrays, and its parts as loops over tokens."""

    def __init__(self, vit):
        self.state = {name: value.double().numpy() for name, value in vit.state_dict().items()}
        self.patch = vit.patch_size[0]
        self.native = vit.grid_size
        self.layers = len(vit.transformer.resblocks)
        self.heads = vit.transformer.resblocks[0].attn.num_heads

    def block(self, layer, name):
        return self.state[f"transformer.resblocks.{layer}.{name}"]

    def norm(self, x, weight, bias):
        out = np.zeros_like(x)
        for i, token in enumerate(x):
            centred = token - token.mean()
            out[i] = centred / math.sqrt((centred**2).mean() + 1e-5) * weight + bias
        return out

    def embed(self, image):
        """(3, H, W) -> (1+N, d), (h, w)."""
        side = self.patch
        h, w = image.shape[1] // side, image.shape[2] // side
        kernel = self.state["conv1.weight"]
        table = self.positions((h, w))
        tokens = [self.state["class_embedding"] + table[0]]
        for y in range(h):
            for x in range(w):
                window = image[:, y * side : (y + 1) * side, x * side : (x + 1) * side]
                tokens.append((kernel * window).sum((1, 2, 3)) + table[1 + y * w + x])
        x = np.stack(tokens)
        return self.norm(x, self.state["ln_pre.weight"], self.state["ln_pre.bias"]), (h, w)

    def positions(self, grid):
        """Section 4.6: bicubic, by scale factors (h + 0.1) / h0."""
        table = self.state["positional_embedding"]
        if grid == self.native:
            return table
        (h, w), (h0, w0) = grid, self.native
        rows = [table[0]]
        for y in range(h):
            for x in range(w):
                total = 0
                for row, wy in cubic(y, (h + 0.1) / h0, h0):
                    for column, wx in cubic(x, (w + 0.1) / w0, w0):
                        total = total + wy * wx * table[1 + row * w0 + column]
                rows.append(total)
        return np.stack(rows)

    def qkv(self, layer, x):
        """(T, d) -> three of (H, T, d/H)."""
        normed = self.norm(x, self.block(layer, "ln_1.weight"), self.block(layer, "ln_1.bias"))
        weight, bias = self.block(layer, "attn.in_proj_weight"), self.block(layer, "attn.in_proj_bias")
        every = np.stack([weight @ token + bias for token in normed])  # (T, 3d)
        d = x.shape[1]
        size = d // self.heads
        return [
            np.stack([every[:, part * d + h * size : part * d + (h + 1) * size] for h in range(self.heads)])
            for part in range(3)
        ]

    def out_proj(self, layer, heads):
        """(H, T, d/H) -> (T, d)."""
        weight, bias = self.block(layer, "attn.out_proj.weight"), self.block(layer, "attn.out_proj.bias")
        return np.stack([weight @ np.concatenate(heads[:, i]) + bias for i in range(heads.shape[1])])

    def mlp(self, layer, x):
        normed = self.norm(x, self.block(layer, "ln_2.weight"), self.block(layer, "ln_2.bias"))
        out = np.zeros_like(x)
        for i, token in enumerate(normed):
            hidden = self.block(layer, "mlp.c_fc.weight") @ token + self.block(layer, "mlp.c_fc.bias")
            hidden = hidden / (1 + np.exp(-1.702 * hidden))
            out[i] = self.block(layer, "mlp.c_proj.weight") @ hidden + self.block(layer, "mlp.c_proj.bias")
        return out

    def finish_block(self, layer, x, attention):
        """Attention (H, T, T) of a block -> its output (T, d)."""
        x = x + self.out_proj(layer, times(attention, self.qkv(layer, x)[2]))
        return x + self.mlp(layer, x)

    def ordinary(self, layer, x):
        q, k, _ = self.qkv(layer, x)
        return self.finish_block(layer, x, softmax(q, k))

    def project(self, x):
        return self.norm(x, self.state["ln_post.weight"], self.state["ln_post.bias"]) @ self.state["proj"]


def cubic(position, scale, size):
    """The four taps (index, weight) of bicubic resampling, a = -0.75, clamped at the border."""
    source = (position + 0.5) / scale - 0.5
    first = math.floor(source)
    taps = []
    for offset in (-1, 0, 1, 2):
        t = abs(source - (first + offset))
        a = -0.75
        weight = (a + 2) * t**3 - (a + 3) * t**2 + 1 if t <= 1 else a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
        taps.append((min(max(first + offset, 0), size - 1), weight))
    return taps


def softmax(q, k, bias=None):
    """softmax(scale q k^T + bias) per head and row: (H, T, T)."""
    heads, tokens, size = q.shape
    out = np.zeros((heads, tokens, tokens))
    for h in range(heads):
        for i in range(tokens):
            row = k[h] @ q[h, i] / math.sqrt(size)
            if bias is not None:
                row = row + bias[i]
            row = np.exp(row - row.max())
            out[h, i] = row / row.sum()
    return out


def times(attention, v):
    """A V per head: (H, R, T), (H, T, d/H) -> (H, R, d/H)."""
    return np.stack([[row @ v[h] for row in attention[h]] for h in range(len(v))])


def patch_block(attention):
    return attention[:, 1:, 1:]


def mean_of(items):
    total = 0
    for item in items:
        total = total + item
    return total / len(items)


def phi(patches, dims):
    out = np.zeros(len(patches))
    for i, token in enumerate(patches):
        shifted = token - min(token)
        out[i] = max((shifted[j] / max(sum(shifted), 1e-8) for j in dims), default=0)
    return out


def fiedler(a):
    """Section 3, step 2: y of the head mean a (N, N), oriented."""
    if len(a) < 2:
        return np.zeros(len(a))
    s = (a + a.T) / 2
    degrees = np.diag(s.sum(1))
    y = scipy.linalg.eigh(degrees - s, degrees)[1][:, 1]
    y = y / math.sqrt(sum(y**2))
    return y if y[int(np.abs(y).argmax())] > 0 else -y


def defocused(y, distractors):
    return np.array([bool(len(y) > 1 and y[i] > y.mean() and not distractors[i]) for i in range(len(y))])


def redistribute(attention, distractors, defocus, beta):
    """Section 3, step 3, for the patch-patch block (H, N, N)."""
    out = attention.copy()
    n = len(distractors)
    receive = [j for j in range(n) if defocus[j]] or [j for j in range(n) if not distractors[j]]
    for h in range(len(attention)):
        for i in range(n):
            row = attention[h, i]
            received = sum(row[j] for j in receive)
            if received == 0:
                continue
            omega = beta * sum(row[j] for j in range(n) if distractors[j])
            for j in range(n):
                if distractors[j]:
                    out[h, i, j] = (1 - beta) * row[j]
                elif j in receive:
                    out[h, i, j] = row[j] + omega * row[j] / received
    return out


def neighbours(i, grid, centre):
    h, w = grid
    y, x = divmod(i, w)
    return [
        (y + dy) * w + x + dx
        for dy, dx in AROUND
        if (centre or (dy, dx) != (0, 0)) and 0 <= y + dy < h and 0 <= x + dx < w
    ]


def moderate(patches, distractors, dims, grid):
    """Section 3, step 3, for the embedding."""
    out = patches.copy()
    for i in range(len(patches)):
        around = neighbours(i, grid, centre=False)
        if distractors[i] and around:
            for j in dims:
                out[i, j] = sum(patches[n, j] for n in around) / len(around)
    return out


def smooth(patches, distractors, grid, alpha):
    """Section 4.1."""
    out = patches.copy()
    for i in range(len(patches)):
        if distractors[i]:
            out[i] = (1 - alpha) * patches[i] + alpha * sum(patches[n] for n in neighbours(i, grid, True)) / 9
    return out


def refocus_clip(vit, image, dims, tau, beta, layers):
    """Section 3; layers: the set of 0-based block indices. Returns (patches, image embedding, trace)."""
    tower, trace = Tower(vit), {}
    x, grid = tower.embed(image)
    last = tower.layers - 1
    kk = []
    for layer in range(tower.layers):
        trace["residual", layer] = x
        trace["phi", layer] = phi(x[1:], dims)
        distractors = trace["distractors", layer] = trace["phi", layer] > tau / x.shape[1]
        if layer - 1 in layers:
            x = np.concatenate([x[:1], moderate(x[1:], distractors, dims, grid)])
            trace["residual_refocused", layer] = x
        q, k, v = tower.qkv(layer, x)
        trace["attn_kk", layer] = softmax(k, k)
        kk.append(patch_block(trace["attn_kk", layer]))
        attention = trace["attn_qk", layer] = softmax(q, k)
        if layer == last:
            break
        if layer in layers:
            y = trace["fiedler", layer] = fiedler(mean_of(kk[-1]))
            defocus = trace["defocus", layer] = defocused(y, distractors)
            attention = attention.copy()
            attention[:, 1:, 1:] = redistribute(patch_block(attention), distractors, defocus, beta)
            trace["attn_refocused", layer] = attention
        x = tower.finish_block(layer, x, attention)
    dense = trace["attn_dense", None] = mean_of(kk)
    if last in layers:
        y = trace["fiedler", last] = fiedler(mean_of(dense))
        defocus = trace["defocus", last] = defocused(y, distractors)
        dense = trace["attn_dense_refocused", None] = redistribute(dense, distractors, defocus, beta)
    trace["dense", None] = tower.project(tower.out_proj(last, times(dense, v[:, 1:])))
    trace["residual", last + 1] = tower.ordinary(last, x)
    trace["image", None] = tower.project(trace["residual", last + 1])[0]
    return trace["dense", None], trace["image", None], trace


def release(vit, image, dims, tau=5.0, alpha=0.4, threshold=0.4):
    """Section 4. Returns (patches, image embedding, trace)."""
    tower, trace = Tower(vit), {}
    x, grid = tower.embed(image)
    last = tower.layers - 1

    def look(layer, x):
        trace["residual", layer] = x
        trace["phi", layer] = phi(x[1:], dims)
        trace["distractors", layer] = trace["phi", layer] > tau / x.shape[1]

    look(0, x)
    kk, outputs = [], []
    for layer in range(tower.layers):
        q, k, _ = tower.qkv(layer, x)
        trace["attn_qk", layer], trace["attn_kk", layer] = softmax(q, k), softmax(k, k)
        if layer == last:
            before_last = x
        else:
            kk.append(patch_block(trace["attn_kk", layer]))
        x = tower.finish_block(layer, x, trace["attn_qk", layer])
        look(layer + 1, x)
        x = np.concatenate([x[:1], smooth(x[1:], trace["distractors", layer + 1], grid, alpha)])
        trace["residual_refocused", layer + 1] = x
        outputs.append(x)
    trace["image", None] = tower.project(x)[0]
    guide = trace["guide", None] = mean_of(outputs)
    n = len(guide) - 1
    c = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            a, b = guide[1 + i], guide[1 + j]
            cosine = a @ b / math.sqrt(a @ a) / math.sqrt(b @ b)
            c[i, j] = 0 if cosine < threshold else cosine
    trace["similarity", None] = c
    outs = []
    for stream in (before_last, guide):
        t = stream.copy()
        for i in range(n):
            t[1 + i] = sum(c[i, j] * stream[1 + j] for j in range(n))
        _, k, v = tower.qkv(last, t)
        attention = mean_of([*kk, patch_block(softmax(k, k))])
        outs.append(tower.out_proj(last, times(attention, v[:, 1:])))
    trace["dense", None] = tower.project(mean_of(outs))
    return trace["dense", None], trace["image", None], trace


def baseline(vit, image, name):
    """Section 9; vit may be a tower already. Returns (patches, image embedding)."""
    tower = vit if isinstance(vit, Tower) else Tower(vit)
    x, (h, w) = tower.embed(image)
    last = tower.layers - 1
    kk = []
    for layer in range(last):
        _, k, _ = tower.qkv(layer, x)
        kk.append(patch_block(softmax(k, k)))
        x = tower.ordinary(layer, x)
    q, k, v = tower.qkv(last, x)
    output = tower.ordinary(last, x)
    if name == "VanillaCLIP":
        patches = output[1:]
    elif name == "MaskCLIP":
        patches = tower.out_proj(last, v)[1:]
    elif name == "SCLIP":
        patches = tower.finish_block(last, x, softmax(q, q) + softmax(k, k))[1:]
    elif name == "ClearCLIP":
        patches = tower.out_proj(last, times(softmax(q, q), v))[1:]
    elif name == "NACLIP":
        omega = np.zeros((1 + h * w, 1 + h * w))
        for i in range(h * w):
            for j in range(h * w):
                distance = math.dist(divmod(i, w), divmod(j, w))
                omega[1 + i, 1 + j] = math.exp(-(distance**2) / (2 * 5**2))
        patches = tower.out_proj(last, times(softmax(k, k, omega), v))[1:]
    elif name == "MeanKK":
        attention = mean_of([*kk, patch_block(softmax(k, k))])
        patches = tower.out_proj(last, times(attention, v[:, 1:]))
    else:
        raise KeyError(name)
    return tower.project(patches), tower.project(output)[0]
