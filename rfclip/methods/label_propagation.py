"""Labels spread over a graph by a fixed number of steps of conjugate gradients, in fp64 (docs/METHODS.md, LPOSS).

A graph is a scipy.sparse matrix of symmetric weights without a diagonal; its nodes are patches or pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

Array = NDArray[np.float64]
_CPU_PIECE = 1 << 22  # numbers of a block of rows of the similarities
_GPU_PIECE = 1 << 26
_WHITE = (0.95047, 1.0, 1.08883)  # D65
_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))


def patch_graph(features: Tensor, positions: Tensor, neighbors: int, gamma: float, sigma: float) -> Any:
    """Join each patch to those that are most like it, the more the nearer they lie.

    The weights are V + V^T without the diagonal, V_ij = max(u_i . u_j, 0)^gamma exp(-sigma |p_i - p_j|) for those j of
    which u_i . u_j is largest, i among them.

    Args:
        features: u, (n, d) normalised.
        positions: p, (n, 2) in pixels.
        neighbors: how many are joined, at most n.
        gamma: exponent of the similarity.
        sigma: decay with the distance, per pixel.

    Returns:
        The weights, a sparse (n, n). Building it takes less than 100 bytes for each patch and neighbour, and a block
        of rows of the similarities.
    """
    count = len(features)
    kept = min(neighbors, count)
    step = max(1, (_CPU_PIECE if features.device.type == "cpu" else _GPU_PIECE) // count)
    places = positions.cpu().double()
    nearest, weights = [], []
    for start in range(0, count, step):
        rows = slice(start, start + step)
        similarity, index = (found.cpu() for found in (features[rows] @ features.T).topk(kept))
        apart = (places[rows, None] - places[index]).norm(dim=-1)
        weight = similarity.double().clamp_min(0) ** gamma * (-sigma * apart).exp()
        nearest.append(index.numpy())
        weights.append(weight.masked_fill_(index == torch.arange(count)[rows, None], 0).numpy())
    ends = np.arange(count + 1) * kept
    directed = sparse.csr_matrix(
        (np.concatenate(weights).ravel(), np.concatenate(nearest).ravel(), ends), (count, count)
    )
    return (directed + directed.T).tocsr()


def pixel_graph(colours: Array, tau: float, reach: int) -> Any:
    """Join each pixel to those within `reach` rows and columns by exp(-|c_i - c_j| / tau).

    Args:
        colours: c, (H, W, 3).
        tau: difference of colours at which the weight has fallen to 1/e.
        reach: at least 1.

    Returns:
        The weights, a sparse (H*W, H*W) of diagonals: 8 bytes for each pixel and neighbour, 1.34 kB a pixel at reach 6.
    """
    height, width, _ = colours.shape
    downs, rights = (range(-min(reach, n - 1), min(reach, n - 1) + 1) for n in (height, width))
    steps = [(down, right) for down in downs for right in rights if (down, right) != (0, 0)]
    # in a slim picture two steps may share a diagonal, but no entry of it
    offsets = sorted({down * width + right for down, right in steps})
    weights = np.zeros((len(offsets), height, width))
    for down, right in steps:
        here = np.s_[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
        there = np.s_[max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)]
        apart = np.sqrt(((colours[here] - colours[there]) ** 2).sum(-1))
        weights[offsets.index(down * width + right)][here] += np.exp(-apart / tau)
    return sparse.dia_matrix((weights.reshape(len(offsets), height * width), offsets), (height * width, height * width))


def propagate(graph: Any, labels: Array, alpha: float, iterations: int, tolerance: float) -> Array:
    """Take steps of conjugate gradients from 0 towards X of (I - alpha D^-1/2 W D^-1/2) X = Y.

    Args:
        graph: W, a sparse (n, n); D holds the sums of its rows, 1 in place of 0.
        labels: Y, (n, Q); each column is a system of its own.
        alpha: 0..1, less than 1.
        iterations: steps.
        tolerance: a column is done once its residual is at most so many times its Y.

    Returns:
        X, (n, Q).
    """
    degree = np.asarray(graph.sum(1), dtype=np.float64).ravel()
    root = 1 / np.sqrt(np.where(degree == 0, 1, degree))[:, None]
    return conjugate_gradients(lambda x: x - alpha * root * (graph @ (root * x)), labels, iterations, tolerance)


def conjugate_gradients(apply: Callable[[Array], Array], right: Array, iterations: int, tolerance: float) -> Array:
    """Take at most so many steps of conjugate gradients from 0, for each column by itself.

    Args:
        apply: multiplies (n, Q) by a symmetric positive definite (n, n).
        right: (n, Q), the right-hand sides.
        iterations: steps.
        tolerance: a column takes no more steps once |residual| <= tolerance |right|.

    Returns:
        (n, Q).

    Example:
        >>> matrix = np.array([[2.0, 1.0], [1.0, 3.0]])
        >>> conjugate_gradients(lambda x: matrix @ x, np.array([[3.0], [4.0]]), 2, 0.0).round(12).tolist()
        [[1.0], [1.0]]
    """
    solution = np.zeros_like(right)
    residual, direction = right.copy(), right.copy()
    square = (residual**2).sum(0)
    enough = tolerance**2 * square
    for _ in range(iterations):
        going = square > enough
        if not going.any():
            break
        moved = apply(direction)
        curvature = (direction * moved).sum(0)
        length = np.divide(square, curvature, out=np.zeros_like(square), where=going & (curvature > 0))
        solution += length * direction
        residual -= length * moved
        before, square = square, np.where(going, (residual**2).sum(0), square)
        direction = residual + np.divide(square, before, out=np.zeros_like(square), where=going) * direction
    return solution


def lab(picture: Array) -> Array:
    """Turn a picture (H, W, 3), sRGB in 0..1, into CIELAB (H, W, 3) as (L / 100, a / 128, b / 128).

    Example:
        >>> lab(np.ones((1, 1, 3))).round(3).tolist()  # white
        [[[1.0, -0.0, 0.0]]]
    """
    linear = np.where(picture > 0.04045, ((np.maximum(picture, 0) + 0.055) / 1.055) ** 2.4, picture / 12.92)
    share = linear @ np.array(_XYZ).T / np.array(_WHITE)
    bent = np.where(share > 0.008856, np.cbrt(share), 7.787 * share + 16 / 116)
    x, y, z = np.moveaxis(bent, -1, 0)
    return np.stack([(116 * y - 16) / 100, 500 * (x - y) / 128, 200 * (y - z) / 128], -1)
