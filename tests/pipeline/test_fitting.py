"""What is put round a piece, and how its maps come back."""

import pytest
import torch
import torch.nn.functional as F

from rfclip.pipeline.fitting import Fit

BLACK = (-1.5, -2.0, -0.5)


def ramp(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height))


@pytest.mark.parametrize(
    ("size", "multiple", "above", "left", "padded"),
    [
        ((30, 47), None, 0, 0, (30, 47)),
        ((30, 47), 1, 0, 0, (30, 47)),
        ((28, 56), 28, 0, 0, (28, 56)),
        ((30, 47), 28, 13, 4, (56, 56)),  # 26 rows more, and 9 columns: 4 on the left and 5 on the right
        ((55, 1), 28, 0, 13, (56, 28)),  # one row, below
    ],
)
def test_zeros_are_spread_round_a_piece(size, multiple, above, left, padded) -> None:
    fit, piece = Fit(patch=16, multiple=multiple), ramp(*size)
    result = fit(piece)
    assert fit.adds_zeros(*size) is (size != padded)
    assert result.shape == (2, 3, *padded) and fit.corner(*size) == (above, left)
    expected = torch.zeros(2, 3, *padded)
    expected[..., above : above + size[0], left : left + size[1]] = piece
    assert torch.equal(result, expected)


@pytest.mark.parametrize("size", [(32, 48), (33, 47), (5, 16)])
def test_black_is_black_before_normalisation(size) -> None:
    piece = ramp(*size)
    result = Fit(16, "pad_black", black=BLACK)(piece)
    height, width = (-(-side // 16) * 16 for side in size)
    expected = torch.tensor(BLACK).view(1, 3, 1, 1).repeat(2, 1, height, width)
    expected[..., : size[0], : size[1]] = piece
    assert torch.equal(result, expected)
    assert torch.equal(Fit(16, "crop", black=BLACK)(piece), piece)


def test_black_that_nobody_knows_is_an_error_where_it_is_needed() -> None:
    assert Fit(16, "pad_black")(ramp(32, 16)).shape[-2:] == (32, 16)
    with pytest.raises(ValueError, match=r"pad_black.*DenseEngine"):
        Fit(16, "pad_black")(ramp(33, 16))


def test_multiple_comes_before_the_patch() -> None:
    piece = ramp(20, 30)
    result = Fit(16, "pad", multiple=28)(piece)
    inner = Fit(16, multiple=28)(piece)
    assert inner.shape[-2:] == (28, 56) and result.shape[-2:] == (32, 64)
    assert torch.equal(result, F.pad(inner, (0, 8, 0, 4), mode="replicate"))


@pytest.mark.parametrize("grid", [(7, 7), (3, 3), (5, 4)])  # a finer grid, CLIP's, and any other
def test_maps_are_resized_to_the_padded_piece_and_cut(grid) -> None:
    maps = torch.randn(2, 4, *grid, generator=torch.Generator().manual_seed(0))
    cut = Fit(16, multiple=28).cut(maps, (30, 47))
    full = F.interpolate(maps, (56, 56), mode="bilinear", align_corners=False)
    torch.testing.assert_close(cut, full[..., 13:43, 4:51])
    cut = Fit(16, "pad_black", black=BLACK).cut(maps, (30, 47))
    full = F.interpolate(maps, (32, 48), mode="bilinear", align_corners=False)
    torch.testing.assert_close(cut, full[..., :30, :47])


def test_stretched_maps_span_what_patch_fit_did_not_add() -> None:
    maps = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    stretched = Fit(16, "pad_black", black=BLACK).stretched(maps, (30, 47))
    torch.testing.assert_close(stretched, F.interpolate(maps, (30, 47), mode="bilinear", align_corners=False))
    stretched = Fit(16, "pad_black", 28, BLACK).stretched(maps, (30, 47))
    full = F.interpolate(maps, (56, 56), mode="bilinear", align_corners=False)
    torch.testing.assert_close(stretched, full[..., 13:43, 4:51])
