"""The pieces of the ViT against open_clip's own forward."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import ResidualAttentionBlock
from torch import nn

from rfclip.clip import towers as V
from rfclip.clip.text import encode_text

PATCH = 16


def forward(vit, images):
    tokens, _ = V.embed(vit, images)
    for block in V.blocks(vit):
        tokens = V.run_block(block, tokens)
    return V.project(vit, tokens)


def test_accessors(tiny_vit):
    assert V.width(tiny_vit) == 64
    assert V.num_layers(tiny_vit) == len(V.blocks(tiny_vit)) == 4
    assert V.num_heads(tiny_vit) == 4
    assert V.patch_size(tiny_vit) == PATCH
    assert V.native_grid(tiny_vit) == (5, 7)


@pytest.mark.parametrize("settings", [{}, {"ls_init_value": 0.3}, {"no_ln_pre": True}])
def test_pieces_make_up_open_clips_forward(make_vit, make_images, settings):
    vit, images = make_vit(**settings), make_images(3, 80, 112)
    torch.testing.assert_close(forward(vit, images)[:, 0], vit(images), rtol=1e-5, atol=1e-5)


def test_all_tokens_equal_open_clips_intermediates(tiny_vit, make_images):
    images = make_images(2, 80, 112)
    expected = tiny_vit.forward_intermediates(images, output_fmt="NLC", output_extra_tokens=True)
    tokens, grid = V.embed(tiny_vit, images)
    assert grid == (5, 7)
    for block, patches, prefix in zip(
        V.blocks(tiny_vit),
        expected["image_intermediates"],
        expected["image_intermediates_prefix"],
        strict=True,
    ):
        tokens = V.run_block(block, tokens)
        torch.testing.assert_close(tokens, torch.cat([prefix, patches], dim=1), rtol=1e-5, atol=1e-5)


def test_embed_of_an_identity_like_stem(tiny_vit, make_images):
    images = make_images(2, 80, 112)
    tokens, _ = V.embed(tiny_vit, images)
    torch.testing.assert_close(tokens, tiny_vit._embeds(images))


def test_qkv_equals_a_loop_over_heads(tiny_vit):
    block = V.blocks(tiny_vit)[1]
    x = torch.randn(2, 6, 64, generator=torch.Generator().manual_seed(3))
    normed, weight, bias = block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias
    for part, got in enumerate(V.qkv(block, x)):
        assert got.shape == (2, 4, 6, 16)
        for head in range(4):
            rows = slice(part * 64 + head * 16, part * 64 + (head + 1) * 16)
            torch.testing.assert_close(got[:, head], normed @ weight[rows].T + bias[rows], rtol=1e-5, atol=1e-5)


def test_kv_is_qkv_without_queries(tiny_vit):
    block = V.blocks(tiny_vit)[1]
    x = torch.randn(2, 6, 64, generator=torch.Generator().manual_seed(3))
    for part, whole in zip(V.kv(block, x), V.qkv(block, x)[1:], strict=True):
        torch.testing.assert_close(part, whole)


def test_softmax_attention_equals_a_loop_and_the_fused_kernel():
    generator = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(2, 3, 5, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    attention = V.softmax_attention(q, k)
    for b in range(2):
        for h in range(3):
            for i in range(5):
                weights = [math.exp(float(q[b, h, i] @ k[b, h, j]) / math.sqrt(8)) for j in range(5)]
                expected = torch.tensor(weights, dtype=torch.float64) / sum(weights)
                torch.testing.assert_close(attention[b, h, i], expected)
    torch.testing.assert_close(V.fused_attention(q, k, v), attention @ v)


def test_attention_output_joins_heads_in_order(tiny_vit):
    block = V.blocks(tiny_vit)[0]
    heads = torch.randn(2, 4, 6, 16, generator=torch.Generator().manual_seed(5))
    joined = torch.cat([heads[:, h] for h in range(4)], dim=-1)
    torch.testing.assert_close(V.attention_output(block, heads), block.attn.out_proj(joined))


def test_batch_of_two_is_two_batches_of_one(tiny_vit, make_images):
    images = make_images(2, 70, 130)
    both = forward(tiny_vit, images)
    one_by_one = torch.cat([forward(tiny_vit, image[None]) for image in images])
    torch.testing.assert_close(both, one_by_one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(80, 112), (95, 127), (33, 200), (16, 16), (31, 16)])
def test_trailing_rows_and_columns_are_not_seen(tiny_vit, make_images, height, width):
    images = make_images(2, height, width)
    tokens, grid = V.embed(tiny_vit, images)
    assert grid == (height // PATCH, width // PATCH)
    assert tokens.shape == (2, 1 + grid[0] * grid[1], 64)
    cropped, _ = V.embed(tiny_vit, images[..., : grid[0] * PATCH, : grid[1] * PATCH])
    torch.testing.assert_close(tokens, cropped)


@pytest.mark.parametrize(("height", "width", "expected"), [(1, 1, (1, 1)), (15, 50, (1, 3)), (40, 3, (2, 1))])
def test_a_side_shorter_than_a_patch_is_replicated(tiny_vit, make_images, height, width, expected):
    images = make_images(2, height, width)
    rows = torch.arange(max(height, PATCH)).clamp(max=height - 1)
    columns = torch.arange(max(width, PATCH)).clamp(max=width - 1)
    tokens, grid = V.embed(tiny_vit, images)
    assert grid == expected
    torch.testing.assert_close(tokens, V.embed(tiny_vit, images[..., rows, :][..., columns])[0])


def cubic(t, a=-0.75):
    """The bicubic kernel of torch (Keys, a = -0.75)."""
    t = abs(t)
    if t <= 1:
        return ((a + 2) * t - (a + 3)) * t * t + 1
    return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a if t < 2 else 0.0


def resample_loop(plane, size):
    """Bicubic by hand with scale factors (n + 0.1) / n0 as they are; plane (h0, w0), borders repeated."""
    matrices = []
    for native, wanted in zip(plane.shape, size, strict=True):
        matrix = torch.zeros(wanted, native, dtype=torch.float64)
        for i in range(wanted):
            source = (i + 0.5) * native / (wanted + 0.1) - 0.5
            for tap in range(math.floor(source) - 1, math.floor(source) + 3):
                matrix[i, min(max(tap, 0), native - 1)] += cubic(source - tap)
        matrices.append(matrix)
    return matrices[0] @ plane @ matrices[1].T


@pytest.mark.parametrize("grid", [(3, 9), (7, 5), (1, 1), (1, 12), (14, 4)])
def test_positional_table_equals_bicubic_by_hand(tiny_vit, grid):
    table = V.positional_table(tiny_vit, grid)
    native = tiny_vit.positional_embedding
    torch.testing.assert_close(table[0], native[0])
    for channel in (0, 17, 63):
        expected = resample_loop(native[1:, channel].double().reshape(5, 7), grid).flatten()
        torch.testing.assert_close(table[1:, channel].double(), expected, rtol=1e-4, atol=1e-5)


def test_positional_table_is_untouched_on_the_native_grid_only(tiny_vit):
    assert V.positional_table(tiny_vit, (5, 7)) is tiny_vit.positional_embedding
    turned = V.positional_table(tiny_vit, (7, 5))  # as many tokens, another grid
    assert turned.shape == tiny_vit.positional_embedding.shape
    assert not torch.allclose(turned, tiny_vit.positional_embedding)


def test_positional_table_differs_from_resizing_by_output_size(tiny_vit):
    patches = tiny_vit.positional_embedding[1:].T.reshape(1, 64, 5, 7)
    by_size = F.interpolate(patches, size=(6, 9), mode="bicubic", align_corners=False).flatten(2)[0].T
    difference = (V.positional_table(tiny_vit, (6, 9))[1:] - by_size).abs().max()
    assert 1e-4 < difference < 0.2


@pytest.mark.parametrize("native", [1, 7, 13, 14, 16, 24, 37])
def test_positional_table_has_the_right_size_on_any_grid(native):
    vit = SimpleNamespace(positional_embedding=torch.zeros(1 + native * native, 1), grid_size=(native, native))
    for side in [*range(1, 80), 127, 128, 129, 255, 511, 1000, 4095]:
        assert V.positional_table(vit, (side, 3)).shape == (1 + side * 3, 1)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.zeros(3, 32, 32), "got shape (3, 32, 32)"),
        (torch.zeros(1, 1, 32, 32), "got shape (1, 1, 32, 32)"),
        (torch.zeros(1, 3, 0, 32), "got shape (1, 3, 0, 32)"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "torch.uint8"),
    ],
)
def test_other_inputs_are_refused(tiny_vit, images, says):
    with pytest.raises(ValueError) as caught:
        V.embed(tiny_vit, images)
    assert says in str(caught.value)


def test_inputs_are_not_modified(tiny_vit, make_images):
    images = make_images(2, 48, 64)
    kept = images.clone()
    tokens, _ = V.embed(tiny_vit, images)
    before = tokens.clone()
    V.run_block(V.blocks(tiny_vit)[0], tokens)
    V.project(tiny_vit, tokens)
    torch.testing.assert_close(images, kept, rtol=0, atol=0)
    torch.testing.assert_close(tokens, before, rtol=0, atol=0)


def test_autocast_keeps_the_residual_stream_in_fp32(tiny_vit, make_images):
    images = make_images(2, 80, 112)
    exact = forward(tiny_vit, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens, _ = V.embed(tiny_vit, images)
        assert tokens.dtype == torch.float32
        for block in V.blocks(tiny_vit):
            q, k, v = V.qkv(block, tokens)
            assert q.dtype == k.dtype == v.dtype == torch.bfloat16
            assert V.softmax_attention(q, k).dtype == torch.float32
            tokens = V.run_block(block, tokens)
            assert tokens.dtype == torch.float32
        projected = V.project(tiny_vit, tokens)
    assert projected.dtype == torch.float32
    assert F.cosine_similarity(projected, exact, dim=-1).min() > 0.999


def test_planted_channels_make_distractors_at_every_boundary(planted, make_images):
    images = make_images(4, 80, 112)
    tokens, _ = V.embed(planted.vit, images)
    masks = []
    for block in [None, *V.blocks(planted.vit)]:
        tokens = tokens if block is None else V.run_block(block, tokens)
        shifted = tokens[:, 1:] - tokens[:, 1:].amin(-1, keepdim=True)
        shares = shifted / shifted.sum(-1, keepdim=True)
        over = shares > 5 / 64
        masks.append(over.any(-1))
        assert set(over.flatten(0, 1).any(0).nonzero().flatten().tolist()) <= set(planted.dims)
        assert 0.03 <= masks[-1].float().mean() <= 0.10
    assert any(not torch.equal(masks[0], mask) for mask in masks[1:])


def test_a_plain_vit_is_supported(tiny_vit):
    assert V.check_supported(tiny_vit) is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"layers": (1, 1, 1, 1), "width": 8, "image_size": 64}, "ResNet"),
        ({"attentional_pool": True, "attn_pooler_heads": 2}, "pools by attention"),
        ({"attentional_pool": "parallel", "attn_pooler_heads": 2}, "pools by attention"),
        ({"pool_type": "avg"}, "pools by 'avg'"),
        ({"qk_norm": True}, r"CustomResidualAttentionBlock\) has another attention .*: it has ln_q, ln_k"),
        ({"scaled_cosine_attn": True}, "it has logit_scale, scaled_cosine"),
        ({"scale_heads": True}, "it has head_scale, scale_heads"),
        ({"scale_attn_inner": True}, "it has ln_inner"),
        ({"scale_attn": True}, "it has ln_attn"),
        ({"patch_size": (16, 8)}, "not square"),
    ],
)
def test_other_towers_are_refused_with_the_reason(settings, says):
    sizes = {"layers": 2, "width": 64, "head_width": 16, "patch_size": 16, "image_size": 32, **settings}
    tower = _build_vision_tower(32, CLIPVisionCfg(**sizes))
    with pytest.raises(ValueError, match=says) as caught:
        V.check_supported(tower)
    assert "ViT-B-16" in str(caught.value)


class OwnAttention(nn.Module):
    """An attention of CLIP's formula that is no nn.MultiheadAttention and knows no embed_dim."""

    def __init__(self, other):
        super().__init__()
        self.num_heads, self.scale = other.num_heads, other.head_dim**-0.5
        self.in_proj_weight, self.in_proj_bias = other.in_proj_weight, other.in_proj_bias
        self.ln_q, self.ln_k, self.ln_inner, self.attn_drop = nn.Identity(), nn.Identity(), None, nn.Dropout(0.1)
        self.head_scale = self.logit_scale = None
        self.out_proj = other.out_proj

    def forward(self, x, *_, attn_mask=None, **__):
        heads = F.linear(x, self.in_proj_weight, self.in_proj_bias).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask)
        return (self.out_proj(mixed.transpose(1, 2).flatten(2)),)


