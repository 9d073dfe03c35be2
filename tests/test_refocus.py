"""The pure functions of the method: the specification, each against plain loops."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from rfclip.refocus import (
    cut_vector,
    distraction_scores,
    locate_defocus,
    locate_distractors,
    redistribute_attention,
    redistribute_embedding,
)

GRIDS = [(4, 4), (3, 6), (7, 2), (1, 5), (5, 1), (1, 1)]


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def attention(*shape, seed=0, dtype=torch.float64):
    return random(*shape, seed=seed, dtype=dtype).mul(2).softmax(-1)


def mask(batch, count, *marked):
    """(B, N) bool with the given indices set in every item."""
    result = torch.zeros(batch, count, dtype=torch.bool)
    result[:, list(marked)] = True
    return result


# --- step 1: distractors


def loop_scores(patches, dims):
    scores = []
    for token in patches.flatten(0, -2).tolist():
        low = min(token)
        total = sum(value - low for value in token)
        scores.append(max((token[j] - low) / max(total, 1e-8) for j in dims))
    return torch.tensor(scores, dtype=torch.float64).reshape(patches.shape[:-1])


def test_scores_equal_loops():
    patches = random(2, 3, 5, 12)
    torch.testing.assert_close(distraction_scores(patches, [1, 7]), loop_scores(patches, [1, 7]))


def test_scores_ignore_a_shift_and_a_positive_factor():
    patches = random(2, 6, 12)
    torch.testing.assert_close(distraction_scores(3 * patches - 8, [2]), distraction_scores(patches, [2]))


def test_scores_of_all_channels_sum_to_one():
    patches = random(6, 5)
    total = sum(distraction_scores(patches, [j]) for j in range(5))
    torch.testing.assert_close(total, torch.ones_like(total))


def test_constant_token_scores_zero():
    assert torch.equal(distraction_scores(torch.full((2, 3, 8), 4.0), [1]), torch.zeros(2, 3))


@pytest.mark.parametrize("tau", [0, 0.5, 1, 3, 5.0, 1e9])
def test_distractors_lie_strictly_above_tau_over_d(tau):
    patches = random(3, 40, 16)
    expected = loop_scores(patches, [0, 15]) > tau / 16
    assert torch.equal(locate_distractors(patches, [0, 15], tau), expected)


def test_threshold_is_strict():
    patches = torch.tensor([[[0.0, 1, 1, 2]]])  # phi of channel 3 is 2/4, that is 2/d
    assert not locate_distractors(patches, [3], 2).any()
    assert locate_distractors(patches, [3], 1.99).all()


@pytest.mark.parametrize("tau", [0, 5])
def test_no_dims_no_distractors(tau):
    assert not locate_distractors(random(2, 6, 8), [], tau).any()
    assert torch.equal(distraction_scores(random(2, 6, 8), ()), torch.zeros(2, 6).double())


def test_half_precision_does_not_blur_the_threshold():
    patches = random(4, 200, 64).bfloat16()
    expected = locate_distractors(patches.double(), [3, 9], 2.5)
    assert torch.equal(locate_distractors(patches, [3, 9], 2.5), expected)
    assert distraction_scores(patches, [3]).dtype == torch.bfloat16


@pytest.mark.parametrize("dims", [[8], [-1], [True], [1.0], "auto", 3, [2, "4"]])
def test_bad_dims(dims):
    for function in (distraction_scores, lambda patches, dims: locate_distractors(patches, dims, 5)):
        with pytest.raises(ValueError, match="distraction dimensions"):
            function(random(2, 6, 8), dims)


@pytest.mark.parametrize("tau", [-1, float("nan"), "5", None, True])
def test_bad_tau(tau):
    with pytest.raises(ValueError, match="tau must be a number, at least 0"):
        locate_distractors(random(2, 6, 8), [1], tau)


# --- step 2: defocus


def loop_defocus(attn, distractors):
    result = torch.zeros_like(distractors)
    for b, matrix in enumerate(attn.double().numpy()):
        n = len(matrix)
        s = np.zeros((n, n))
        for i in range(n):
            for j in range(n):
                s[i, j] = (matrix[i, j] + matrix[j, i]) / 2
        degrees = np.diag(s.sum(1))
        y = scipy.linalg.eigh(degrees - s, degrees)[1][:, 1]
        if y[np.abs(y).argmax()] < 0:
            y = -y
        mean = sum(y) / n
        for i in range(n):
            result[b, i] = bool(y[i] > mean) and not distractors[b, i]
    return result


@pytest.mark.parametrize("nodes", [4, 9, 33])
@pytest.mark.parametrize("solver", ["auto", "eigh"])
def test_defocus_equals_loops(nodes, solver):
    attn = attention(4, nodes, nodes, seed=nodes) + 0.3 * torch.eye(nodes)
    distractors = mask(4, nodes, 0, 2)
    result = locate_defocus(attn, distractors, solver)
    assert torch.equal(result, loop_defocus(attn, distractors))
    assert result.any()


def test_diagonal_counts():
    attn = attention(1, 12, 12)
    heavy = attn.clone()
    heavy[0, range(6), range(6)] += 3
    assert not torch.allclose(cut_vector(attn), cut_vector(heavy))
    assert torch.equal(locate_defocus(heavy, mask(1, 12)), loop_defocus(heavy, mask(1, 12)))


def test_distractors_stay_in_the_graph_and_in_the_mean():
    attn = attention(3, 15, 15)
    free = locate_defocus(attn, mask(3, 15))
    held = locate_defocus(attn, mask(3, 15, 1, 4, 8))
    assert torch.equal(held, free & ~mask(3, 15, 1, 4, 8))


@pytest.mark.parametrize("nodes", [0, 1])
def test_nothing_to_cut(nodes):
    assert torch.equal(locate_defocus(torch.ones(2, nodes, nodes), mask(2, nodes)), mask(2, nodes))


def test_all_distractors_leave_no_defocus():
    assert not locate_defocus(attention(2, 6, 6), torch.ones(2, 6, dtype=torch.bool)).any()


# --- step 3: attention


def loop_redistribute(attn, distractors, defocus, beta):
    result = attn.clone()
    batch, heads, n, _ = attn.shape
    for b in range(batch):
        receive = [j for j in range(n) if defocus[b, j] and not distractors[b, j]]
        receive = receive or [j for j in range(n) if not distractors[b, j]]
        for h in range(heads):
            for i in range(n):
                row = attn[b, h, i].tolist()
                total = sum(row[j] for j in receive)
                if total == 0:
                    continue
                omega = beta * sum(row[j] for j in range(n) if distractors[b, j])
                for j in range(n):
                    if distractors[b, j]:
                        result[b, h, i, j] = (1 - beta) * row[j]
                    elif j in receive:
                        result[b, h, i, j] = row[j] + omega * row[j] / total
    return result


@pytest.mark.parametrize("beta", [0, 0.3, 0.7, 1])
@pytest.mark.parametrize("rows_sum_to_one", [True, False])
def test_attention_equals_loops(beta, rows_sum_to_one):
    attn = attention(3, 2, 10, 10)
    if not rows_sum_to_one:  # as after the class column was cut away
        attn = attn[..., :9, :9]
    n = attn.shape[-1]
    distractors, defocus = mask(3, n, 1, 5), mask(3, n, 2, 3, 7)
    distractors[1], defocus[2] = False, False
    defocus[0, 5] = True  # a distractor is never a receiver
    result = redistribute_attention(attn, distractors, defocus, beta)
    torch.testing.assert_close(result, loop_redistribute(attn, distractors, defocus, beta))
    torch.testing.assert_close(result.sum(-1), attn.sum(-1))


def test_attention_received_by_a_distractor_is_one_minus_beta_of_what_it_was():
    attn = attention(1, 2, 6, 6)
    result = redistribute_attention(attn, mask(1, 6, 4), mask(1, 6, 0), 0.7)
    torch.testing.assert_close(result[..., 4], 0.3 * attn[..., 4])


@pytest.mark.parametrize(
    ("distractors", "defocus", "beta"),
    [
        (mask(2, 6, 1, 2), mask(2, 6, 0), 0),
        (mask(2, 6), mask(2, 6, 0, 3), 0.7),
        (mask(2, 6, *range(6)), mask(2, 6, 0, 3), 0.7),
    ],
    ids=["beta 0", "no distractor", "all are distractors"],
)
def test_attention_identity(distractors, defocus, beta):
    attn = attention(2, 3, 6, 6)
    assert torch.equal(redistribute_attention(attn, distractors, defocus, beta), attn)


def test_rows_that_give_the_receivers_nothing_stay():
    attn = attention(1, 1, 6, 6)
    attn[0, 0, 2, 3:] = 0  # the receivers' columns
    result = redistribute_attention(attn, mask(1, 6, 0), mask(1, 6, 3, 4, 5), 0.7)
    assert torch.equal(result[0, 0, 2], attn[0, 0, 2])
    assert not torch.isclose(result[0, 0, 1], attn[0, 0, 1])[[0, 3, 4, 5]].any()


def test_without_defocus_all_others_receive():
    attn = attention(1, 2, 6, 6)
    others = redistribute_attention(attn, mask(1, 6, 0), mask(1, 6, *range(1, 6)), 0.7)
    torch.testing.assert_close(redistribute_attention(attn, mask(1, 6, 0), mask(1, 6), 0.7), others)


def test_tiny_receiving_sums_keep_row_sums():
    attn = torch.tensor([[[[0.5, 1e-42, 0.5]] * 3]])
    result = redistribute_attention(attn, mask(1, 3, 0), mask(1, 3, 1), 0.7)
    torch.testing.assert_close(result, torch.tensor([[[[0.15, 0.35, 0.5]] * 3]]))


@pytest.mark.parametrize("beta", [-0.1, 1.1, float("nan"), "0.7", None, True])
def test_bad_beta(beta):
    with pytest.raises(ValueError, match=r"beta must be a number in 0\.\.1, got"):
        redistribute_attention(attention(1, 1, 3, 3), mask(1, 3, 0), mask(1, 3, 1), beta)


# --- step 3: embedding


def loop_embedding(patches, distractors, dims, grid):
    result = patches.clone()
    h, w = grid
    for b in range(len(patches)):
        for y in range(h):
            for x in range(w):
                if not distractors[b, y * w + x]:
                    continue
                around = [
                    (y + dy) * w + x + dx
                    for dy in (-1, 0, 1)
                    for dx in (-1, 0, 1)
                    if (dy, dx) != (0, 0) and 0 <= y + dy < h and 0 <= x + dx < w
                ]
                for j in dims:
                    if around:
                        result[b, y * w + x, j] = sum(patches[b, k, j] for k in around) / len(around)
    return result


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("dims", [[3], [0, 4, 9], []])
def test_embedding_equals_loops(grid, dims):
    n = math.prod(grid)
    patches = random(3, n, 10)
    distractors = random(3, n, seed=1) > 0.2
    distractors[1] = True
    result = redistribute_embedding(patches, distractors, dims, grid)
    torch.testing.assert_close(result, loop_embedding(patches, distractors, dims, grid))


def test_embedding_changes_nothing_else():
    patches = random(2, 12, 8)
    distractors = mask(2, 12, 3, 7)
    changed = redistribute_embedding(patches, distractors, [1, 5], (3, 4)) != patches
    expected = torch.zeros_like(changed)
    expected[:, 3, [1, 5]] = expected[:, 7, [1, 5]] = True
    assert torch.equal(changed, expected)


def test_a_huge_centre_does_not_cost_the_neighbours_precision():
    patches = random(1, 9, 2, dtype=torch.float32)
    patches[0, 4, 0] = 1e9
    result = redistribute_embedding(patches, mask(1, 9, 4), [0], (3, 3))
    around = patches[0, [0, 1, 2, 3, 5, 6, 7, 8], 0]
    torch.testing.assert_close(result[0, 4, 0], around.mean())


@pytest.mark.parametrize("grid", [(3, 5), (12,), (2, 6, 2)])
def test_bad_grid(grid):
    with pytest.raises(ValueError, match=r"patches \(2, 12, 8\) do not stand on the grid"):
        redistribute_embedding(random(2, 12, 8), mask(2, 12), [1], grid)


# --- all of them


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_dtypes_are_kept_and_inputs_are_not_modified(dtype):
    patches, attn = random(2, 6, 8).to(dtype), attention(2, 3, 6, 6).to(dtype)
    distractors, defocus = mask(2, 6, 1), mask(2, 6, 0, 4)
    before = [tensor.clone() for tensor in (patches, attn, distractors, defocus)]
    assert distraction_scores(patches, [1]).dtype == dtype
    assert locate_distractors(patches, [1], 1).dtype == torch.bool
    assert locate_defocus(attn[:, 0], distractors).dtype == torch.bool
    assert redistribute_attention(attn, distractors, defocus, 0.7).dtype == dtype
    assert redistribute_embedding(patches, distractors, [1], (2, 3)).dtype == dtype
    for tensor, old in zip((patches, attn, distractors, defocus), before, strict=True):
        assert torch.equal(tensor, old)


def test_batch_is_its_items():
    patches, attn = random(2, 6, 8), attention(2, 3, 6, 6)
    distractors = locate_distractors(patches, [1, 2], 1.5)
    defocus = locate_defocus(attn.mean(1), distractors)
    both = (
        redistribute_attention(attn, distractors, defocus, 0.7),
        redistribute_embedding(patches, distractors, [1, 2], (3, 2)),
    )
    for b in range(2):
        one = slice(b, b + 1)
        alone = locate_distractors(patches[one], [1, 2], 1.5)
        side = locate_defocus(attn[one].mean(1), alone)
        torch.testing.assert_close(redistribute_attention(attn[one], alone, side, 0.7), both[0][one])
        torch.testing.assert_close(redistribute_embedding(patches[one], alone, [1, 2], (3, 2)), both[1][one])


def test_under_autocast_nothing_is_rounded_to_half_precision():
    patches, attn = random(2, 6, 8, dtype=torch.float32), attention(2, 3, 6, 6, dtype=torch.float32)
    distractors, defocus = mask(2, 6, 1), mask(2, 6, 0, 4)

    def results():
        return (
            distraction_scores(patches, [1]),
            cut_vector(attn[:, 0]),
            redistribute_attention(attn, distractors, defocus, 0.7),
            redistribute_embedding(patches, distractors, [1], (2, 3)),
        )

    expected = results()
    with torch.autocast("cpu", torch.bfloat16):
        for result, plain in zip(results(), expected, strict=True):
            assert torch.equal(result, plain)


def test_a_row_without_anything_to_receive_has_a_gradient():
    attn = torch.tensor([[1.0, 0.0, 0.0]]).repeat(3, 1)[None, None].requires_grad_()
    distractors, defocus = torch.tensor([[True, False, False]]), torch.tensor([[False, True, False]])
    redistribute_attention(attn, distractors, defocus, 0.7).sum().backward()
    assert torch.equal(attn.grad, torch.ones(1, 1, 3, 3))
