from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rfclip.pipeline.windows import boxes, merge


def test_voc_frame() -> None:
    assert boxes(336, 448, 224, 112) == [(y, x, y + 224, x + 224) for y in (0, 112) for x in (0, 112, 224)]


def test_last_window_moves_back_inside() -> None:
    assert boxes(300, 224, 224, 112) == [(0, 0, 224, 224), (76, 0, 300, 224)]
    assert boxes(224, 337, 224, 112) == [(0, x, 224, x + 224) for x in (0, 112, 113)]


def test_small_images_and_sides() -> None:
    assert boxes(100, 80, 224, 112) == [(0, 0, 100, 80)]
    assert boxes(224, 224, 224, 112) == [(0, 0, 224, 224)]
    assert boxes(100, 300, 224, 112) == [(0, 0, 100, 224), (0, 76, 100, 300)]
    assert boxes(1, 1, 224, 112) == [(0, 0, 1, 1)]


def test_cityscapes_has_36() -> None:
    assert len(boxes(560, 1120, 224, 112)) == 36


sizes = st.integers(1, 120)


@settings(deadline=None, max_examples=40)
@given(sizes, sizes, st.integers(2, 50), st.integers(2, 50))
def test_geometry(height: int, width: int, crop: int, stride: int) -> None:
    stride = min(stride, crop)
    found = boxes(height, width, crop, stride)
    covered = torch.zeros(height, width, dtype=torch.bool)
    for y0, x0, y1, x1 in found:
        assert min(y0, x0) >= 0 and y1 <= height and x1 <= width
        assert (y1 - y0, x1 - x0) == (min(crop, height), min(crop, width))
        covered[y0:y1, x0:x1] = True
    assert covered.all()
    assert len(set(found)) == len(found) and found == sorted(found)
    assert all(y0 % stride == 0 or y1 == height for y0, _, y1, _ in found)
    assert all(x0 % stride == 0 or x1 == width for _, x0, _, x1 in found)


@pytest.mark.parametrize("sizes", [(0, 5, 4, 2), (5, 0, 4, 2), (5, 5, 0, 0), (5, 5, 4, 0), (9, 9, 2, 3)])
def test_impossible_sizes(sizes: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="cannot be cut"):
        boxes(*sizes)


def test_merge_is_the_mean_of_what_covers_a_pixel() -> None:
    generator = torch.Generator().manual_seed(0)
    found = boxes(23, 31, 10, 7)
    pieces = [torch.randn(3, y1 - y0, x1 - x0, generator=generator) for y0, x0, y1, x1 in found]
    kept = [piece.clone() for piece in pieces]
    merged = merge(zip(found, pieces, strict=True), 23, 31)
    for y in range(23):
        for x in range(31):
            here = [
                piece[:, y - y0, x - x0]
                for (y0, x0, y1, x1), piece in zip(found, pieces, strict=True)
                if y0 <= y < y1 and x0 <= x < x1
            ]
            torch.testing.assert_close(merged[:, y, x], torch.stack(here).mean(0))
    assert all(torch.equal(a, b) for a, b in zip(pieces, kept, strict=True))


def test_merge_gives_a_whole_back() -> None:
    whole = torch.arange(2 * 30 * 17).float().view(2, 30, 17)
    cut = [((y0, x0, y1, x1), whole[:, y0:y1, x0:x1]) for y0, x0, y1, x1 in boxes(30, 17, 8, 4)]
    assert torch.equal(merge(iter(cut), 30, 17), whole)


def test_merge_takes_one_piece_at_a_time() -> None:
    taken = []

    def pieces():
        for box in boxes(8, 4, 4, 4):
            taken.append(box)
            yield box, torch.ones(1, 4, 4)

    assert torch.equal(merge(pieces(), 8, 4), torch.ones(1, 8, 4))
    assert len(taken) == 2


def test_merge_refuses_holes_and_misfits() -> None:
    with pytest.raises(ValueError, match="uncovered"):
        merge([((0, 0, 2, 2), torch.ones(1, 2, 2))], 3, 2)
    with pytest.raises(ValueError, match="uncovered"):
        merge([], 3, 2)
    with pytest.raises(ValueError, match="does not fit the box"):
        merge([((0, 0, 2, 2), torch.ones(1, 2, 3))], 2, 2)