def with_own_attention(model):
    for block in (module for module in model.modules() if isinstance(module, ResidualAttentionBlock)):
        block.attn = OwnAttention(block.attn).eval()
    return model


def test_an_attention_of_another_class_and_the_same_formula_gives_the_same_numbers(make_vit, make_images):
    vit, own, images = make_vit(), with_own_attention(make_vit()), make_images(2, 80, 112)
    V.check_supported(own)
    assert torch.equal(forward(own, images), forward(vit, images))
    torch.testing.assert_close(own(images), vit(images), rtol=1e-5, atol=1e-5)
    assert V.num_heads(own) == 4


def test_the_text_tower_may_have_such_an_attention_too(make_clip):
    clip, own = make_clip(), with_own_attention(make_clip())
    names, templates = ["cat", "a long name of a dog"], ["a photo of a {}."]
    embeddings = [encode_text(model, SimpleTokenizer(), names, templates) for model in (clip, own)]
    torch.testing.assert_close(*embeddings, rtol=1e-5, atol=1e-5)


def test_an_attention_without_bias(make_vit, make_images):
    vit, without = make_vit(), with_own_attention(make_vit())
    for block, other in zip(V.blocks(vit), V.blocks(without), strict=True):
        block.attn.in_proj_bias.zero_()
        other.attn.in_proj_bias = None
    V.check_supported(without)
    images = make_images(1, 80, 112)
    torch.testing.assert_close(forward(without, images), forward(vit, images), rtol=1e-5, atol=1e-5)


