"""GLA-CLIP and LPOSS written again as plain loops over one image, in fp64; nothing comes from the package."""

import math

import numpy as np

from tests.support.loops import cubic
from tests.support.vision_loops import CLIP_MEAN, CLIP_STD, MEAN, STD, bilinear, dense, last_qkv, on_grid, per_channel


def unit(rows):
    return np.stack([row / math.sqrt(row @ row) for row in rows])


def rgb_of(image):
    return per_channel(image, lambda plane, channel: plane * CLIP_STD[channel] + CLIP_MEAN[channel])


def for_dino(rgb):
    return per_channel(rgb, lambda plane, channel: (plane - MEAN[channel]) / STD[channel])


def proxies(keys, threshold, iterations):
    """(T, T) cosines of the proxies with all patches, and the members (T,) of each."""
    cosines, members = keys @ keys.T, None
    for _ in range(iterations):
        rows, members = [], []
        for row in cosines:
            near = [j for j, value in enumerate(row) if value > threshold]
            rows.append(sum(keys[j] for j in near))
            members.append(len(near))
        cosines = unit(rows) @ keys.T
    return cosines, members


def joint_attention(cosines, members, windows, beta_alpha, gamma_alpha):
    beta = 1 + beta_alpha * math.log(1 + windows)
    out = np.zeros_like(cosines)
    for i, row in enumerate(cosines):
        mean = max(0, sum(row) / len(row))
        z = [(1 + gamma_alpha / members[i]) * (value - beta * mean) for value in row]
        weights = [0 if value < min(0, max(z)) else math.exp(value) for value in z]
        out[i] = np.array(weights) / sum(weights)
    return out


def gla_clip(tower, dino, windows, threshold, iterations, beta_alpha, gamma_alpha):
    """Dense embeddings (n, S, E) of the windows of one image."""
    keys, values = [], []
    for window in windows:
        tokens, fine = dino.final_patches(for_dino(rgb_of(window)))
        (_, _, v), grid = last_qkv(tower, window)
        keys.append(unit(tokens))
        values.append(on_grid(v, grid, fine))
    keys, values = np.concatenate(keys), np.concatenate(values, 1)
    attention = joint_attention(*proxies(keys, threshold, iterations), len(windows), beta_alpha, gamma_alpha)
    return dense(tower, np.stack([attention] * len(values)), values).reshape(len(windows), math.prod(fine), -1), fine


def patch_weights(features, positions, neighbors, gamma, sigma):
    count = len(features)
    directed = np.zeros((count, count))
    for i in range(count):
        ranked = sorted(range(count), key=lambda j: -(features[i] @ features[j]))
        for j in ranked[: min(neighbors, count)]:
            apart = math.dist(positions[i], positions[j])
            directed[i, j] = max(features[i] @ features[j], 0) ** gamma * math.exp(-sigma * apart)
    weights = directed + directed.T
    np.fill_diagonal(weights, 0)
    return weights


def pixel_weights(colours, tau, reach):
    height, width, _ = colours.shape
    weights = np.zeros((height * width,) * 2)
    for y in range(height):
        for x in range(width):
            for v in range(max(0, y - reach), min(height, y + reach + 1)):
                for u in range(max(0, x - reach), min(width, x + reach + 1)):
                    if (v, u) != (y, x):
                        weights[y * width + x, v * width + u] = math.exp(-math.dist(colours[y, x], colours[v, u]) / tau)
    return weights


def propagate(weights, labels, alpha, iterations, tolerance):
    degrees = [total if total else 1 for total in weights.sum(1)]
    matrix = np.eye(len(weights))
    for i in range(len(weights)):
        for j in range(len(weights)):
            matrix[i, j] -= alpha * weights[i, j] / math.sqrt(degrees[i] * degrees[j])
    return np.stack([conjugate_gradients(matrix, column, iterations, tolerance) for column in labels.T], 1)


def conjugate_gradients(matrix, right, iterations, tolerance):
    """The textbook's."""
    x, r = np.zeros_like(right), right.copy()
    p = r.copy()
    for _ in range(iterations):
        if math.sqrt(r @ r) <= tolerance * math.sqrt(right @ right):
            break
        step = (r @ r) / (p @ matrix @ p)
        x, before = x + step * p, r @ r
        r = r - step * (matrix @ p)
        p = r + (r @ r) / before * p
    return x


def lab(colour):
    """CIELAB (L / 100, a / 128, b / 128) of one sRGB colour in 0..1."""
    r, g, b = (((c + 0.055) / 1.055) ** 2.4 if c > 0.04045 else c / 12.92 for c in colour)
    xyz = (
        (0.412453 * r + 0.357580 * g + 0.180423 * b) / 0.95047,
        (0.212671 * r + 0.715160 * g + 0.072169 * b) / 1.0,
        (0.019334 * r + 0.119193 * g + 0.950227 * b) / 1.08883,
    )
    x, y, z = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in xyz)
    return (116 * y - 16) / 100, 500 * (x - y) / 128, 200 * (y - z) / 128


def lposs_features(tower, dino, window):
    """CLIP's dense embeddings (N, E), their grid, DINO's values (S, d'), normalised, and theirs."""
    table = tower.positions
    tower.positions = lambda grid: by_size(tower, grid)
    x, grid = tower.embed(window)
    tower.positions = table
    for layer in range(tower.layers - 1):
        x = tower.ordinary(layer, x)
    last = tower.layers - 1
    x = x + tower.out_proj(last, tower.qkv(last, x)[2])
    x = x + tower.mlp(last, x)
    _, values, fine = dino.last_keys_values(for_dino(rgb_of(window)))
    return tower.project(x)[1:], grid, unit(np.concatenate(list(values), axis=1)), fine


def by_size(tower, grid):
    """The positional table for a grid, resized bicubically by the output size."""
    table, (h0, w0), (h, w) = tower.state["positional_embedding"], tower.native, grid
    if grid == tower.native:
        return table
    rows = [table[0]]
    for y in range(h):
        for x in range(w):
            rows.append(
                sum(
                    wy * wx * table[1 + row * w0 + column]
                    for row, wy in cubic(y, h / h0, h0)
                    for column, wx in cubic(x, w / w0, w0)
                )
            )
    return np.stack(rows)


def lposs(tower, dino, patch, windows, corners, text, settings):
    """Scores (n, Q, h', w') of the windows of one image."""
    features, positions, nodes = [], [], []
    for window, (top, left) in zip(windows, corners, strict=True):
        embedded, grid, values, fine = lposs_features(tower, dino, window)
        embedded = unit(embedded)
        if grid != fine:
            planes = embedded.T.reshape(-1, *grid)
            embedded = unit(np.stack([bilinear(plane, fine).ravel() for plane in planes]).T)
        features.append(values)
        nodes.append(embedded)
        for y in range(fine[0]):
            for x in range(fine[1]):
                positions.append((top + patch / 2 + patch * y, left + patch / 2 + patch * x))
    weights = patch_weights(
        np.concatenate(features), positions, settings["neighbors"], settings["gamma"], settings["sigma"]
    )
    cosines = np.concatenate(nodes) @ text.T
    found = propagate(weights, cosines, settings["alpha"], settings["iterations"], settings["tolerance"])
    return found.reshape(len(windows), *fine, -1).transpose(0, 3, 1, 2)
