"""Graphs of patches and pixels, and the steps of conjugate gradients on them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import cg

from rfclip.methods import label_propagation
from rfclip.methods.label_propagation import conjugate_gradients, lab, patch_graph, pixel_graph, propagate
from tests.support import window_loops as loops


def drawn(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("neighbors", [1, 2, 5, 23, 400])
def test_patches_are_joined_as_in_loops(neighbors):
    features, positions = F.normalize(drawn(23, 6) - 0.3, dim=-1), 90 * drawn(23, 2, seed=1)
    graph = patch_graph(features, positions, neighbors, 3.0, 0.01)
    wanted = loops.patch_weights(features.numpy(), positions.tolist(), neighbors, 3.0, 0.01)
    np.testing.assert_allclose(graph.toarray(), wanted, rtol=1e-10, atol=1e-15)


def test_blocks_of_rows_do_not_change_the_graph(monkeypatch):
    features, positions = F.normalize(drawn(37, 6) - 0.3, dim=-1), 90 * drawn(37, 2, seed=1)
    once = patch_graph(features, positions, 9, 3.0, 0.01).toarray()
    monkeypatch.setattr(label_propagation, "_CPU_PIECE", 37 * 5)
    monkeypatch.setattr(label_propagation, "_GPU_PIECE", 37 * 5)
    np.testing.assert_allclose(patch_graph(features, positions, 9, 3.0, 0.01).toarray(), once, rtol=1e-12)


def test_the_graph_is_sparse():
    features = F.normalize(drawn(600, 8) - 0.5, dim=-1)
    graph = patch_graph(features, 90 * drawn(600, 2, seed=1), 20, 3.0, 0.01)
    assert graph.nnz <= 2 * 20 * 600


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 4), (5, 12), (13, 3)])
@pytest.mark.parametrize("reach", [1, 2, 6])
def test_pixels_are_joined_as_in_loops(size, reach):
    colours = drawn(*size, 3).numpy() / 20
    graph = pixel_graph(colours, 0.01, reach)
    np.testing.assert_allclose(graph.toarray(), loops.pixel_weights(colours, 0.01, reach), rtol=1e-12)


@pytest.mark.parametrize("iterations", [1, 3, 10, 40])
@pytest.mark.parametrize("tolerance", [0.0, 1e-6, 0.2])
def test_as_many_steps_as_in_loops(iterations, tolerance):
    features = F.normalize(drawn(23, 6) - 0.3, dim=-1)
    graph = patch_graph(features, 90 * drawn(23, 2, seed=1), 4, 3.0, 0.01)
    labels = drawn(23, 5, seed=2).numpy()
    labels[:, 3] = 0
    found = propagate(graph, labels, 0.95, iterations, tolerance)
    wanted = loops.propagate(graph.toarray(), labels, 0.95, iterations, tolerance or 1e-14)
    np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-10)
    assert not found[:, 3].any()


def test_scipys_conjugate_gradients_take_the_same_steps():
    features = F.normalize(drawn(40, 6) - 0.3, dim=-1)
    weights = patch_graph(features, 90 * drawn(40, 2, seed=1), 6, 3.0, 0.01).toarray()
    root = weights.sum(1) ** -0.5
    matrix = np.eye(40) - 0.95 * root[:, None] * weights * root
    right = drawn(40, 3, seed=2).numpy()
    found = conjugate_gradients(lambda x: matrix @ x, right, 10, 1e-6)
    for column in range(3):
        wanted, _ = cg(matrix, right[:, column], maxiter=10, atol=0.0)
        np.testing.assert_allclose(found[:, column], wanted, rtol=1e-9)


def test_columns_stop_each_by_itself():
    diagonal = np.array([1.0, 2.0, 4.0])[:, None]
    right = np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0]])  # the first is solved by the first step
    found = conjugate_gradients(lambda x: diagonal * x, right, 3, 1e-9)
    np.testing.assert_allclose(found, right / diagonal, rtol=1e-12)


def test_a_patch_without_neighbours_keeps_its_labels():
    features = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]], dtype=torch.float64)  # the third is like nobody
    graph = patch_graph(features, torch.zeros(3, 2), 3, 3.0, 0.01)
    labels = np.array([[0.3], [0.5], [0.7]])
    assert propagate(graph, labels, 0.95, 10, 0.0)[2, 0] == pytest.approx(0.7)


def test_lab_equals_loops():
    picture = drawn(6, 5, 3).numpy()
    picture[0, 0], picture[1, 1], picture[2, 2] = 0.0, 1.0, 0.03
    wanted = [[loops.lab(colour) for colour in row] for row in picture]
    np.testing.assert_allclose(lab(picture), wanted, rtol=1e-10, atol=1e-12)
    assert np.isfinite(lab(picture - 1e-7)).all()  # what undoing a normalisation makes of black