def test_a_custom_block_without_its_extras_is_supported(make_vit, make_images):
    vit, images = make_vit(block_type="custom"), make_images(2, 80, 112)
    V.check_supported(vit)
    torch.testing.assert_close(forward(vit, images)[:, 0], vit(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda attn: attn.__setattr__("ln_q", nn.LayerNorm(16)), "it has ln_q"),
        (lambda attn: attn.__setattr__("ln_k", nn.LayerNorm(16, elementwise_affine=False)), "it has ln_k"),
        (lambda attn: attn.__setattr__("ln_inner", nn.LayerNorm(64)), "it has ln_inner"),
        (lambda attn: attn.__setattr__("gate", nn.Linear(64, 64)), "it has gate"),
        (lambda attn: attn.__setattr__("gate", True), "it has gate"),
        (lambda attn: attn.__setattr__("scaled_cosine", True), "it has scaled_cosine"),
        (lambda attn: attn.__setattr__("head_scale", nn.Parameter(torch.ones(4, 1, 1))), "it has head_scale"),
        (lambda attn: attn.register_buffer("rope", torch.ones(4)), "it has rope"),
        (lambda attn: attn.__setattr__("scale", 1.0), "it has scale"),
        (lambda attn: attn.__setattr__("in_proj_weight", None), "no in_proj_weight"),
        (
            lambda attn: attn.__setattr__("in_proj_weight", nn.Parameter(torch.ones(96, 64))),
            r"\(96, 64\) does not hold",
        ),
        (lambda attn: attn.__setattr__("num_heads", 5), "of 5 heads"),
    ],
)
def test_an_attention_of_another_formula_is_refused(make_vit, change, says):
    vit = with_own_attention(make_vit())
    change(V.blocks(vit)[2].attn)
    with pytest.raises(ValueError, match=rf"block 2 .*{says}"):
        V.check_supported(vit)


@pytest.mark.parametrize("setting", ["add_bias_kv", "add_zero_attn"])
def test_a_multihead_attention_with_extras_is_refused(make_vit, setting):
    vit = make_vit()
    V.blocks(vit)[0].attn = nn.MultiheadAttention(64, 4, batch_first=True, **{setting: True})
    with pytest.raises(ValueError, match="another attention"):
        V.check_supported(vit)


def test_towers_of_other_libraries_are_refused():
    timm_like = nn.Module()
    timm_like.trunk = nn.Identity()
    with pytest.raises(ValueError, match="timm"):
        V.check_supported(timm_like)
    with pytest.raises(ValueError, match="no open_clip VisionTransformer"):
        V.check_supported(nn.Linear(2, 2))


@pytest.mark.slow
def test_head_count_of_vit_h_comes_from_the_model(make_images):
    vit = _build_vision_tower(
        1024, CLIPVisionCfg(layers=32, width=1280, head_width=80, patch_size=14, image_size=224)
    ).eval()
    assert V.num_heads(vit) == 16
    with torch.inference_mode():
        images = make_images(1, 224, 224)
        torch.testing.assert_close(forward(vit, images)[:, 0], vit(images), rtol=1e-3, atol=1e-4)
