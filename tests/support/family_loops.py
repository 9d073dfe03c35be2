"""SC-CLIP, SFP and PEARL written again as plain loops over one image, in fp64; nothing comes from the package."""

import math

import numpy as np

from tests.support.loops import neighbours, softmax, times


def streams(tower, image):
    """What each block but the last reads, what it leaves, and the grid."""
    x, grid = tower.embed(image)
    read, left = [], []
    for layer in range(tower.layers - 1):
        read.append(x)
        x = tower.ordinary(layer, x)
        left.append(x)
    return read, left, grid


def repair(tokens, damaged, grid, zero=False):
    out = tokens.copy()
    for i in range(len(tokens)):
        if damaged[i]:
            sound = [tokens[j] for j in neighbours(i, grid, centre=False) if not damaged[j]]
            if sound:
                out[i] = sum(sound) / len(sound)
            elif zero:
                out[i] = 0
    return out


def cosines(tokens):
    n = len(tokens)
    out = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            out[i, j] = tokens[i] @ tokens[j] / math.sqrt(tokens[i] @ tokens[i]) / math.sqrt(tokens[j] @ tokens[j])
    return out


def spread(similarity, values, threshold):
    out = np.zeros_like(values)
    for i, row in enumerate(similarity):
        kept = [s if s >= threshold else 0 for s in row]
        for s, value in zip(kept, values, strict=True):
            out[i] += s / (sum(kept) + 1e-6) * value
    return out


def contrasted(similarity, contrast):
    mean = similarity.sum() / similarity.size
    out = np.zeros_like(similarity)
    for i, row in enumerate(similarity):
        z = [contrast * (s - mean) for s in row]
        weights = [math.exp(value) if value >= 0 else 0 for value in z]
        out[i] = np.array(weights) / sum(weights)
    return out


def anomalous(tokens, neighbours_, contamination):
    n = len(tokens)
    count = min(neighbours_, n - 1)
    near, reach = [], []
    for i in range(n):
        ranked = sorted((((tokens[i] - tokens[j]) ** 2).sum(), j) for j in range(n) if j != i)[:count]
        near.append([j for _, j in ranked])
        reach.append(ranked[-1][0])
    factor = [reach[i] * sum(1 / reach[j] for j in near[i]) / count for i in range(n)]
    ordered, place = sorted(factor), (1 - contamination) * (n - 1)
    low = math.floor(place)
    quantile = ordered[low] + (place - low) * (ordered[min(low + 1, n - 1)] - ordered[low])
    return [a > quantile for a in factor]


def sc_clip(tower, image, pre, post, fusion, settings):
    _, left, grid = streams(tower, image)
    last, x, c = tower.layers - 1, left[-1][1:], left[-1][0]
    damaged = anomalous(x, settings["lof_neighbors"], settings["contamination"])
    similarity = cosines(repair(left[pre][1:], damaged, grid))
    mask = contrasted(similarity, settings["contrast"])

    def attend(tokens, class_token):
        _, k, v = tower.qkv(last, tokens)
        return tower.out_proj(last, times((softmax(k, k) + mask) / 2, v)) + settings["class_weight"] * class_token

    threshold = settings["similarity_threshold"]
    after = cosines(left[post][1:])
    fused = sum(left[layer] for layer in fusion)
    first = spread(after, attend(spread(similarity, repair(x, damaged, grid), threshold), c), threshold)
    second = spread(after, attend(fused[1:], fused[0]), threshold)
    return tower.project(first + second)


def salient(attention, settings):
    looked_at = [settings["class_weight"] * settings["salience"] * a for a in attention[0, 1:]]
    candidates = [i for i, a in enumerate(looked_at) if a > attention[i + 1, i + 1]]
    most = sorted(candidates, key=lambda i: -looked_at[i])[: settings["max_tokens"]]
    return [i in most for i in range(len(looked_at))]


def sfp(tower, image, version, pre, post, fusion, settings):
    read, left, grid = streams(tower, image)
    last, x, c = tower.layers - 1, left[-1][1:], left[-1][0]
    q, k, _ = tower.qkv(last - 1, read[-1])
    damaged = salient(softmax(q, k).mean(0), settings)
    fused = sum(left[layer] for layer in fusion)

    def out(attention, v, class_token):
        return tower.out_proj(last, times(attention, v)) + settings["class_weight"] * class_token

    def both(tokens):
        q, k, v = tower.qkv(last, tokens)
        return softmax(k, k) + softmax(q, q), v

    if version == "v1":
        (a, v), (b, w) = both(repair(x, damaged, grid, zero=True)), both(fused[1:])
        return tower.project(out(a / 2, v, c) + out(b / 2, w, fused[0]))
    threshold = settings["similarity_threshold"]
    similarity = cosines(repair(left[pre][1:], damaged, grid))
    similarity[similarity < threshold] = 0
    mask = contrasted(similarity, settings["contrast"])
    a, v = both(spread(similarity, repair(x, damaged, grid), threshold))
    after = cosines(left[post][1:])
    first = spread(after, out((a + mask) / 3, v, c), threshold)
    w = tower.qkv(last, fused[1:])[2]
    second = spread(after, out(np.stack([mask] * len(w)), w, fused[0]), threshold)
    return tower.project(first + second)


def polar(matrix, steps):
    product = matrix.T @ matrix
    norm = max(math.sqrt((product**2).sum()), 1e-6)
    identity = np.eye(len(matrix))
    y, z = product / norm + 1e-6 * identity, identity
    for _ in range(steps):
        step = (3 * identity - z @ y) / 2
        y, z = y @ step, step @ z
    return matrix @ z / math.sqrt(norm)


def pearl(tower, image, alpha, steps):
    _, left, _ = streams(tower, image)
    last = tower.layers - 1
    q, k, v = tower.qkv(last, left[-1])
    heads = []
    for h in range(tower.heads):
        weights = [0.0] + [math.sqrt(row @ row) for row in q[h, 1:]]
        weights = [w / (sum(weights) + 1e-6) for w in weights]
        centred = [m - sum(w * row for w, row in zip(weights, m, strict=True)) for m in (q[h], k[h])]
        rotated = k[h] @ polar(centred[1].T @ centred[0], steps)
        scores = (q[h] @ rotated.T + alpha * centred[1] @ centred[1].T) / math.sqrt(q.shape[-1])
        rows = [np.exp(row - row.max()) for row in scores]
        heads.append(np.stack([row / row.sum() for row in rows]))
    return tower.project(tower.out_proj(last, times(np.stack(heads), v))[1:])
