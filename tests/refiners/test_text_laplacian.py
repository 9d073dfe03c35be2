from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor

from rfclip.pipeline.labels import label
from rfclip.refiners import Joint, TextLaplacian, build_refiner
from rfclip.refiners.text_laplacian import (
    confidence,
    conjugate_gradient,
    edge_weights,
    laplacian,
    pool_factors,
    query_weights,
)
from tests.support import text_laplacian_loops as loops


def _case(queries: int, height: int, width: int, seed: int = 0, batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines (B, Q, H, W) that are smooth with some noise, images (B, 3, H, W) with an edge, text (Q, E)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, queries, 3, 4, generator=generator)
    logits = 0.2 + 0.05 * F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    logits += 0.01 * torch.randn(batch, queries, height, width, generator=generator)
    image = 0.3 * torch.randn(batch, 3, height, width, generator=generator)
    image[..., width // 2 :] += 1.5
    return logits, image, F.normalize(torch.randn(queries, 16, generator=generator), dim=-1)


def _refined(refiner: TextLaplacian, logits: Tensor, image: Tensor, text: Tensor) -> Tensor:
    return refiner.prepare(image, text)(logits)


def _peak_error(got: Tensor, want: np.ndarray) -> float:
    return float((got.double() - torch.from_numpy(want)).abs().max() / np.abs(want).max())


@pytest.mark.parametrize(
    ("queries", "height", "width", "settings"),
    [
        (3, 23, 37, dict(grid=8)),  # factors 3 and 5 (4.625), rows and columns left over
        (5, 10, 14, dict(grid=4)),  # 2.5 and 3.5: halves to the even number
        (4, 9, 13, dict(grid=80)),  # factors 1
        (3, 8, 21, dict(grid=10)),  # one side pooled, the other not
        (1, 12, 18, dict(grid=6)),
        (25, 12, 18, dict(grid=6)),  # the floor of the confidence acts
        (2, 1, 12, dict(grid=6)),  # no vertical pairs
        (2, 3, 2, dict(grid=1)),  # one cell
        (6, 20, 15, dict(grid=7, iterations=3, temperature=0.1, self_weight=0.5, edge_sharpness=1.0)),
        (6, 20, 15, dict(grid=7, iterations=0, confidence_floor=0.6)),
    ],
)
def test_equals_the_loops(queries: int, height: int, width: int, settings: dict[str, float]) -> None:
    logits, image, text = _case(queries, height, width)
    before = logits.clone()
    in_loops = {("floor" if name == "confidence_floor" else name): value for name, value in settings.items()}
    want = loops.text_laplacian(*(tensor.double().numpy() for tensor in (logits[0], image[0], text)), **in_loops)
    assert _peak_error(_refined(TextLaplacian(**settings), logits, image, text)[0], want) < 2e-6
    exact = _refined(TextLaplacian(**settings), logits.double(), image.double(), text.double())
    assert exact.dtype == torch.float64
    assert _peak_error(exact[0], want) < 1e-9
    assert torch.equal(logits, before)


def test_it_moves_what_it_is_given_and_every_setting_matters() -> None:
    logits, image, text = _case(25, 24, 36)
    plain = _refined(TextLaplacian(grid=12), logits, image, text)
    assert (plain - logits).abs().max() > 0.005
    changes = dict(grid=6, iterations=24, temperature=0.01, self_weight=0.0, edge_sharpness=1.0, confidence_floor=0.5)
    for name, value in changes.items():
        other = _refined(TextLaplacian(**{"grid": 12, name: value}), logits, image, text)
        assert not torch.equal(other, plain), name


def test_factors_round_halves_to_even() -> None:
    assert pool_factors((100, 140), 40) == (2, 4)
    assert pool_factors((500, 375), 80) == (6, 5)
    assert pool_factors((30, 120), 80) == (1, 2)


def test_two_images_are_twice_one() -> None:
    logits, image, text = _case(4, 19, 26, batch=2)
    image[1] *= 3  # means over the batch would show
    both = _refined(TextLaplacian(grid=7), logits, image, text)
    for each in range(2):
        alone = _refined(TextLaplacian(grid=7), *(tensor[each : each + 1] for tensor in (logits, image)), text)
        assert torch.equal(both[each : each + 1], alone)


def test_one_image_needs_no_batch() -> None:
    logits, image, text = _case(3, 21, 34)
    alone = _refined(TextLaplacian(grid=8), logits[0], image[0], text)
    assert torch.equal(alone, _refined(TextLaplacian(grid=8), logits, image, text)[0])


def test_equal_names_stay_equal_whatever_their_place() -> None:
    logits, image, text = _case(6, 21, 29)
    twins = torch.tensor([0, 1, 2, 3, 0, 4, 5, 0, 2])
    got = _refined(TextLaplacian(grid=7), logits[:, twins], image, text[twins])[0]
    assert torch.equal(got[0], got[4]) and torch.equal(got[0], got[7]) and torch.equal(got[2], got[8])


def test_constant_logits_stay() -> None:
    _, image, text = _case(3, 20, 30)
    logits = torch.tensor([0.1, 0.2, 0.3])[None, :, None, None].expand(1, 3, 20, 30)
    torch.testing.assert_close(_refined(TextLaplacian(grid=6), logits, image, text), logits)


def test_edges_stop_the_flow() -> None:
    grey = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    probs = torch.full((2, 1, 4), 0.5)
    across, down = edge_weights(grey, probs, torch.ones(2), 5.0)
    assert across[0, 0] == across[0, 2] == 1 and across[0, 1] < 1e-5
    assert down.shape == (0, 4)


def test_laplacian_is_symmetric_and_of_constants_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 3, 5, 7, generator=generator, dtype=torch.float64)
    edges = torch.rand(5, 6, generator=generator), torch.rand(4, 7, generator=generator)
    torch.testing.assert_close((laplacian(x, *edges) * y).sum(), (x * laplacian(y, *edges)).sum())
    assert laplacian(torch.ones(2, 5, 7), *edges).abs().max() == 0


