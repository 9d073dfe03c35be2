from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor

from rfclip.pipeline.prior import LINKAGES, Prior, blend, cluster_names, first_equal, shift_text, twins_of


def _unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def _angles(*degrees: float) -> Tensor:
    radians = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], 1)


def _same_partition(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a[:, None] == a, b[:, None] == b)


def _shift_loops(text: Tensor, patches: Tensor, similarity: Tensor, clusters: Tensor, weight: float) -> Tensor:
    result = []
    for own_patches, scores in zip(patches, similarity, strict=True):
        rows = [row.clone() for row in text]
        for cluster in set(clusters.tolist()):
            best = None
            for name in range(len(text)):
                if clusters[name] == cluster and (best is None or scores[name] > scores[best]):
                    best = name
            ranked = sorted(own_patches, key=lambda patch: -float(patch @ text[best]))
            mean = sum(ranked[:2]) / len(ranked[:2])
            mixed = (1 - weight) * text[best] + weight * mean / mean.norm()
            rows[best] = mixed / mixed.norm()
        result.append(torch.stack(rows))
    return torch.stack(result)


def test_complete_linkage_on_a_circle() -> None:
    # Neighbours are 10 degrees apart; complete linkage joins pairs, then asks for the widest gap.
    text = _angles(0, 10, 20, 30, 90)
    gap = [float(1 - torch.tensor(angle).deg2rad().cos()) for angle in (10.0, 30.0, 90.0)]
    assert _same_partition(cluster_names(text, 0.9 * gap[0]), torch.arange(5))
    assert _same_partition(cluster_names(text, 1.1 * gap[0]), torch.tensor([0, 0, 1, 1, 2]))
    assert _same_partition(cluster_names(text, 1.1 * gap[1]), torch.tensor([0, 0, 0, 0, 1]))
    assert _same_partition(cluster_names(text, 1.1 * gap[2]), torch.zeros(5))


def test_a_distance_equal_to_the_threshold_joins() -> None:
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # distance exactly 1
    assert cluster_names(text, 1.0).tolist() == [0, 0]
    assert len(cluster_names(text, 0.999999).unique()) == 2


def test_clusters_equal_scipys() -> None:
    text = _unit(40, 6)
    for threshold in (0.05, 0.3, 0.7):
        want = fcluster(linkage(text.double().numpy(), "complete", "cosine"), threshold, "distance")
        got = cluster_names(text, threshold)
        assert got.dtype == torch.int64 and got.min() == 0
        assert len(got.unique()) == got.max() + 1
        assert _same_partition(got, torch.tensor(want))


def _ward_loops(text: Tensor, threshold: float) -> Tensor:
    """Join the two nearest clusters as long as they are near enough; Ward's distances as Lance and Williams update."""
    members = {i: [i] for i in range(len(text))}
    apart = {(i, j): 1 - float(text[i] @ text[j]) for i in members for j in members if i != j}
    while len(members) > 1:
        u, v = min(((i, j) for i in members for j in members if i < j), key=apart.__getitem__)
        if apart[u, v] > threshold:
            break
        for w in members:
            if w not in (u, v):
                a, b, c = (len(members[k]) for k in (u, v, w))
                squared = (a + c) * apart[u, w] ** 2 + (b + c) * apart[v, w] ** 2 - c * apart[u, v] ** 2
                apart[u, w] = apart[w, u] = (squared / (a + b + c)) ** 0.5
        members[u] += members.pop(v)
    result = torch.empty(len(text), dtype=torch.int64)
    for number, rows in enumerate(members.values()):
        result[rows] = number
    return result


def test_ward_equals_loops_and_is_another_partition() -> None:
    text = _unit(40, 6)
    others = 0
    for threshold in (0.02, 0.1, 0.3, 0.7, 2.0):
        got = cluster_names(text, threshold, "ward")
        assert _same_partition(got, _ward_loops(text.double(), threshold))
        others += not _same_partition(got, cluster_names(text, threshold))
    assert others > 1


@pytest.mark.parametrize("linkage", LINKAGES)
def test_identical_names_join_under_any_linkage(linkage: str) -> None:
    text = _unit(5, 512)
    clusters = cluster_names(torch.cat([text, text]), 0.0, linkage)
    assert torch.equal(clusters[:5], clusters[5:]) and len(clusters.unique()) == 5
    assert cluster_names(text[:1], 0.1, linkage).tolist() == [0]


