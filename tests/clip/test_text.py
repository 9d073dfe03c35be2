from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn

from rfclip import OpenVocabSegmenter
from rfclip.clip import text
from rfclip.clip.loader import LoadedCLIP, load_clip
from rfclip.clip.text import encode_text, text_embeddings
from rfclip.plugin.segmentor import RFCLIP
from tests.support.log import keep_log

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
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many names each text pass embeds."""
    calls: list[int] = []
    encode = text._encode

    def spy(model: Any, tokens: Tensor, *more: int) -> Tensor:
        calls.append(len(tokens))
        return encode(model, tokens, *more)

    monkeypatch.setattr(text, "_encode", spy)
    return calls


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    keep_log(monkeypatch, text, lambda message, _: lines.append(message))
    return lines


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


def test_cache_asks_for_new_names_only(random_clip: nn.Module, encoded: list[int]) -> None:
    clip = Loaded(random_clip)
    first = text_embeddings(clip, ["sky", "tree", "sky"], TEMPLATES)
    again = text_embeddings(clip, ["boat", "sky"], TEMPLATES)
    assert encoded == [2, 1]
    assert torch.equal(first[0], first[2]) and torch.equal(first[0], again[1])
    want = _one_by_one(random_clip, ["boat", "sky"], TEMPLATES)
    torch.testing.assert_close(again, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("change", ["weights_hash", "architecture", "activation"])
def test_cache_key_holds_what_counts(random_clip: nn.Module, encoded: list[int], change: str) -> None:
    text_embeddings(Loaded(random_clip), ["sky"], TEMPLATES)
    text_embeddings(Loaded(random_clip, **{change: "another"}), ["sky"], TEMPLATES)
    text_embeddings(Loaded(random_clip), ["sky"], TEMPLATES[:1])
    text_embeddings(Loaded(random_clip), ["sky"], TEMPLATES)
    assert encoded == [1] * 3


TEXT_CHANGES = [
    {"heads": 2},
    {"no_causal_mask": True},
    {"pool_type": "last"},
    {"norm_kwargs": {"eps": 0.1}},
    {"context_length": 77, "tokenizer_kwargs": {"clean": "whitespace"}},
]


@pytest.mark.parametrize("change", TEXT_CHANGES, ids=lambda change: next(iter(change)))
def test_two_configs_of_one_weights_file_share_no_entries(
    clip_files: dict[str, str], tmp_path: Path, change: dict[str, Any]
) -> None:
    """None of these settings shows in a tensor."""

    def load(**settings: Any) -> LoadedCLIP:
        config = json.loads(Path(clip_files["model"]).read_text())
        config["text_cfg"].update(settings)
        (tmp_path / "other.json").write_text(json.dumps(config))
        return load_clip(tmp_path / "other.json", clip_files["pretrained"])

    before = text_embeddings(load(), ["Cat", "dog"], TEMPLATES)
    other = load(**change)
    got = text_embeddings(other, ["Cat", "dog"], TEMPLATES)
    torch.testing.assert_close(got, encode_text(other.model, other.tokenizer, ["Cat", "dog"], TEMPLATES))
    assert not torch.allclose(got, before, atol=1e-4)
    assert torch.equal(text_embeddings(load(), ["Cat", "dog"], TEMPLATES), before)


def test_a_tower_in_half_precision_has_entries_of_its_own(random_clip: nn.Module, encoded: list[int]) -> None:
    text_embeddings(Loaded(random_clip), ["sky"], TEMPLATES)
    text_embeddings(Loaded(copy.deepcopy(random_clip).bfloat16()), ["sky"], TEMPLATES)
    assert encoded == [1, 1]


@pytest.mark.parametrize("known", [["cat"], ["Cat", "tv monitor"], []])
def test_equal_tokens_have_one_embedding_whether_kept_or_new(random_clip: nn.Module, known: list[str]) -> None:
    clip = Loaded(random_clip)
    if known:
        text_embeddings(clip, known, TEMPLATES)
    names = ["dog", "Cat", "tv  monitor", *(f"thing {n}" for n in range(40)), "cat", "TV monitor", "cat"]
    got = text_embeddings(clip, names, TEMPLATES)
    rows = dict(zip(names, got, strict=True))
    assert torch.equal(rows["Cat"], rows["cat"]) and torch.equal(rows["tv  monitor"], rows["TV monitor"])
    alone = encode_text(random_clip, TOKENIZE, names, TEMPLATES, batch_size=7)
    assert torch.equal(alone[1], alone[-1]) and torch.equal(alone[2], alone[-2])


LONG = "a house seen from the street beside a road with trees, people and the sky above it, " * 6


def test_names_that_are_cut_are_told_with_their_tokens(random_clip: nn.Module, log: list[str]) -> None:
    names = [LONG + "damaged", "sky", LONG + "untouched"]
    got = text_embeddings(Loaded(random_clip), names, ["a {}.", "a photo of a {}."])
    assert torch.equal(got[0], got[2])
    long, tie = log
    count = len(TOKENIZE.encode(f"a photo of a {names[0]}.")) + 2
    assert "reads 77 tokens" in long and f"damaged' makes {count} tokens" in long and "untouched' makes" in long
    assert "sky'" not in long
    assert "damaged' and 'a house" in tie and "untouched' make the same 77 tokens" in tie


def test_only_what_is_cut_is_told(random_clip: nn.Module, log: list[str]) -> None:
    fits = " ".join(["sky"] * 75)
    text_embeddings(Loaded(random_clip), [fits, "Sky", "sky"], ["{}"])
    assert log == []
    text_embeddings(Loaded(random_clip), [fits], ["a {}"])
    assert len(log) == 1 and "makes 78 tokens" in log[0]


def test_names_that_differ_in_writing_only_are_told(random_clip: nn.Module, log: list[str]) -> None:
    text_embeddings(Loaded(random_clip), ["fish & chips", "fish &amp; chips", "sky"], TEMPLATES)
    assert len(log) == 1 and "'fish & chips' and 'fish &amp; chips' make the same" in log[0]


def test_both_faces_tell_of_long_names(clip_files: dict[str, str], log: list[str]) -> None:
    OpenVocabSegmenter(**clip_files, templates=["a {}."], method={"type": "MeanKK"}).prepare([["house", LONG], "sky"])
    RFCLIP(clip_files, [["house", LONG], "sky"], templates=["a {}."], method={"type": "MeanKK"})
    assert len(log) == 2 and log[0] == log[1] and "77 tokens" in log[0]


class Words:
    """A tokenizer as those of transformers: pads with 1, ends with 99, drops signs that it does not know."""

    def __call__(self, texts: list[str], context_length: int | None = None) -> Tensor:
        length = context_length or 9
        rows = [[10 + len(word) for word in text.split() if word.isalpha()][: length - 1] for text in texts]
        return torch.tensor([[*row, 99, *[1] * (length - 1 - len(row))] for row in rows])


def test_other_tokenizers_are_counted_by_a_longer_context(random_clip: nn.Module, log: list[str]) -> None:
    clip = Loaded(random_clip, tokenizer=Words())
    text_embeddings(clip, ["red kite over the wide and very quiet hills", "sky"], ["a photo of {}"])
    assert len(log) == 1 and "reads 9 tokens" in log[0] and "hills' makes 13 tokens" in log[0]


@pytest.mark.parametrize("name", ["???", "123 !"])
def test_a_name_that_the_tokenizer_drops_is_an_empty_name(random_clip: nn.Module, name: str) -> None:
    with pytest.raises(ValueError, match=r"makes the same prompts as an empty name"):
        text_embeddings(Loaded(random_clip, tokenizer=Words()), ["sky", name], ["a photo of {}"])


@pytest.mark.parametrize("name", ["<end_of_text>", "sky <End_of_Text> blue", "&lt;end_of_text&gt; sky"])
def test_a_name_that_ends_the_text_is_refused(random_clip: nn.Module, name: str) -> None:
    with pytest.raises(ValueError, match="holds the sign by which the tokenizer ends a text"):
        text_embeddings(Loaded(random_clip), ["sky", name], TEMPLATES)


def test_shipped_vocabularies_are_read_whole_and_told_apart(random_clip: nn.Module, log: list[str]) -> None:
    for name in text.shipped_vocabularies():
        text._checked_tokens(Loaded(random_clip), text.load_vocabulary(name).queries, text.load_templates("plain"))
    longest = max(text.load_templates("imagenet80"), key=len)
    text._checked_tokens(Loaded(random_clip), text.load_vocabulary("coco_stuff").queries, [longest])
    assert log == []


def test_templates_that_leave_no_room_are_refused(random_clip: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"'sky'.*77 tokens.*templates that leave room"):
        text_embeddings(Loaded(random_clip), ["sky"], [LONG + "{}"])


def test_truncated_cache_is_rebuilt(random_clip: nn.Module, cache: Path, encoded: list[int]) -> None:
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
