"""The Fiedler vector against scipy and scikit-learn, and the promise of solver 'auto'."""

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.manifold import spectral_embedding

from rfclip import normalized_cut
from rfclip.normalized_cut import SOLVERS, fiedler_vector, orient

GRAPH_SOLVERS = [name for name in SOLVERS if name != "sklearn"]


def affinities(batch, nodes, seed=0, diagonal=True):
    """Random graphs of two noisy clusters."""
    generator = torch.Generator().manual_seed(seed)
    affinity = torch.rand(batch, nodes, nodes, generator=generator, dtype=torch.float64)
    affinity[:, : nodes // 3, : nodes // 3] += 0.5
    affinity[:, nodes // 3 :, nodes // 3 :] += 0.7
    affinity = (affinity + affinity.transpose(1, 2)) / 2
    if not diagonal:
        affinity.diagonal(dim1=1, dim2=2).zero_()
    return affinity


def reference(affinity):
    """scipy's second generalised eigenvector, oriented by a plain loop."""
    vectors = []
    for item in affinity.double().numpy():
        degrees = np.diag(item.sum(1))
        y = scipy.linalg.eigh(degrees - item, degrees)[1][:, 1]
        y /= np.sqrt((y**2).sum())
        best = 0
        for i in range(len(y)):
            if abs(y[i]) > abs(y[best]):
                best = i
        vectors.append(y if y[best] > 0 else -y)
    return torch.tensor(np.stack(vectors))


@pytest.mark.parametrize("nodes", [3, 7, 35, 150])
@pytest.mark.parametrize("solver", GRAPH_SOLVERS)
def test_agrees_with_scipy(nodes, solver):
    affinity = affinities(3, nodes)
    torch.testing.assert_close(
        fiedler_vector(affinity, solver), reference(affinity), rtol=0, atol=1e-9 if solver == "eigh" else 2e-4
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_agrees_with_scikit_learn_on_zero_diagonals(solver):
    affinity = affinities(2, 60, diagonal=False)
    expected = []
    for item in affinity.numpy():
        y = torch.tensor(spectral_embedding(item, n_components=1, random_state=1)[:, 0])
        expected.append(orient(y / y.norm()))
    torch.testing.assert_close(fiedler_vector(affinity, solver), torch.stack(expected), rtol=0, atol=2e-4)


@pytest.mark.parametrize("seed", range(20))
def test_auto_cuts_as_the_exact_solver_does(seed):
    affinity = affinities(4, 90, seed)
    start = fiedler_vector(affinities(4, 90, seed + 100), "eigh")
    exact = fiedler_vector(affinity, "eigh")
    for y in (fiedler_vector(affinity), fiedler_vector(affinity, start=start)):
        assert torch.equal(y > y.mean(1, keepdim=True), exact > exact.mean(1, keepdim=True))
        torch.testing.assert_close(y, exact, rtol=0, atol=1e-3)


def test_auto_is_fast_on_an_easy_cut(monkeypatch):
    monkeypatch.setattr(normalized_cut, "_exact", None)  # calling it would be a TypeError
    affinity = affinities(2, 120)
    y = fiedler_vector(affinity)
    assert torch.equal(y > y.mean(1, keepdim=True), reference(affinity) > reference(affinity).mean(1, keepdim=True))


def count_exact(monkeypatch):
    """Count the batch items that are solved exactly."""
    counts = []
    exact = normalized_cut._exact
    monkeypatch.setattr(normalized_cut, "_exact", lambda graph: counts.append(len(graph.matrix)) or exact(graph))
    return counts


def with_spectrum(values, seed=0):
    """A graph of 80 nodes, degrees all 1, whose D^-1/2 S D^-1/2 has eigenvalue 1 (trivial) and these."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(80, 80, generator=generator, dtype=torch.float64)
    vectors[:, 0] = 1
    vectors = torch.linalg.qr(vectors).Q
    spectrum = torch.zeros(80, dtype=torch.float64)
    spectrum[: 1 + len(values)] = torch.tensor([1.0, *values])
    affinity = vectors @ torch.diag(spectrum) @ vectors.T
    assert affinity.min() > 0
    return affinity[None]


def test_auto_is_exact_where_two_eigenvalues_nearly_agree(monkeypatch):
    counts = count_exact(monkeypatch)
    affinity = with_spectrum([0.1, 0.1 - 1e-9])
    torch.testing.assert_close(fiedler_vector(affinity), fiedler_vector(affinity, "eigh"), rtol=0, atol=1e-12)
    assert counts == [1, 1]


def test_auto_is_exact_where_an_entry_lies_at_the_mean(monkeypatch):
    path = torch.diag(torch.ones(40, dtype=torch.float64), 1)[None]  # a path of 41 nodes: the middle entry is 0
    counts = count_exact(monkeypatch)
    fiedler_vector(path + path.transpose(1, 2))
    assert counts == [1]


def test_auto_is_exact_only_where_needed(monkeypatch):
    counts = count_exact(monkeypatch)
    affinity = torch.cat([with_spectrum([0.1, 0.04]), with_spectrum([0.1, 0.1 - 1e-9]), with_spectrum([0.1], 3)])
    y = fiedler_vector(affinity)
    assert counts == [1]
    torch.testing.assert_close(y, fiedler_vector(affinity, "eigh"), rtol=0, atol=1e-3)


def test_a_guess_without_any_of_the_answer_does_not_deceive():
    affinity = with_spectrum([0.2, 0.15])
    vectors = torch.linalg.eigh(affinity)[1]
    guess = vectors[:, :, -3]  # of the third eigenvalue
    exact = fiedler_vector(affinity, "eigh")
    y = fiedler_vector(affinity, start=guess)
    assert torch.equal(y > y.mean(), exact > exact.mean())


@pytest.mark.parametrize("solver", GRAPH_SOLVERS)
def test_orientation(solver):
    affinity = affinities(5, 40, seed=3)
    y = fiedler_vector(affinity, solver)
    assert (y.gather(1, y.abs().argmax(1, keepdim=True)) > 0).all()


def test_of_equal_magnitudes_the_first_decides():
    vectors = torch.tensor([[0.1, -0.7, 0.7, 0.2], [0.1, 0.7, -0.7, 0.2], [0.3, -0.5, 0.2, 0.4], [0.0] * 4])
    expected = torch.tensor([[-0.1, 0.7, -0.7, -0.2], [0.1, 0.7, -0.7, 0.2], [-0.3, 0.5, -0.2, -0.4], [0.0] * 4])
    assert torch.equal(orient(vectors), expected)


@pytest.mark.parametrize("solver", GRAPH_SOLVERS)
def test_symmetric_pair_of_clusters_starts_positive(solver):
    cluster = torch.ones(4, 4)
    affinity = torch.block_diag(cluster, cluster)[None] + 0.1  # y is +a on one half, -a on the other
    y = fiedler_vector(affinity, solver)
    assert (y[0, :4] > 0).all() and (y[0, 4:] < 0).all()


@pytest.mark.parametrize("solver", GRAPH_SOLVERS)
def test_degenerate_graphs_give_finite_vectors_twice_the_same(solver):
    disconnected = torch.block_diag(torch.ones(3, 3), torch.ones(4, 4))
    isolated = torch.block_diag(torch.rand(6, 6).add(0.1), torch.zeros(1, 1))
    isolated = isolated + isolated.T
    loops = torch.eye(7)  # only the diagonal: every vector is one of the second eigenvalue
    affinity = torch.stack([disconnected, isolated, torch.zeros(7, 7), loops, torch.ones(7, 7)])
    y = fiedler_vector(affinity, solver)
    assert torch.isfinite(y).all()
    assert torch.equal(y, fiedler_vector(affinity, solver))
    assert y[1, 6] == 0
    first, second = y[0, :3], y[0, 3:]
    assert first.std() < 1e-6 and second.std() < 1e-6 and first[0] * second[0] < 0


@pytest.mark.parametrize("solver", GRAPH_SOLVERS)
def test_smallest_graphs(solver):
    assert torch.equal(fiedler_vector(torch.ones(2, 1, 1), solver), torch.zeros(2, 1))
    assert fiedler_vector(torch.ones(2, 0, 0), solver).shape == (2, 0)
    assert fiedler_vector(torch.ones(0, 3, 3), solver).shape == (0, 3)
    pair = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    torch.testing.assert_close(fiedler_vector(pair, solver), torch.tensor([[1.0, -1.0]]) * 0.5**0.5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_dtype_and_input_are_kept(dtype):
    affinity = affinities(2, 30).to(dtype)
    before = affinity.clone()
    y = fiedler_vector(affinity)
    assert y.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(affinity, before)
    torch.testing.assert_close(y.double(), reference(affinity), rtol=0, atol=1e-4)


def test_batch_is_its_items():
    affinity = affinities(3, 50)
    single = torch.cat([fiedler_vector(item[None], "eigh") for item in affinity])
    torch.testing.assert_close(fiedler_vector(affinity, "eigh"), single)


@pytest.mark.parametrize(
    ("affinity", "solver", "sentence"),
    [
        (torch.ones(1, 3, 3), "magic", "unknown solver 'magic'.*'auto'.*'eigh'"),
        (torch.ones(3, 3), "auto", r"\(B, N, N\), got torch.float32 \(3, 3\).*affinity\[None\]"),
        (torch.ones(1, 3, 4), "auto", r"\(1, 3, 4\)"),
        (torch.ones(1, 3, 3, dtype=torch.int64), "auto", "floating point"),
        (torch.full((1, 3, 3), float("nan")), "auto", "not finite"),
        (torch.full((1, 3, 3), float("inf")), "eigh", "not finite"),
        (torch.full((1, 3, 3), -1.0), "auto", "negative entries.*clamp"),
        (torch.ones(1, 3, 3), "sklearn", "diagonal.*'eigh'"),
    ],
)
def test_refusals(affinity, solver, sentence):
    with pytest.raises(ValueError, match=sentence):
        fiedler_vector(affinity, solver)
