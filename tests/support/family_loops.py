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


def feedback(labels, grid, std):
    """Semantic feedback of ResCLIP; the stops are computed in float32, as the released program does."""
    n, m = len(labels), max(grid) - 1
    places = [divmod(i, grid[1]) for i in range(n)]
    alike = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            steps = max(abs(places[i][0] - places[j][0]), abs(places[i][1] - places[j][1]))
            alike[i, j] = labels[i] == labels[j]
            for s in range(steps + 1) if m else ():
                t = np.float32(s) / np.float32(m)
                y, x = (
                    int(np.rint(np.float32(a) * (np.float32(1) - t) + np.float32(b) * t))
                    for a, b in zip(places[i], places[j], strict=True)
                )
                if labels[y * grid[1] + x] != labels[i]:
                    alike[i, j] *= math.exp(-steps / m)
                    break
    length = min(n, int(6 * std + 1))
    length += 1 - length % 2
    kernel = [math.exp(-((i - length // 2) ** 2) / (2 * std**2)) for i in range(length)]
    out = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            for place, weight in enumerate(kernel):
                other = j + place - length // 2
                if 0 <= other < n:
                    out[i, j] += weight / sum(kernel) * alike[i, other]
        out[i] /= out[i].sum() + 1e-8
    return out / out.max()


def resclip(tower, image, labels, grid, base, settings):
    """The second pass (with labels of the patches) or the first (None)."""
    read, left, _ = streams(tower, image)
    last, x, n = tower.layers - 1, left[-1], grid[0] * grid[1]
    q, k, v = tower.qkv(last, x)
    s = np.zeros((n + 1, n + 1))
    if labels is not None:
        s[1:, 1:] = feedback(labels, grid, settings["gaussian_std"])
    omega = np.zeros((n + 1, n + 1))
    for i in range(n):
        for j in range(n):
            (a, b), (c, d) = divmod(i, grid[1]), divmod(j, grid[1])
            omega[i + 1, j + 1] = math.exp(-((a - c) ** 2 + (b - d) ** 2) / (2 * settings["gaussian_std"] ** 2))

    def attend(left_, right, bias):
        heads = []
        for h in range(tower.heads):
            scores = left_[h] @ right[h].T / math.sqrt(right.shape[-1])
            if labels is not None:
                w = settings["sfr_weight"]
                scores = settings["sfr_scale"] * ((1 - w) * scores + w * s)
            rows = [np.exp(row - row.max()) for row in scores + bias]
            heads.append(np.stack([row / row.sum() for row in rows]))
        return np.stack(heads)

    attention = {
        "naclip": lambda: attend(k, k, omega),
        "sclip": lambda: attend(q, q, 0) + attend(k, k, 0),
        "clearclip": lambda: attend(q, q, 0),
        "vanilla": lambda: attend(q, k, 0),
    }[base]()
    if settings["rcs"]:
        earlier = [softmax(*tower.qkv(layer, read[layer])[:2]) for layer in settings["rcs_layers"]]
        mean = sum(earlier) / len(earlier)
        w = settings["rcs_weight"]
        attention = settings["rcs_scale"] * ((1 - w) * attention + w * mean)
    y = tower.out_proj(last, times(attention, v))
    if base in ("sclip", "vanilla"):
        y = x + y
        y = y + tower.mlp(last, y)
    return tower.project(y[1:])
