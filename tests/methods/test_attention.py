"""The fast attention against the pure functions that it stands for."""

import pytest
import torch

from rfclip.clip.towers import softmax_attention
from rfclip.methods import attention
from rfclip.methods.attention import KeyAttention, redistributed_attention, redistributed_matrix
from rfclip.refocus import redistribute_attention

BATCH, HEADS, TOKENS, SIZE = 3, 5, 13, 8


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def heads(seed=0, dtype=torch.float64):
    return random(BATCH, HEADS, TOKENS, SIZE, seed=seed, dtype=dtype) * 1.5


@pytest.fixture
def masks():
    """Image 0: distractors and defocus; image 1: no distractor; image 2: no defocus."""
    distractors, defocus = (torch.zeros(BATCH, TOKENS - 1, dtype=torch.bool) for _ in range(2))
    distractors[0, [2, 7]] = distractors[2, [0, 5, 11]] = True
    defocus[0, [1, 3, 8]] = defocus[1, [4, 6]] = True
    return distractors, defocus


@pytest.fixture(params=["one head at a time", "uneven pieces", "all at once"])
def piece_size(request, monkeypatch):
    size = {"one head at a time": 1, "uneven pieces": TOKENS**2 * 8 * 3, "all at once": 1 << 30}[request.param]
    monkeypatch.setattr(attention, "_CPU_PIECE", size)


def filled(layers=3, dtype=torch.float64):
    keys = KeyAttention()
    for seed in range(layers):
        keys.add(heads(seed, dtype))
    return keys


def blocks(layers=3):
    return [softmax_attention(heads(seed), heads(seed))[:, :, 1:, 1:] for seed in range(layers)]


def test_key_attention_is_the_mean_of_its_layers(piece_size):
    keys = filled()
    mean = torch.stack(blocks()).mean(0)
    assert keys.layers == 3
    torch.testing.assert_close(keys.mean(), mean)
    torch.testing.assert_close(keys.mean_over_heads(), mean.mean(1))


def test_looking_at_a_layer(piece_size):
    keys = KeyAttention()
    for seed in range(3):
        torch.testing.assert_close(keys.add_and_look(heads(seed)), blocks()[seed].mean(1))
    assert torch.equal(keys.mean(), filled().mean())


def test_attend(piece_size, masks):
    v = heads(9)[:, :, 1:]
    mean = torch.stack(blocks()).mean(0)
    torch.testing.assert_close(filled().attend(v), mean @ v)
    moved = redistribute_attention(mean, *masks, 0.7)
    torch.testing.assert_close(filled().attend_redistributed(v, *masks, 0.7), moved @ v)


@pytest.mark.parametrize("layers", [0, 2])
def test_attend_with_one_more_layer(piece_size, layers):
    v, keys = heads(9)[:, :, 1:], filled(layers)
    expected = torch.stack([*blocks(layers), softmax_attention(heads(7), heads(7))[:, :, 1:, 1:]]).mean(0) @ v
    for _ in range(2):  # adds nothing
        torch.testing.assert_close(keys.attend_with(heads(7), v), expected)
    assert keys.layers == layers


@pytest.fixture(params=["flash", "matrix"])
def kernel(request, monkeypatch):
    if request.param == "matrix":
        monkeypatch.setattr(attention, "_flash_attention_for_cpu", None)
    elif attention._flash_attention_for_cpu is None:
        pytest.skip("this torch has no such kernel")


@pytest.mark.parametrize("beta", [0, 0.7, 1])
def test_redistributed_attention(kernel, masks, beta):
    q, k, v = heads(1), heads(2), heads(3)
    before = [tensor.clone() for tensor in (q, k, v)]
    matrix = softmax_attention(q, k)
    expected = matrix.clone()
    expected[:, :, 1:, 1:] = redistribute_attention(matrix[:, :, 1:, 1:], *masks, beta)
    torch.testing.assert_close(redistributed_matrix(matrix, *masks, beta), expected)
    assert torch.equal(expected[:, :, 0], matrix[:, :, 0])
    assert torch.equal(expected[:, :, :, 0], matrix[:, :, :, 0])
    torch.testing.assert_close(redistributed_attention(q, k, v, *masks, beta), expected @ v)
    assert all(torch.equal(tensor, old) for tensor, old in zip((q, k, v), before, strict=True))


@pytest.mark.parametrize("marked", ["none", "all", "all but one"])
def test_extreme_masks(kernel, masks, marked):
    q, k, v = heads(1), heads(2), heads(3)
    distractors = torch.full_like(masks[0], marked != "none")
    if marked == "all but one":
        distractors[:, 4] = False
    expected = redistributed_matrix(softmax_attention(q, k), distractors, masks[1], 0.7) @ v
    torch.testing.assert_close(redistributed_attention(q, k, v, distractors, masks[1], 0.7), expected)


def test_rows_that_give_the_receivers_nothing_stay(kernel):
    q, k, v = (tensor[:1].float() for tensor in (heads(1), heads(2), heads(3)))
    k[:, :, 1] = 400 * q[:, :, 4]  # query 4 sees nothing but the distractor
    distractors = torch.zeros(1, TOKENS - 1, dtype=torch.bool)
    distractors[0, 0] = True
    out = redistributed_attention(q, k, v, distractors, ~distractors, 0.7)
    torch.testing.assert_close(out[:, :, 4], v[:, :, 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_lower_precision(kernel, masks, dtype, autocast):
    q, k, v = heads(1, dtype), heads(2, dtype), heads(3, dtype)
    matrix = redistributed_matrix(softmax_attention(q.double(), k.double()), *masks, 0.7)
    mean = torch.stack([softmax_attention(heads(s, dtype).double(), heads(s, dtype).double()) for s in range(3)]).mean(
        0
    )
    mean = mean[:, :, 1:, 1:]
    tolerance = {"rtol": 0, "atol": 2e-6 if dtype == torch.float32 and not autocast else 0.05}
    patches = v[:, :, 1:]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        keys = filled(dtype=dtype)
        results = [
            (redistributed_attention(q, k, v, *masks, 0.7), matrix @ v.double()),
            (keys.attend(patches), mean @ patches.double()),
            (
                keys.attend_redistributed(patches, *masks, 0.7),
                redistribute_attention(mean, *masks, 0.7) @ patches.double(),
            ),
        ]
    torch.testing.assert_close(keys.mean(), mean.float(), rtol=0, atol=2e-6)  # sums stay in fp32
    for result, expected in results:
        assert autocast or result.dtype == dtype
        torch.testing.assert_close(result.double(), expected, **tolerance)
