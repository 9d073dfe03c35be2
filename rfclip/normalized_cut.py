"""The normalised cut of an affinity graph: its Fiedler vector, batched, by interchangeable solvers.

The problem is (D - S) y = lambda D y for a symmetric affinity S >= 0 with degrees D = diag(row sums of S, the
diagonal included); wanted is the y of the second smallest lambda (docs/METHOD.md section 3, step 2; Shi and
Malik, "Normalized Cuts and Image Segmentation", 2000). With z = D^1/2 y it is the ordinary symmetric problem
D^-1/2 S D^-1/2 z = (1 - lambda) z, in which the largest eigenvalue, 1, belongs to the known vector D^1/2 1.
That one is moved out of the way, so that the wanted vector is the dominant one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rfclip.clip.precision import at_least_fp32

_LANCZOS_CHECKS = (12, 18, 24, 32, 40, 52, 64)  # steps after which convergence is looked at; then give up
_CHOLESKY_SLACK = 1e-4  # more than fp32 rounds in the factor of a matrix with eigenvalues in [-1, 3]
_TIE = 1e-9  # magnitudes that differ by less than this, relatively, count as equal
_SEED = 0  # of the first Lanczos vector, so that equal inputs give equal outputs


@dataclass(frozen=True)
class _Graph:
    """A batch of cuts to solve, in fp64.

    Attributes:
        matrix: (B, N, N) symmetric, D^-1/2 S D^-1/2 with its trivial eigenvalue moved from 1 to -2, below all
            others (which lie in [-1, 1]): the wanted vector belongs to the largest eigenvalue.
        inv_sqrt: (B, N) diagonal of D^-1/2; 0 where a node has no affinity at all.
    """

    matrix: Tensor
    inv_sqrt: Tensor

    def subset(self, items: Tensor) -> _Graph:
        """Keep the batch items (b,) given by their indices."""
        return _Graph(self.matrix[items], self.inv_sqrt[items])


def fiedler_vector(affinity: Tensor, solver: str = "auto", start: Tensor | None = None) -> Tensor:
    """Return the second generalised eigenvector of (D - S) y = lambda D y, oriented.

    y has unit 2-norm. It is oriented so that its entry of largest magnitude is positive; of equal magnitudes
    the first in order decides (TokenCut's rule). Where the second eigenvalue is multiple, y is one
    deterministic vector of its space. A node without any affinity gets 0; so does everything if N = 1.

    Args:
        affinity: S (B, N, N), floating point, symmetric, entries >= 0, not modified.
        solver: 'eigh', exact in fp64; 'lanczos', fast, iterated until it is as good as exact for cutting at
            the mean, or to its last step; 'auto', 'lanczos' where its residual proves that no entry is on the
            wrong side of mean(y) and that the orientation is right, else 'eigh'; 'sklearn', scikit-learn's
            spectral_embedding, which drops the diagonal and so takes zero-diagonal affinities only.
        start: (B, N) a guess of y that shortens the iteration, such as the y of a similar affinity.

    Returns:
        y (B, N), in the affinity's dtype (fp32 for a half-precision affinity).

    Raises:
        ValueError: another shape, an unknown solver, negative or non-finite entries, or a non-zero diagonal
            with 'sklearn'.

    Example:
        >>> path = torch.tensor([[[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]])  # 0 - 1 - 2: its ends lie apart
        >>> [round(value, 3) + 0 for value in fiedler_vector(path)[0].tolist()]
        [0.707, 0.0, -0.707]

    Source: docs/METHOD.md section 3, step 2.
    """
    check_solver(solver)
    _check(affinity)
    dtype = at_least_fp32(affinity)
    with torch.no_grad(), torch.autocast(affinity.device.type, enabled=False):
        if affinity.numel() == 0 or affinity.shape[-1] == 1:
            return affinity.new_zeros(affinity.shape[:-1], dtype=dtype)
        y = SOLVERS[solver](affinity.double(), None if start is None else start.double())
        return orient(y / y.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(y.dtype).tiny)).to(dtype)


def orient(vectors: Tensor) -> Tensor:
    """Flip vectors (..., N) so that the entry of largest magnitude, the first of equal ones, is positive.

    Example:
        >>> orient(torch.tensor([[0.5, -2.0, 1.0], [0.5, 2.0, 1.0]])).tolist()
        [[-0.5, 2.0, -1.0], [0.5, 2.0, 1.0]]
    """
    magnitude = vectors.abs()
    largest = magnitude.amax(-1, keepdim=True)
    first = (magnitude >= largest * (1 - _TIE)).byte().argmax(-1, keepdim=True)
    return torch.where(vectors.gather(-1, first) < 0, -vectors, vectors)


def check_solver(solver: str) -> None:
    """Raise ValueError unless solver is the name of one."""
    if not isinstance(solver, str) or solver not in SOLVERS:
        raise ValueError(f"unknown solver {solver!r}: choose one of {', '.join(map(repr, SOLVERS))}")


def _check(affinity: Tensor) -> None:
    if affinity.ndim != 3 or affinity.shape[1] != affinity.shape[2] or not affinity.is_floating_point():
        raise ValueError(
            f"affinity must be floating point (B, N, N), got {affinity.dtype} {tuple(affinity.shape)}: "
            "add a batch axis with affinity[None] if it lacks one"
        )
    if affinity.numel() == 0:
        return
    low, high = affinity.aminmax()  # both are NaN if an entry is
    if not (torch.isfinite(low) and torch.isfinite(high)):
        raise ValueError("affinity has entries that are not finite: look for an overflow where it was made")
    if low < 0:
        raise ValueError(f"affinity has negative entries (down to {low:.3g}), which have no cut: clamp them at 0")


def _graph(affinity: Tensor) -> _Graph:
    """Normalise affinities (B, N, N) in fp64 by their degrees and move the trivial eigenvalue to -2."""
    degrees = affinity.sum(-1)  # (B, N)
    inv_sqrt = torch.where(degrees > 0, degrees.rsqrt(), 0)
    trivial = degrees.sqrt()
    trivial = trivial / trivial.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(degrees.dtype).tiny)
    matrix = affinity * inv_sqrt[:, :, None] * inv_sqrt[:, None, :]
    return _Graph(matrix.baddbmm_(trivial[:, :, None], trivial[:, None, :], alpha=-3), inv_sqrt)


def _exact(graph: _Graph) -> Tensor:
    return torch.linalg.eigh(graph.matrix).eigenvectors[:, :, -1] * graph.inv_sqrt


def _solve_auto(affinity: Tensor, start: Tensor | None) -> Tensor:
    graph = _graph(affinity)
    y, safe = _lanczos(graph, start)
    unsafe = (~safe).nonzero()[:, 0]
    if len(unsafe):
        y[unsafe] = _exact(graph.subset(unsafe))
    return y


def _solve_sklearn(affinity: Tensor, start: Tensor | None) -> Tensor:
    from sklearn.manifold import spectral_embedding

    if affinity.diagonal(dim1=-2, dim2=-1).any():
        raise ValueError(
            "solver 'sklearn' drops the diagonal of the affinity, which is not zero here, and so would solve "
            "another problem: take 'eigh' or 'auto', or zero the diagonal if that is the problem meant"
        )
    vectors = [
        spectral_embedding(item.cpu().numpy(), n_components=1, drop_first=True, random_state=_SEED)[:, 0]
        for item in affinity
    ]
    return torch.stack([affinity.new_tensor(vector) for vector in vectors])


def _lanczos(graph: _Graph, start: Tensor | None) -> tuple[Tensor, Tensor]:
    """Iterate until every item's cut is proven, or to the last step.

    Lanczos with full reorthogonalisation, every item of the batch in step with the others.

    Args:
        graph: B cuts of N nodes.
        start: (B, N) guess of y, or None.

    Returns:
        y (B, N), and (B,) bool: whether its cut at the mean and its orientation are proven to be exact.
    """
    batch, nodes, _ = graph.matrix.shape
    checks = [steps for steps in _LANCZOS_CHECKS if steps < nodes] or [nodes]
    basis = graph.matrix.new_zeros(batch, checks[-1], nodes)  # rows are orthonormal
    images = torch.zeros_like(basis)  # matrix @ basis rows
    vector = _first_vector(graph, start)
    y, safe = vector * graph.inv_sqrt, torch.zeros(batch, dtype=torch.bool, device=vector.device)
    for step in range(checks[-1]):
        basis[:, step] = vector
        images[:, step] = torch.bmm(graph.matrix, vector[:, :, None])[:, :, 0]
        if step + 1 in checks:
            y, safe = _ritz_cut(graph, basis[:, : step + 1], images[:, : step + 1])
            if safe.all():
                break
        vector = _next_vector(basis[:, : step + 1], images[:, step])
    return y, safe


def _first_vector(graph: _Graph, start: Tensor | None) -> Tensor:
    """Return unit vectors (B, N): noise, or the guess with a little noise, for what the guess may lack."""
    generator = torch.Generator().manual_seed(_SEED)
    noise = torch.randn(graph.inv_sqrt.shape[-1], generator=generator, dtype=graph.inv_sqrt.dtype)
    vector = noise.to(graph.inv_sqrt.device).expand_as(graph.inv_sqrt)
    if start is not None:
        guess = torch.where(graph.inv_sqrt > 0, start / graph.inv_sqrt, 0)  # z = D^1/2 y
        vector = _unit(guess) + 0.01 * _unit(vector)
    return _unit(vector)


def _next_vector(basis: Tensor, image: Tensor) -> Tensor:
    """Return the part of image (B, N) outside the basis (B, k, N), as a unit vector."""
    outside = image[:, None]
    for _ in range(2):  # once loses orthogonality to rounding, twice does not
        inside = torch.bmm(outside, basis.transpose(1, 2))  # (B, 1, k)
        outside = torch.baddbmm(outside, inside, basis, alpha=-1)
    return _unit(outside[:, 0])


def _ritz_cut(graph: _Graph, basis: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Take the best vector of the basis and try to prove that it cuts as the exact one does.

    With z the unit Ritz vector of the largest Ritz value theta, r = matrix z - theta z, and sigma above every
    eigenvalue of the matrix on the complement of z, the exact vector deviates from z by at most
    |r| / (theta - sigma) (Davis and Kahan). sigma is put in the middle between the two largest Ritz values;
    that it is above is tested by a Cholesky factorisation. So a vector that the iteration has not seen, such
    as the second one of a pair of nearly equal eigenvalues, cannot deceive the proof.

    Args:
        graph: B cuts of N nodes.
        basis: (B, k, N) orthonormal rows.
        images: (B, k, N) matrix @ basis rows.

    Returns:
        y (B, N), and (B,) bool: proven.
    """
    projected = torch.bmm(basis, images.transpose(1, 2))  # (B, k, k)
    values, vectors = torch.linalg.eigh((projected + projected.transpose(1, 2)) / 2)
    weights = vectors[:, None, :, -1]  # (B, 1, k)
    z, image = torch.bmm(weights, basis)[:, 0], torch.bmm(weights, images)[:, 0]  # (B, N)
    theta = (z * image).sum(-1, keepdim=True)
    sigma = (theta + values[:, -2:-1]) / 2
    error = (image - theta * z).norm(dim=-1, keepdim=True) / (theta - sigma)  # (B, 1)
    y = z * graph.inv_sqrt
    safe = (theta > sigma)[:, 0] & _cut_is_safe(y, graph.inv_sqrt, error)
    if safe.any():
        safe = safe & _dominates(graph.matrix, z, image, sigma)
    return y, safe


def _cut_is_safe(y: Tensor, inv_sqrt: Tensor, error: Tensor) -> Tensor:
    """Tell whether an error of z, at most error (B, 1) in 2-norm, can change the cut of y = inv_sqrt z.

    An entry moves by at most error * inv_sqrt, the mean by error * |inv_sqrt| / N (Cauchy-Schwarz), and the
    largest entry of either sign by at most error * max(inv_sqrt).
    """
    slack = error * (inv_sqrt + inv_sqrt.norm(dim=-1, keepdim=True) / y.shape[-1])
    sides = ((y - y.mean(-1, keepdim=True)).abs() > slack).all(-1)
    lead = (y.amax(-1) + y.amin(-1)).abs()
    return sides & (lead > 2 * error[:, 0] * inv_sqrt.amax(-1))


def _dominates(matrix: Tensor, z: Tensor, image: Tensor, sigma: Tensor) -> Tensor:
    """Tell whether sigma (B, 1) exceeds the eigenvalues of matrix (B, N, N) on the complement of z (B, N).

    sigma I - P matrix P, P = I - z z^T, is factorised: it has a Cholesky factor iff it is positive definite.
    fp32 is enough: sigma is lowered by more than its rounding can hide. `image` (B, N) is matrix z.
    """
    along = image - z * (image * z).sum(-1, keepdim=True) / 2
    pair, mirrored = torch.stack([z, along], dim=2).float(), torch.stack([along, z], dim=1).float()
    pencil = torch.baddbmm(matrix.float(), pair, mirrored, alpha=-1).neg_()  # -P matrix P
    pencil.diagonal(dim1=-2, dim2=-1).add_(sigma.float() - _CHOLESKY_SLACK)
    return torch.linalg.cholesky_ex(pencil).info == 0


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(vectors.dtype).tiny)


SOLVERS: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "auto": _solve_auto,
    "eigh": lambda affinity, _: _exact(_graph(affinity)),
    "lanczos": lambda affinity, start: _lanczos(_graph(affinity), start)[0],
    "sklearn": _solve_sklearn,
}