def test_single_precision_would_not_do() -> None:
    logits, image, _text = _case(25, 12, 18)
    grey = image.mean((0, 1))
    probs = logits[0].softmax(0)
    trust, edges = confidence(probs, torch.ones(25), 0.05), edge_weights(grey, probs, torch.ones(25), 5.0)

    def solved(dtype: torch.dtype) -> Tensor:
        own, start, across, down = (tensor.to(dtype) for tensor in (trust, logits[0], *edges))
        return conjugate_gradient(lambda x: own * x + laplacian(x, across, down), start, own * start, 25).double()

    single, double = solved(torch.float32), solved(torch.float64)
    assert (single - double).abs().max() > 1e-4 * double.abs().max()


def test_conjugate_gradients_solve_in_as_many_steps_as_unknowns() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    matrix, right = root @ root.T + torch.eye(6), torch.randn(6, generator=generator, dtype=torch.float64)
    got = conjugate_gradient(lambda x: matrix @ x, torch.zeros(6).double(), right, 6)
    torch.testing.assert_close(got, torch.linalg.solve(matrix, right))
    again = conjugate_gradient(lambda x: matrix @ x, got, right, 50)  # a solved system stays solved
    torch.testing.assert_close(again, got)


def test_weights_of_names_lie_where_the_formula_has_them() -> None:
    _, _, text = _case(30, 1, 1)
    weights = query_weights(text, 0.5, 10.0)
    torch.testing.assert_close(weights.double(), torch.tensor(loops.name_weights(text.double().numpy(), 0.5, 10.0)))
    assert weights.min() > 10 / 11.00001 and weights.max() < 1
    assert query_weights(text, 1e-37, 10.0).isfinite().all()


def test_half_precision_and_autocast_change_nothing_but_the_input() -> None:
    logits, image, text = _case(4, 16, 24)
    refiner = TextLaplacian(grid=8)
    half = _refined(refiner, logits.bfloat16(), image.bfloat16(), text.bfloat16())
    assert half.dtype == torch.float32
    assert torch.equal(half, _refined(refiner, *(t.bfloat16().float() for t in (logits, image, text))))
    with torch.autocast("cpu", torch.bfloat16):
        under = _refined(refiner, logits, image, text)
    assert torch.equal(under, _refined(refiner, logits, image, text))


@pytest.mark.parametrize("max_elements", [1, 1500, 2**24])
def test_labels_in_pieces_are_those_of_all_at_once(max_elements: int) -> None:
    logits, image, text = _case(7, 24, 32)
    small = logits[0, :, ::2, ::2]
    size, classes = (24, 32), (0, 0, 1, 2, 2, 2, 3)
    refine = TextLaplacian(grid=8).prepare(image, text)
    resized = F.interpolate(small[None], size, mode="bilinear", align_corners=False)
    want = label(refine(resized)[0], size, classes, 4, 40.0, keep_probs=True)
    got = label(small, size, classes, 4, 40.0, keep_probs=True, refine=refine, max_elements=max_elements)
    assert torch.equal(got.labels, want.labels)
    torch.testing.assert_close(got.probs, want.probs)
    plain = label(small, size, classes, 4, 40.0, keep_probs=True)
    assert not torch.equal(got.probs, plain.probs)


def test_no_more_than_a_chunk_is_held_at_the_original_size() -> None:
    logits, image, text = _case(9, 40, 56)
    joint = TextLaplacian(grid=8).prepare(image, text)
    pooled, solved = [], []

    def pool(maps: Tensor) -> Tensor:
        pooled.append(maps.shape)
        return joint.pool(maps)

    def solve(maps: Tensor) -> Tensor:
        solved.append(maps.shape)
        return joint.solve(maps)

    label(logits[0], (40, 56), range(9), 9, 40.0, refine=Joint(pool, solve), max_elements=2 * 40 * 56 + 1)
    assert pooled == [(1, 2, 40, 56)] * 4 + [(1, 1, 40, 56)]
    assert solved == [(1, 9, 8, 8)]


def test_it_is_known_by_its_name() -> None:
    settings = dict(type="TextLaplacian", grid=40, iterations=3)
    assert build_refiner(settings) == MODELS.build(settings) == TextLaplacian(40, 3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(grid=0), "TextLaplacian grid must be a whole number of at least 1, got 0"),
        (dict(grid=8.0), "TextLaplacian grid"),
        (dict(iterations=-1), "TextLaplacian iterations"),
        (dict(temperature=0), "TextLaplacian temperature must be a number above 0"),
        (dict(self_weight=-1), "TextLaplacian self_weight"),
        (dict(self_weight=float("inf")), "TextLaplacian self_weight"),
        (dict(edge_sharpness=float("nan")), "TextLaplacian edge_sharpness"),
        (dict(confidence_floor=1.5), "TextLaplacian confidence_floor"),
    ],
)
def test_bad_settings(changes: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TextLaplacian(**changes)


def test_bad_input() -> None:
    logits, image, text = _case(4, 16, 24)
    with pytest.raises(ValueError, match="TextLaplacian looks at the words"):
        TextLaplacian().prepare(image)
    refine = TextLaplacian().prepare(image, text)
    with pytest.raises(ValueError, match=r"logits of 2 queries and embeddings of 4: give all at once"):
        refine(logits[:, :2])
    with pytest.raises(ValueError, match=r"\(1, 4, 15, 24\) are not of the image's size \(16, 24\)"):
        refine(logits[:, :, 1:])