def test_identical_names_join_and_few_names_work() -> None:
    row = _unit(1, 512)
    assert cluster_names(row.repeat(3, 1), 0.0).unique().numel() == 1
    assert cluster_names(row, 0.1).tolist() == [0]
    assert cluster_names(row[:0], 0.1).tolist() == []


def test_equal_rows_find_each_other() -> None:
    a, b, c = _unit(3, 512).split(1)
    text = torch.cat([a, b, a, c, b, a])
    assert first_equal(text).tolist() == [0, 1, 0, 3, 1, 0]
    assert twins_of(text).tolist() == [[0, 1, 0, 3, 1, 0], [2, 4, 2, 3, 4, 2]]
    assert twins_of(text[[0, 1, 3]]) is None
    assert twins_of(text[:1]) is None


def test_equal_names_join_whatever_rounding_says() -> None:
    for seed in range(100):
        text = _unit(5, 512, seed=seed)
        clusters = cluster_names(torch.cat([text, text]), 0.0)
        assert torch.equal(clusters[:5], clusters[5:])
        assert len(clusters.unique()) == 5


@pytest.mark.parametrize("patches", [1, 2, 12])
@pytest.mark.parametrize("weight", [0.0, 0.05, 1.0])
def test_shift_equals_loops(patches: int, weight: float) -> None:
    text, dense, similarity = _unit(9, 6), _unit(3, patches, 6, seed=1), _unit(3, 9, seed=2)
    clusters = torch.tensor([2, 0, 1, 1, 0, 2, 2, 3, 1])
    before = text.clone(), dense.clone()
    got = shift_text(text, dense, similarity, clusters, weight)
    assert got.shape == (3, 9, 6)
    torch.testing.assert_close(got, _shift_loops(text, dense, similarity, clusters, weight))
    assert torch.equal(text, before[0]) and torch.equal(dense, before[1])


def test_only_the_most_present_name_of_a_cluster_moves() -> None:
    text, dense = _unit(4, 6), _unit(2, 5, 6, seed=1)
    similarity = torch.tensor([[0.1, 0.3, 0.2, -0.9], [0.3, 0.1, 0.1, -0.9]])
    moved = (shift_text(text, dense, similarity, torch.tensor([0, 0, 0, 1]), 0.2) != text).any(-1)
    assert moved.tolist() == [[False, True, False, True], [True, False, False, True]]


def test_of_equally_present_names_the_first_moves() -> None:
    text, dense = _unit(3, 6), _unit(1, 5, 6, seed=1)
    moved = (shift_text(text, dense, torch.full((1, 3), 0.2), torch.zeros(3).long(), 0.2) != text).any(-1)
    assert moved.tolist() == [[True, False, False]]


def test_batch_is_image_by_image() -> None:
    text, dense, similarity = _unit(9, 6), _unit(2, 7, 6, seed=1), _unit(2, 9, seed=2)
    clusters = cluster_names(text, 0.5)
    both = shift_text(text, dense, similarity, clusters, 0.1)
    for i in range(2):
        one = shift_text(text, dense[i : i + 1], similarity[i : i + 1], clusters, 0.1)
        torch.testing.assert_close(both[i : i + 1], one)


def test_blend_by_hand() -> None:
    logits, similarity = _unit(2, 3, 4, 5), _unit(2, 3, seed=1)
    got = blend(logits, similarity, 0.3)
    for b in range(2):
        for q in range(3):
            torch.testing.assert_close(got[b, q], 0.7 * logits[b, q] + 0.3 * similarity[b, q])
    assert torch.equal(blend(logits, similarity, 0.0), logits)


def test_settings_are_frozen_and_checked() -> None:
    good = dict(image_weight=0.1, mean_vector_weight=0.03, cluster_threshold=0.1)
    prior = Prior(**good)
    assert prior.scope == "image"
    with pytest.raises(dataclasses.FrozenInstanceError):
        prior.scope = "window"
    wrong = [("image_weight", 1.1), ("mean_vector_weight", -0.1), ("cluster_threshold", 2.1), ("scope", "all")]
    wrong += [("linkage", "average")]
    for name, value in [*wrong, ("image_weight", "0.1"), ("cluster_threshold", float("nan"))]:
        with pytest.raises(ValueError, match=name):
            Prior(**{**good, name: value})
