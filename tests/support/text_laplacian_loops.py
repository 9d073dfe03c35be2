"""TextLaplacian written again as plain loops over one image, in fp64; nothing comes from the package."""

import math

import numpy as np


def softmax(values):
    powers = [math.exp(value - max(values)) for value in values]
    return np.array(powers) / sum(powers)


def factor(side, grid):
    """side / grid to the nearest whole number, halves to the even one, at least 1."""
    below, rest = divmod(side, grid)
    up = 2 * rest > grid or (2 * rest == grid and below % 2 == 1)
    return max(1, below + up)


def block_means(maps, fy, fx):
    q, height, width = maps.shape
    out = np.zeros((q, height // fy, width // fx))
    for index in np.ndindex(out.shape):
        for dy in range(fy):
            for dx in range(fx):
                out[index] += maps[index[0], index[1] * fy + dy, index[2] * fx + dx] / (fy * fx)
    return out


def name_weights(text, temperature, self_weight):
    out = []
    for i in range(len(text)):
        row = list(softmax([text[i] @ other / temperature for other in text]))
        row[i] += self_weight
        out.append(row[i] / (sum(row) + 1e-6))
    return out


def clamped(value):
    return min(1.0, max(0.0, value))


def system(logits, image, weights, sharpness, floor):
    """The matrix of the pixels, (h w, h w), and C of each pixel."""
    q, h, w = logits.shape
    probs = np.zeros_like(logits)
    for y in range(h):
        for x in range(w):
            probs[:, y, x] = softmax(logits[:, y, x])
    grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]

    def agree(a, b):
        return clamped(sum(weights[k] * probs[k][a] * probs[k][b] for k in range(q)))

    matrix, trust = np.zeros((h * w, h * w)), np.zeros((h, w))
    for dy, dx in ((0, 1), (1, 0)):
        pairs = [((y, x), (y + dy, x + dx)) for y in range(h - dy) for x in range(w - dx)]
        mean = sum(abs(grey[a] - grey[b]) for a, b in pairs) / max(1, len(pairs))
        for a, b in pairs:
            step = abs(grey[a] - grey[b]) / (mean + 1e-6)
            flow = clamped(math.exp(-sharpness * step) * (1 + agree(a, b)))
            i, j = a[0] * w + a[1], b[0] * w + b[1]
            matrix[i, i] += flow
            matrix[j, j] += flow
            matrix[i, j] -= flow
            matrix[j, i] -= flow
    for y in range(h):
        for x in range(w):
            trust[y, x] = max(probs[:, y, x].max(), floor) ** 2 * (1 + agree((y, x), (y, x)))
            matrix[y * w + x, y * w + x] += trust[y, x]
    return matrix, trust


def textbook_cg(matrix, start, right, steps):
    """Conjugate gradients of one vector of all unknowns."""
    x = start
    r = right - matrix @ x
    p = r
    for _ in range(steps):
        ap = matrix @ p
        alpha = (r @ r) / (p @ ap + 1e-12)
        x = x + alpha * p
        after = r - alpha * ap
        p = after + (after @ after) / (r @ r + 1e-12) * p
        r = after
    return x


def bilinear(maps, height, width):
    q, h, w = maps.shape
    out = np.zeros((q, height, width))
    for y in range(height):
        for x in range(width):
            sy, sx = max(0.0, (y + 0.5) * h / height - 0.5), max(0.0, (x + 0.5) * w / width - 0.5)
            y0, x0 = int(sy), int(sx)
            y1, x1, fy, fx = min(y0 + 1, h - 1), min(x0 + 1, w - 1), sy - int(sy), sx - int(sx)
            top = maps[:, y0, x0] * (1 - fx) + maps[:, y0, x1] * fx
            bottom = maps[:, y1, x0] * (1 - fx) + maps[:, y1, x1] * fx
            out[:, y, x] = top * (1 - fy) + bottom * fy
    return out


def text_laplacian(
    logits, image, text, grid=80, iterations=25, temperature=0.5, self_weight=10.0, edge_sharpness=5.0, floor=0.05
):
    q, height, width = logits.shape
    fy, fx = factor(height, grid), factor(width, grid)
    start, small = block_means(logits, fy, fx), block_means(image, fy, fx)
    weights = name_weights(text, temperature, self_weight)
    matrix, trust = system(start, small, weights, edge_sharpness, floor)
    everywhere = np.kron(np.eye(q), matrix)  # queries side by side: one vector of unknowns
    right = (trust[None] * start).reshape(-1)
    solved = textbook_cg(everywhere, start.reshape(-1), right, iterations).reshape(start.shape)
    return solved if (fy, fx) == (1, 1) else bilinear(solved, height, width)
