"""The tiny layout: kept token rows in their places, and a warning that names untrained words."""

import functools
import json
import logging

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from safetensors.torch import save_file

from rfclip.clip import loader as clip_loader
from rfclip.clip import tiny as tiny_clip
from rfclip.clip.loader import load_clip
from rfclip.clip.tiny import DRAWN_WORLD_ONLY, TinyTokenizer, expand_token_embedding
from rfclip.clip.weights import WeightsError, WeightsNotFoundError
from rfclip.segment.api import OpenVocabSegmenter
from rfclip.segment.files import segment_files
from rfclip.segment.find import find_pictures
from rfclip.words.vocabulary import load_vocabulary
from tests.support.log import keep_log

KNOWN = "a photo of a cat . dog"
bpe = functools.cache(SimpleTokenizer)  # reading its vocabulary takes longer than all else here


@pytest.fixture(autouse=True)
def one_tokenizer(monkeypatch):
    monkeypatch.setattr(clip_loader, "SimpleTokenizer", bpe)


@pytest.fixture
def trained():
    tokenizer = bpe(context_length=77)
    return frozenset([tokenizer.sot_token_id, tokenizer.eot_token_id, 0, *tokenizer.encode(KNOWN)])


@pytest.fixture
def folder(tmp_path, random_clip, trained):
    """A fake of the tiny CLIP's folder: fp16, kept rows only."""
    tensors = {name: tensor.half().contiguous() for name, tensor in random_clip.state_dict().items()}
    ids = torch.tensor(sorted(trained), dtype=torch.int32)
    tensors["token_embedding.weight"] = tensors["token_embedding.weight"][ids.long()].contiguous()
    save_file({**tensors, "token_ids": ids}, tmp_path / "tiny_clip.safetensors")
    config = {
        "embed_dim": 32,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 128, "layers": 3},
        "text_cfg": {"width": 64, "heads": 1, "layers": 2},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.fixture
def warned(monkeypatch):
    lines = []
    keep_log(monkeypatch, tiny_clip, lambda message, level: lines.append((message, level)))
    return lines


def load(folder, monkeypatch, **settings):
    monkeypatch.setattr(clip_loader, "TINY_FOLDER", folder)
    return clip_loader.load_clip("tiny", **settings)


def test_the_tiny_clip_is_the_clip_that_was_saved(folder, monkeypatch, random_clip, make_images, warned):
    loaded = load(folder, monkeypatch)
    assert (loaded.origin, loaded.activation) == ("tiny", "QuickGELU")
    images, tokens = make_images(2, 64, 64), loaded.tokenizer(["a photo of a cat.", "dog"])
    half = random_clip.half().float()
    torch.testing.assert_close(loaded.model.visual(images), half.visual(images), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loaded.model.encode_text(tokens), half.encode_text(tokens), rtol=1e-5, atol=1e-5)
    assert warned == []


def test_untrained_rows_are_zero(folder, monkeypatch, trained):
    table = load(folder, monkeypatch).model.token_embedding.weight
    assert table.shape == (49408, 64)
    assert set(table.abs().sum(1).nonzero().flatten().tolist()) == trained


def test_one_warning_per_call_names_the_untrained_words(folder, monkeypatch, warned):
    tokenizer = load(folder, monkeypatch).tokenizer
    texts = ["a photo of a Zebra.", "a pagoda cat", "zebra & dog"]
    assert torch.equal(tokenizer(texts), bpe(context_length=77)(texts))
    ((message, level),) = warned
    assert "words zebra, pagoda, &:" in message
    assert level == logging.WARNING


def test_a_single_text_and_a_context_length(trained, warned):
    tokenizer = TinyTokenizer(bpe(context_length=77), trained)
    assert tokenizer("a photo of a cat", 16).shape == (1, 16)
    assert warned == []
    assert tokenizer.unknown_words(["cat", "Cat &amp; dog", ""]) == ["&"]


def test_settings_apply_to_the_tiny_clip_too(folder, monkeypatch):
    loaded = load(folder, monkeypatch, quick_gelu=False, origin="mine", precision="fp16")
    assert (loaded.activation, loaded.origin) == ("GELU", "mine")


def test_a_tiny_clip_that_is_not_there_is_said(tmp_path, folder, monkeypatch):
    (folder / "tiny_clip.safetensors").unlink()
    with pytest.raises(WeightsNotFoundError, match="tiny_clip"):
        load(folder, monkeypatch)


def test_expand_does_not_modify_its_input():
    tensors = {"token_embedding.weight": torch.ones(2, 3).half(), "token_ids": torch.tensor([4, 1])}
    expanded, ids = expand_token_embedding(tensors, 6)
    assert set(tensors) == {"token_embedding.weight", "token_ids"}
    assert tensors["token_embedding.weight"].shape == (2, 3)
    assert ids == {1, 4}
    assert expanded["token_embedding.weight"].dtype == torch.float16
    assert expanded["token_embedding.weight"].sum(1).tolist() == [0, 3, 0, 0, 3, 0]


@pytest.mark.parametrize(
    "ids", [torch.tensor([1]), torch.tensor([1, 1]), torch.tensor([1, 6]), torch.tensor([-1, 2]), torch.ones(2), None]
)
def test_broken_token_ids_are_refused(ids):
    tensors = {"token_embedding.weight": torch.ones(2, 3)}
    with pytest.raises(WeightsError, match="token_ids"):
        expand_token_embedding(tensors if ids is None else {**tensors, "token_ids": ids}, 6)


def test_results_say_that_it_knows_the_drawn_world_only(tmp_path, monkeypatch):
    """One line of a run, whatever the pictures show, and the note of each JSON, after what it says of the picture."""
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    segmenter = OpenVocabSegmenter("tiny", device="cpu", short_side=32, method={"type": "MeanKK"}, keep_probs=False)
    Image.new("RGB", (40, 30), "red").save("a.png")
    Image.new("RGB", (40, 30), "red").save("b.gif", save_all=True, append_images=[Image.new("RGB", (40, 30), "blue")])
    pictures, _, _ = find_pictures(["a.png", "b.gif"], "out")
    said: list[str] = []
    assert segment_files(segmenter, load_vocabulary(["sky", "cat"]), pictures, "out", say=said.append).done == 2
    assert said.count(DRAWN_WORLD_ONLY) == 1
    notes = [json.loads((tmp_path / "out" / f"{name}.json").read_text())["note"] for name in ("a", "b")]
    assert notes[0] == DRAWN_WORLD_ONLY
    assert notes[1].endswith(f" {DRAWN_WORLD_ONLY}") and "holds 2 images" in notes[1]


def test_other_models_have_no_such_note(clip_files):
    assert load_clip(**clip_files).note is None
