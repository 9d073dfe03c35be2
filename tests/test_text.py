from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn

from rfclip import text
from rfclip.text import encode_text, text_embeddings

TOKENIZE = open_clip.get_tokenizer("ViT-B-16")
NAMES = ["sky", "person in a very long woollen jacket", "{} {0}, %s", "Baum 🌳"]
TEMPLATES = ["a photo of a {}.", "{}", "a {} beside a {}, seen from far away in the evening."]


@dataclass(frozen=True, eq=False)
class Loaded:
    model: nn.Module
    tokenizer: Callable[..., Tensor] = TOKENIZE
    architecture: str = "small"
    weights_hash: str = "0" * 64
    activation: str = "QuickGELU"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names of each text pass."""
    calls: list[list[str]] = []

    def spy(model: Any, tokenizer: Any, names: list[str], templates: Any) -> Tensor:
        calls.append(list(names))
        return encode_text(model, tokenizer, names, templates)

    monkeypatch.setattr(text, "encode_text", spy)
    return calls


def _one_by_one(model: nn.Module, names: list[str], templates: list[str]) -> Tensor:
    rows = []
    for name in names:
        total = 0
        for template in templates:
            (embedding,) = model.encode_text(TOKENIZE([name.join(template.split("{}"))]))
            total = total + embedding / embedding.norm()
        mean = total / len(templates)
        rows.append(mean / mean.norm())
    return torch.stack(rows)


@pytest.mark.parametrize("batch_size", [1, 5, 256])
def test_equals_one_prompt_at_a_time(random_clip: nn.Module, batch_size: int) -> None:
    got = encode_text(random_clip, TOKENIZE, NAMES, TEMPLATES, batch_size)
    assert got.shape == (4, 32) and got.dtype == torch.float32 and not got.requires_grad
    torch.testing.assert_close(got, _one_by_one(random_clip, NAMES, TEMPLATES), rtol=1e-5, atol=1e-6)


def test_model_is_left_alone(random_clip: nn.Module) -> None:
    before = {name: value.clone() for name, value in random_clip.named_parameters()}
    mask = random_clip.attn_mask
    encode_text(random_clip, TOKENIZE, NAMES, TEMPLATES)
    assert random_clip.attn_mask is mask
    after = dict(random_clip.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_batches_are_cut_behind_their_longest_prompt(random_clip: nn.Module) -> None:
    widths = []
    random_clip.transformer.register_forward_pre_hook(lambda _, args: widths.append(args[0].shape[1]))
    encode_text(random_clip, TOKENIZE, ["a", "a b c d e f"], ["{}"], batch_size=1)
    assert widths == [3, 8]  # start and end token count


def test_other_text_towers_see_the_whole_context() -> None:
    class Bag(nn.Module):
        """Reads the padding too, so cutting it would show."""

        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(49408, 6)

        def encode_text(self, tokens: Tensor) -> Tensor:
            return self.table(tokens).mean(1)

    bag = Bag().requires_grad_(False)
    got = encode_text(bag, TOKENIZE, NAMES, TEMPLATES, 3)
    torch.testing.assert_close(got, _one_by_one(bag, NAMES, TEMPLATES), rtol=1e-5, atol=1e-6)


def test_autocast_outside_changes_nothing(random_clip: nn.Module) -> None:
    want = encode_text(random_clip, TOKENIZE, NAMES, TEMPLATES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = encode_text(random_clip, TOKENIZE, NAMES, TEMPLATES)
    assert torch.equal(got, want)


@pytest.mark.parametrize(("names", "templates"), [([], TEMPLATES), (NAMES, [])])
def test_nothing_to_encode(random_clip: nn.Module, names: list[str], templates: list[str]) -> None:
    with pytest.raises(ValueError, match="make no prompt"):
        encode_text(random_clip, TOKENIZE, names, templates)


def test_cache_asks_for_new_names_only(random_clip: nn.Module, encoded: list[list[str]]) -> None:
    clip = Loaded(random_clip)
    first = text_embeddings(clip, ["sky", "tree", "sky"], TEMPLATES)
    again = text_embeddings(clip, ["boat", "sky"], TEMPLATES)
    assert encoded == [["sky", "tree"], ["boat"]]
    assert torch.equal(first[0], first[2]) and torch.equal(first[0], again[1])
    want = _one_by_one(random_clip, ["boat", "sky"], TEMPLATES)
    torch.testing.assert_close(again, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("change", ["weights_hash", "architecture", "activation"])
def test_cache_key_holds_what_counts(random_clip: nn.Module, encoded: list[list[str]], change: str) -> None:
    text_embeddings(Loaded(random_clip), ["sky"], TEMPLATES)
    text_embeddings(Loaded(random_clip, **{change: "another"}), ["sky"], TEMPLATES)
    text_embeddings(Loaded(random_clip), ["sky"], TEMPLATES[:1])
    text_embeddings(Loaded(random_clip), ["sky"], TEMPLATES)
    assert encoded == [["sky"]] * 3


def test_truncated_cache_is_rebuilt(random_clip: nn.Module, cache: Path, encoded: list[list[str]]) -> None:
    clip = Loaded(random_clip)
    want = text_embeddings(clip, NAMES, TEMPLATES)
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:70])
    assert torch.allclose(text_embeddings(clip, NAMES, TEMPLATES), want)
    assert len(encoded) == 2


def test_result_is_an_ordinary_tensor_under_inference_mode(random_clip: nn.Module) -> None:
    with torch.inference_mode():
        got = text_embeddings(Loaded(random_clip), NAMES, TEMPLATES)
    assert not got.is_inference() and not got.requires_grad
    torch.testing.assert_close(got.norm(dim=-1), torch.ones(len(NAMES)))
