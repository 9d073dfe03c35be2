"""Loading a CLIP: every layout gives the same model, and whatever does not fit is refused with the cure."""

import copy
import functools
import hashlib
import json
import logging

import open_clip
import pytest
import torch
from open_clip import factory, pretrained
from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file

from rfclip.clip import downloads, sources
from rfclip.clip import loader as clip_loader
from rfclip.clip.loader import load_clip
from rfclip.clip.weights import WeightsError, WeightsNotFoundError, hash_tensors
from tests.support.log import keep_log

CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 128, "layers": 3},
    "text_cfg": {"width": 64, "heads": 1, "layers": 2},
}
SIZES = {"input_resolution": 64, "context_length": 77, "vocab_size": 49408}
TEXTS = ["a photo of a cat", "zebra"]
tokenizer = functools.cache(SimpleTokenizer)  # reading its vocabulary takes longer than all else here


@pytest.fixture(autouse=True)
def one_tokenizer(monkeypatch):
    monkeypatch.setattr(clip_loader, "SimpleTokenizer", tokenizer)


def assert_same(loaded, clip, images):
    assert loaded.model.visual is not clip.visual
    torch.testing.assert_close(loaded.model.visual(images), clip.visual(images), rtol=1e-5, atol=1e-5)
    tokens = loaded.tokenizer(TEXTS)
    assert torch.equal(tokens, tokenizer(context_length=77)(TEXTS))
    expected = clip.encode_text(tokens)
    torch.testing.assert_close(loaded.model.encode_text(tokens), expected, rtol=1e-5, atol=1e-5)


@pytest.fixture
def named(monkeypatch):
    """A model that open_clip knows by name, in two activations, and its table of tags."""
    monkeypatch.setitem(factory._MODEL_CONFIGS, "ViT-Toy-16", CONFIG)
    monkeypatch.setitem(factory._MODEL_CONFIGS, "ViT-Toy-16-quickgelu", {**CONFIG, "quick_gelu": True})
    tags = {}
    monkeypatch.setitem(pretrained._PRETRAINED, "ViT-Toy-16", tags)
    monkeypatch.setattr(downloads, "_require_network", lambda: None)
    return tags


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(CONFIG))
    return path


@pytest.fixture
def weights(tmp_path, random_clip):
    path = tmp_path / "weights.pt"
    torch.save(random_clip.state_dict(), path)
    return path


@pytest.fixture
def logged(monkeypatch):
    lines = []
    keep_log(monkeypatch, clip_loader, lambda message, level: lines.append((message, level)))
    return lines


@pytest.fixture
def write(save_torchscript):
    """write(kind, tensors, path): save in a layout."""

    def write(kind, tensors, path):
        if kind == "torchscript":
            sizes = {name: torch.tensor(value) for name, value in SIZES.items()}
            save_torchscript({**tensors, **sizes}, path)
        elif kind == "safetensors":
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        elif kind == "checkpoint":
            torch.save({"epoch": 1, "state_dict": {f"module.{k}": v for k, v in tensors.items()}}, path)
        else:
            torch.save(tensors, path)

    return write


@pytest.mark.parametrize("kind", ["torchscript", "state dict", "checkpoint", "safetensors"])
def test_every_layout_gives_the_same_model(kind, random_clip, write, tmp_path, named, make_images):
    write(kind, random_clip.state_dict(), tmp_path / "w.bin")
    loaded = load_clip("auto", str(tmp_path / "w.bin"))
    assert_same(loaded, random_clip, make_images(2, 64, 64))
    assert (loaded.architecture, loaded.origin, loaded.activation) == ("ViT-Toy-16", None, "QuickGELU")
    assert loaded.weights_hash == hash_tensors(random_clip.state_dict(), "True 2")


@pytest.mark.parametrize("model", ["ViT-Toy-16-quickgelu", "json"])
def test_every_way_to_name_the_architecture_gives_the_same_model(
    model, weights, random_clip, named, config_file, make_images
):
    loaded = load_clip(str(config_file) if model == "json" else model, str(weights), quick_gelu=True)
    assert_same(loaded, random_clip, make_images(2, 64, 64))
    assert (loaded.architecture, loaded.origin, loaded.activation) == ("ViT-Toy-16", None, "QuickGELU")
    assert loaded.weights_hash == hash_tensors(random_clip.state_dict(), "True 2")


def test_the_model_is_frozen_fp32_and_in_eval_mode(weights):
    loaded = load_clip("auto", weights, precision="bf16")
    assert not any(module.training for module in loaded.model.modules())
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}


def test_fp32_files_are_not_rounded_and_fp16_files_are_widened(random_clip, tmp_path):
    torch.save(random_clip.state_dict(), tmp_path / "full.pt")
    half = {name: tensor.half() for name, tensor in random_clip.state_dict().items()}
    torch.save(half, tmp_path / "half.pt")
    full, widened = (load_clip("auto", tmp_path / f"{name}.pt") for name in ("full", "half"))
    for name, tensor in random_clip.state_dict().items():
        assert torch.equal(full.model.state_dict()[name], tensor)
        assert torch.equal(widened.model.state_dict()[name], half[name].float())
    assert full.weights_hash != widened.weights_hash


def test_openai_normalisation_on_the_scale_of_pixels(weights):
    loaded = load_clip("auto", weights)
    assert loaded.mean == (122.771, 116.746, 104.094)
    assert loaded.std == (68.501, 66.632, 70.323)


@pytest.mark.parametrize("entry", ["mean", "std"])
def test_normalisation_follows_the_weights(entry, weights, tmp_path):
    nested = tmp_path / "open_clip_config.json"
    nested.write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {entry: [0.5, 0.4, 0.2]}}))
    loaded = load_clip(str(nested), weights)
    assert getattr(loaded, entry) == (127.5, 102.0, 51.0)
    nested.write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {entry: [0.5]}}))
    with pytest.raises(WeightsError, match="mean and std"):
        load_clip(str(nested), weights)


@pytest.mark.parametrize(
    ("model", "kind", "activation", "reason"),
    [
        ("ViT-Toy-16", "state dict", "GELU", "the model name ViT-Toy-16"),
        ("ViT-Toy-16", "torchscript", "QuickGELU", "TorchScript"),
        ("ViT-Toy-16", "sizes", "QuickGELU", "input_resolution"),
        ("ViT-Toy-16-quickgelu", "state dict", "QuickGELU", "the model name ViT-Toy-16-quickgelu"),
        ("auto", "state dict", "QuickGELU", "auto"),
        ("json", "state dict", "GELU", "the model config"),
        ("json", "torchscript", "QuickGELU", "TorchScript"),
    ],
)
def test_activation_and_its_reason(
    model, kind, activation, reason, named, random_clip, write, tmp_path, config_file, logged, make_clip, make_images
):
    tensors = random_clip.state_dict()
    if kind == "sizes":
        tensors = {**tensors, **{name: torch.tensor(value) for name, value in SIZES.items()}}
    write(kind, tensors, tmp_path / "w.pt")
    model = str(config_file) if model == "json" else model
    loaded = load_clip(model, tmp_path / "w.pt")
    assert loaded.activation == activation
    assert activation in logged[-1][0]
    assert reason in logged[-1][0]
    assert_same(loaded, make_clip(quick_gelu=activation == "QuickGELU"), make_images(1, 64, 64))


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_a_config_that_names_the_activation_is_believed(quick_gelu, random_clip, write, tmp_path):
    write("torchscript", random_clip.state_dict(), tmp_path / "w.pt")
    (tmp_path / "c.json").write_text(json.dumps({**CONFIG, "quick_gelu": quick_gelu}))
    loaded = load_clip(tmp_path / "c.json", tmp_path / "w.pt")
    assert loaded.activation == ("QuickGELU" if quick_gelu else "GELU")


@pytest.mark.parametrize("origin", ["openai", "OpenAI"])
@pytest.mark.parametrize("model", ["ViT-Toy-16", "json", "auto"])
def test_the_origin_openai_means_quick_gelu(
    origin, model, named, weights, config_file, logged, random_clip, make_images
):
    loaded = load_clip(config_file if model == "json" else model, weights, origin=origin)
    assert (loaded.origin, loaded.activation) == ("openai", "QuickGELU")
    assert "clip.origin='openai' says so" in logged[-1][0]
    assert_same(loaded, random_clip, make_images(1, 64, 64))
    assert load_clip("ViT-Toy-16", weights, origin=origin, quick_gelu=False).activation == "GELU"


@pytest.mark.parametrize("model", ["ViT-Toy-16", "json"])
@pytest.mark.parametrize("kind", ["state dict", "safetensors", "checkpoint"])
def test_a_state_dict_that_may_be_openais_is_warned_about(
    model, kind, named, random_clip, write, tmp_path, config_file, logged
):
    write(kind, random_clip.state_dict(), tmp_path / "w")
    named["openai"] = {"url": "https://x.invalid/clip"}
    model = config_file if model == "json" else model
    assert load_clip(model, tmp_path / "w").activation == "GELU"
    (warning,) = [message for message, level in logged if level == logging.WARNING]
    assert f"The activation of {tmp_path / 'w'} cannot be told" in warning
    assert "clip.quick_gelu=True (--quick-gelu yes)" in warning


def test_a_state_dict_whose_activation_is_told_is_not_warned_about(
    named, random_clip, write, tmp_path, weights, logged
):
    load_clip("ViT-Toy-16", weights)  # which OpenAI did not publish
    named["openai"], named["laion"] = {"url": "https://x.invalid/clip"}, {"file": str(weights)}
    write("torchscript", random_clip.state_dict(), tmp_path / "archive.pt")
    load_clip("ViT-Toy-16", tmp_path / "archive.pt")
    load_clip("ViT-Toy-16", "laion")
    load_clip("ViT-Toy-16-quickgelu", weights)
    load_clip("auto", weights)
    for told in ({"quick_gelu": False}, {"quick_gelu": True}, {"origin": "laion"}, {"origin": "openai"}):
        load_clip("ViT-Toy-16", weights, **told)
    assert len(logged) == 9
    assert all(level == logging.INFO for _, level in logged)


@pytest.mark.parametrize("override", [True, False])
@pytest.mark.parametrize("model", ["ViT-Toy-16", "ViT-Toy-16-quickgelu", "auto"])
def test_quick_gelu_overrides(override, model, named, weights, logged):
    loaded = load_clip(model, weights, quick_gelu=override)
    assert loaded.activation == ("QuickGELU" if override else "GELU")
    assert f"clip.quick_gelu={override}" in logged[-1][0]


def test_the_hash_tells_the_activation_apart(weights):
    assert load_clip("auto", weights).weights_hash != load_clip("auto", weights, quick_gelu=False).weights_hash


def test_the_tag_openai_means_quick_gelu_and_origin(named, weights, logged, random_clip, make_images):
    named["openai"] = {"file": str(weights), "mean": (0.5, 0.5, 0.5), "quick_gelu": True}
    loaded = load_clip("ViT-Toy-16", "openai")
    assert (loaded.activation, loaded.origin) == ("QuickGELU", "openai")
    assert loaded.mean == (127.5, 127.5, 127.5)
    assert loaded.std == (68.501, 66.632, 70.323)
    assert "the tag is 'openai'" in logged[-1][0]
    assert_same(loaded, random_clip, make_images(1, 64, 64))


def test_other_tags_keep_what_the_name_says_and_give_their_name_as_origin(named, weights, logged):
    named["laion_x"] = {"file": str(weights)}
    loaded = load_clip("ViT-Toy-16", "LAION-X")
    assert (loaded.activation, loaded.origin) == ("GELU", "laion_x")
    assert all(level == logging.INFO for _, level in logged)


def test_a_tag_trained_with_the_other_activation_is_warned_about(named, weights, logged):
    named["metaclip"] = {"file": str(weights), "quick_gelu": True}
    assert load_clip("ViT-Toy-16", "metaclip").activation == "GELU"
    (warning,) = [message for message, level in logged if level == logging.WARNING]
    assert "ViT-Toy-16-quickgelu" in warning
    assert "clip.quick_gelu=True" in warning


def test_a_published_archive_is_known_by_its_sha256(named, random_clip, write, tmp_path):
    write("torchscript", random_clip.state_dict(), tmp_path / "w.pt")
    assert load_clip("auto", tmp_path / "w.pt").origin is None
    digest = hashlib.sha256((tmp_path / "w.pt").read_bytes()).hexdigest()
    named["openai"] = {"url": f"https://x.invalid/clip/models/{digest}/ViT-Toy-16.pt"}
    assert load_clip("auto", tmp_path / "w.pt").origin == "openai"
    assert load_clip("auto", tmp_path / "w.pt", origin="me").origin == "me"


def test_origin_by_word(weights):
    assert load_clip("auto", weights, origin="openai").origin == "openai"


def test_paths_may_be_path_objects_and_have_a_tilde(weights, monkeypatch):
    monkeypatch.setenv("HOME", str(weights.parent))
    assert load_clip("auto", f"~/{weights.name}").weights_hash == load_clip("auto", weights).weights_hash


def test_openai_size_entries_are_optional_for_auto(random_clip, write, tmp_path, weights):
    write("torchscript", random_clip.state_dict(), tmp_path / "with.pt")
    with_sizes, without = load_clip("auto", tmp_path / "with.pt"), load_clip("auto", weights)
    assert with_sizes.weights_hash == without.weights_hash


@pytest.mark.parametrize(
    ("vision", "says"),
    [({"layers": 2}, "missing"), ({"layers": 4}, "unexpected"), ({"width": 192}, "other shape")],
)
def test_weights_of_another_model_are_refused(vision, says, make_clip, tmp_path, config_file):
    torch.save(make_clip(**{**CONFIG["vision_cfg"], **vision}).state_dict(), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=says) as caught:
        load_clip(str(config_file), tmp_path / "w.pt")
    assert "visual." in str(caught.value)
    assert str(config_file) in str(caught.value)


def test_a_positional_table_of_another_size_is_not_resized(make_clip, tmp_path, config_file):
    torch.save(make_clip(image_size=80).state_dict(), tmp_path / "w.pt")
    expected = r"visual\.positional_embedding is \(26, 128\), expected \(17, 128\)"
    with pytest.raises(WeightsError, match=expected):
        load_clip(str(config_file), tmp_path / "w.pt")


def test_a_text_tower_of_another_length_is_not_resized(random_clip, tmp_path, config_file):
    tensors = random_clip.state_dict()
    tensors["positional_embedding"] = tensors["positional_embedding"][:32]
    torch.save(tensors, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"positional_embedding is \(32, 64\), expected \(77, 64\)"):
        load_clip(str(config_file), tmp_path / "w.pt")


def test_a_state_dict_that_is_no_clip_is_refused(tmp_path, config_file):
    torch.save({"layer1.weight": torch.zeros(2), "fc.bias": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"2 unexpected \(layer1\.weight, fc\.bias\)"):
        load_clip(str(config_file), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"first tensors are layer1\.weight, fc\.bias.*OpenAI's layout"):
        load_clip("auto", tmp_path / "w.pt")


@pytest.mark.parametrize("prefix", ["", "model.", "module.clip."])
@pytest.mark.parametrize("model", ["auto", "json"])
def test_transformers_layout_is_named(model, prefix, tmp_path, config_file):
    names = ["vision_model.embeddings.class_embedding", "text_model.final_layer_norm.weight", "logit_scale"]
    torch.save({prefix + name: torch.zeros(4) for name in names}, tmp_path / "w.bin")
    with pytest.raises(WeightsError, match=r"transformers' layout .*open_clip's is wanted"):
        load_clip(config_file if model == "json" else model, tmp_path / "w.bin")


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "module._orig_mod.", "model.", "clip.", "a.model.visual_clip."),
        *("visual.", "text.", "net.transformer.", "visual.visual."),
    ],
)
@pytest.mark.parametrize("sizes", [{}, SIZES])
def test_a_prefix_of_all_names_is_taken_off(prefix, sizes, random_clip, tmp_path, weights):
    state = {prefix + name: tensor for name, tensor in {**random_clip.state_dict(), **sizes}.items()}
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    assert load_clip("auto", tmp_path / "w.pt").weights_hash == load_clip("auto", weights).weights_hash


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("model", ["auto", "json"])
def test_an_image_tower_alone_is_refused_by_its_own_names(model, prefix, random_clip, tmp_path, config_file):
    state = {prefix + name: t for name, t in random_clip.state_dict().items() if name.startswith("visual.")}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"missing \(positional_embedding|first tensors are visual\."):
        load_clip(config_file if model == "json" else model, tmp_path / "w.pt")


def test_a_prefix_of_some_names_stays_and_is_said(random_clip, tmp_path, config_file):
    state = {f"model.{name}": tensor for name, tensor in random_clip.state_dict().items()}
    torch.save({**state, "head.weight": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"missing .* unexpected \(model\..*not all names begin with 'model\.'"):
        load_clip(config_file, tmp_path / "w.pt")


def test_the_size_entries_may_stand_outside_the_prefix(random_clip, tmp_path, weights):
    state = {f"model.{name}": tensor for name, tensor in random_clip.state_dict().items()}
    torch.save({**state, **SIZES}, tmp_path / "w.pt")
    assert load_clip("auto", tmp_path / "w.pt").weights_hash == load_clip("auto", weights).weights_hash


@pytest.mark.parametrize(
    ("model", "pretrained"), [("x" * 5000, None), ("auto", "x" * 5000), ("x" * 5000, "y.pt"), ("", "y")]
)
def test_names_that_are_no_paths(model, pretrained):
    with pytest.raises(WeightsError, match=r"clip\.(model|pretrained)"):
        load_clip(model, pretrained)
    assert not (model and sources.local_weights(model, pretrained))


def test_tokenizer_settings_that_open_clip_does_not_know(weights, tmp_path):
    config = {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "tokenizer_kwargs": {"clean": "washed"}}}
    (tmp_path / "m.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"correct tokenizer_kwargs, which are \{'clean': 'washed'\}"):
        load_clip(tmp_path / "m.json", weights)


def test_the_causal_mask_may_be_stored(random_clip, tmp_path, weights):
    state = {**random_clip.state_dict(), "attn_mask": random_clip.attn_mask.half()}
    torch.save(state, tmp_path / "w.pt")
    assert load_clip("auto", tmp_path / "w.pt").weights_hash == load_clip("auto", weights).weights_hash
    torch.save({**state, "attn_mask": torch.zeros(77, 77)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"1 unexpected \(attn_mask\)"):
        load_clip("auto", tmp_path / "w.pt")


@pytest.fixture
def folder(tmp_path, weights):
    """A folder as open_clip saves its models."""
    path = tmp_path / "folder"
    path.mkdir()
    content = {"model_cfg": CONFIG, "preprocess_cfg": {"mean": [0.5, 0.4, 0.2]}}
    (path / "open_clip_config.json").write_text(json.dumps(content))
    weights.rename(path / "open_clip_pytorch_model.bin")
    return path


@pytest.mark.parametrize("prefix", ["local-dir:", ""])
def test_a_folder_of_open_clip_is_loaded(folder, prefix, logged, named, make_clip, make_images):
    named["openai"] = {"url": "https://x.invalid/clip"}
    (folder / "model.safetensors").write_bytes(b"another layout")
    loaded = load_clip(f"{prefix}{folder}")
    assert loaded.mean == (127.5, 102.0, 51.0)
    assert_same(loaded, make_clip(quick_gelu=False), make_images(1, 64, 64))
    assert [level for _, level in logged] == [logging.INFO]
    assert load_clip(folder, folder / "open_clip_pytorch_model.bin").weights_hash == loaded.weights_hash
    assert sources.brings_weights(folder)


def test_a_folder_brings_its_tokenizer(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(clip_loader, "HFTokenizer", lambda name, **_: asked.append(name) or tokenizer())
    config = {"model_cfg": {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "hf_tokenizer_name": "owner/name"}}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    load_clip(f"local-dir:{folder}")
    assert asked == [str(folder)]


def test_what_a_folder_lacks_is_said(folder, tmp_path):
    file = folder / "open_clip_pytorch_model.bin"
    with pytest.raises(WeightsError, match=rf"is a folder: .* clip\.model='local-dir:{folder}'"):
        load_clip("auto", folder)
    with pytest.raises(WeightsError, match=r"is a folder: give the path of a file in it$"):
        load_clip("auto", tmp_path)
    with pytest.raises(WeightsNotFoundError, match=r"open_clip_config\.json cannot be read"):
        load_clip(f"local-dir:{tmp_path}")
    file.rename(folder / "one.pt")
    assert load_clip(folder).architecture == load_clip(folder, folder / "one.pt").architecture
    (folder / "two.pt").write_bytes(b"")
    with pytest.raises(WeightsNotFoundError, match=r"several weights files \(one\.pt, two\.pt\)"):
        load_clip(folder)
    for name in ("one.pt", "two.pt"):
        (folder / name).unlink()
    with pytest.raises(WeightsNotFoundError, match="holds no weights file"):
        load_clip(folder)


def test_names_come_before_folders_of_that_name(tmp_path, monkeypatch, named, weights):
    monkeypatch.chdir(tmp_path)
    for name in ("ViT-Toy-16", "auto", "tiny"):
        (tmp_path / name).mkdir()
    assert load_clip("ViT-Toy-16", weights).architecture == load_clip("auto", weights).architecture == "ViT-Toy-16"
    assert not sources.brings_weights("ViT-Toy-16")
    assert sources.brings_weights("tiny")
    assert sources.brings_weights("hf-hub:owner/name")


@pytest.mark.parametrize("argument", ["model", "pretrained"])
@pytest.mark.parametrize("path", ["~nobody-of-this-name/w.json", "~/w.json"])
def test_without_a_home_a_tilde_is_a_name_as_any_other(argument, path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.expanduser", homeless)
    given = {"model": "auto", "pretrained": "w.pt", argument: path}
    with pytest.raises(WeightsError, match=r"~.*w\.json'?( is no file here| cannot be read)"):
        load_clip(**given)


def homeless(path):
    if str(path).startswith("~"):
        raise RuntimeError("Could not determine home directory.")
    return path


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"quick_gelu": "false"}, r"clip\.quick_gelu must be True or False, got 'false'"),
        ({"quick_gelu": 0}, r"clip\.quick_gelu must be True or False, got 0"),
        ({"origin": True}, r"clip\.origin must be a word"),
        ({"origin": " "}, r"clip\.origin must be a word"),
        ({"precision": None}, r"clip\.precision must be one of"),
        ({"precision": ["fp32"]}, r"clip\.precision must be one of"),
        ({"model": 3}, r"clip\.model must be a name or a path, got 3"),
        ({"model": None}, r"clip\.model is missing"),
        ({"pretrained": False}, r"clip\.pretrained must be a name or a path"),
    ],
)
def test_arguments_of_another_type_or_name_are_refused(given, says):
    with pytest.raises(ValueError, match=says):
        load_clip(**{"model": "tiny", **given})


@pytest.mark.parametrize(
    ("section", "values", "says"),
    [
        ("vision_cfg", {"width": "128"}, r"vision_cfg\.width must be a whole number of at least 1, got '128'"),
        ("vision_cfg", {"layers": None}, r"vision_cfg\.layers must be a whole number of at least 1, got None"),
        ("vision_cfg", {"image_size": [64]}, r"vision_cfg\.image_size must be one number, or height and width"),
        ("vision_cfg", {"pool_type": "most"}, r"\(AssertionError: .*\w.*\): check the model config"),
        ("vision_cfg", {"layers": True}, r"vision_cfg\.layers must be a whole number"),
        ("vision_cfg", {"patch_size": -16}, r"vision_cfg\.patch_size must be"),
        ("vision_cfg", {"image_size": [64, 64.0]}, r"vision_cfg\.image_size must be a whole number"),
        ("vision_cfg", {"mlp_ratio": float("nan")}, r"vision_cfg\.mlp_ratio must be a number above 0"),
        ("vision_cfg", {"no_ln_pre": "false"}, r"vision_cfg\.no_ln_pre must be True or False"),
        ("vision_cfg", {"patch_dropout": 2}, r"vision_cfg\.patch_dropout must be a number in 0\.\.1"),
        ("vision_cfg", {"norm_kwargs": {"eps": 0}}, r"vision_cfg\.norm_kwargs\.eps must be a number above 0"),
        ("vision_cfg", {"act_kwargs": "tanh"}, r"vision_cfg\.act_kwargs must be a table"),
        ("vision_cfg", {"pool_type": 1}, r"vision_cfg\.pool_type must be a text"),
        ("text_cfg", {"heads": "1"}, r"text_cfg\.heads must be a whole number"),
        ("text_cfg", {"no_causal_mask": 1}, r"text_cfg\.no_causal_mask must be True or False"),
        ("text_cfg", {"context_length": 77.0}, r"text_cfg\.context_length must be a whole number"),
        (None, {"embed_dim": "32"}, "embed_dim must be a whole number"),
        (None, {"quick_gelu": "false"}, "quick_gelu must be True or False, got 'false'"),
        (None, {"custom_text": "no"}, "custom_text must be True or False"),
    ],
)
def test_values_of_a_model_config_are_checked(section, values, says, tmp_path, weights):
    config = copy.deepcopy(CONFIG)
    (config[section] if section else config).update(values)
    (tmp_path / "c.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=says) as caught:
        load_clip(tmp_path / "c.json", weights)
    assert "c.json cannot be built" in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"std": [0.2, 0, 0.2]},
        {"std": [0.2, float("nan"), 0.2]},
        {"std": [0.2, -0.2, 0.2]},
        {"std": ["0.2", 0.2, 0.2]},
        {"std": [0.2, True, 0.2]},
        {"std": 0.2},
        {"mean": [122.8, 116.7, 104.1]},
        {"mean": [0.5, float("inf"), 0.5]},
        {"mean": "0.5"},
        {"size": "224"},
        {"size": [224, 0]},
        {"interpolation": "cubic"},
        {"interpolation": True},
        {"resize_mode": "stretch"},
    ],
)
def test_values_of_the_preprocessing_are_checked(values, tmp_path, weights):
    (tmp_path / "c.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": values}))
    with pytest.raises(
        WeightsError, match=rf"preprocessing of .*c\.json cannot be used \({next(iter(values))} must be"
    ):
        load_clip(tmp_path / "c.json", weights)


def test_a_preprocessing_may_leave_out_what_it_does_not_say(tmp_path, weights):
    preprocess = {"mean": None, "std": [1, 1, 1], "size": [64, 64], "interpolation": "bilinear", "mode": "RGB"}
    (tmp_path / "c.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": preprocess}))
    loaded = load_clip(tmp_path / "c.json", weights)
    assert (loaded.mean, loaded.std) == ((122.771, 116.746, 104.094), (255, 255, 255))


@pytest.mark.parametrize("model", ["auto", "json"])
def test_resnet_weights_are_refused(model, tmp_path, config_file):
    torch.save({"visual.layer1.0.conv1.weight": torch.zeros(2)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="ResNet"):
        load_clip(str(config_file) if model == "json" else model, tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("model", "says"),
    [("RN50", "ResNet"), ("ViT-B-16-SigLIP", "timm"), ("coca_ViT-B-32", "attention"), ("ViT-H-14-CLIPA", "avg")],
)
def test_unusable_towers_are_refused_before_weights_are_fetched(model, says, monkeypatch):
    monkeypatch.setattr(sources, "download_tag", lambda *_: pytest.fail("was fetched"))
    tag = open_clip.list_pretrained_tags_by_model(model)[0]
    with pytest.raises(ValueError, match=says):
        load_clip(model, tag)


@pytest.mark.parametrize(
    ("model", "given", "says"),
    [
        ("ViT-B-16", None, "clip.pretrained is missing"),
        ("auto", None, "random weights are never used"),
        ("ViT-B-16", "openay", "its tags: openai, laion400m_e31"),
        ("ViT-B-16", "weights/nowhere.pt", "is no file here"),
        ("auto", "openai", "is no file here"),
        ("ViT-B-17", "openai", "near: ViT-B-16"),
        ("qqq", "openai", "is no open_clip model:"),
        ("nowhere.json", "openai", "cannot be read"),
        ("tiny", "openai", "leave clip.pretrained='openai' out"),
    ],
)
def test_what_is_not_there_is_said(model, given, says):
    with pytest.raises(WeightsError) as caught:
        load_clip(model, given)
    assert says in str(caught.value)
    assert "tiny" in str(caught.value)


def test_names_as_openai_writes_them(named, weights):
    assert load_clip("ViT-Toy/16", weights).architecture == "ViT-Toy-16"


def test_an_unknown_precision_is_refused(weights):
    with pytest.raises(ValueError, match=r"clip\.precision must be one of 'fp32', 'bf16', 'fp16', got 'int8'"):
        load_clip("auto", weights, precision="int8")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"embed_dim": 3}', '{"embed_dim": 3, "vision_cfg": [], "text_cfg": {}}', "[" * 10**5]
)
def test_a_broken_config_is_refused(text, tmp_path, weights):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(WeightsError, match=r"c\.json"):
        load_clip(str(tmp_path / "c.json"), weights)


@pytest.mark.parametrize("vision", [{"unknown": 3}, {"width": "a"}, {"head_width": 0}, {"width": 200}])
def test_a_config_of_no_model_is_refused(vision, tmp_path, weights):
    config = copy.deepcopy(CONFIG)
    config["vision_cfg"].update(vision)
    (tmp_path / "c.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="cannot be built"):
        load_clip(str(tmp_path / "c.json"), weights)


def test_a_custom_text_tower_works_through_encode_text(tmp_path, make_images):
    torch.manual_seed(0)
    clip = CustomTextCLIP(32, CLIPVisionCfg(**CONFIG["vision_cfg"]), CLIPTextCfg(**CONFIG["text_cfg"])).eval()
    (tmp_path / "c.json").write_text(json.dumps({**CONFIG, "custom_text": True}))
    torch.save(clip.state_dict(), tmp_path / "new.pt")
    old = {name.removeprefix("text."): tensor for name, tensor in clip.state_dict().items()}
    torch.save(old, tmp_path / "old.pt")
    for name in ("new.pt", "old.pt"):
        with torch.inference_mode():
            assert_same(load_clip(str(tmp_path / "c.json"), tmp_path / name), clip, make_images(1, 64, 64))


@pytest.mark.parametrize("text", [{"hf_tokenizer_name": "owner/none"}, {"hf_model_name": "owner/none"}])
def test_a_text_tower_whose_parts_are_not_here_is_refused(text, tmp_path, weights, monkeypatch):
    monkeypatch.setattr(clip_loader, "HFTokenizer", offline)
    monkeypatch.setattr("open_clip.model.HFTextEncoder", offline)
    (tmp_path / "c.json").write_text(json.dumps({**CONFIG, "text_cfg": {**CONFIG["text_cfg"], **text}}))
    with pytest.raises(WeightsError, match=r"c\.json"):
        load_clip(str(tmp_path / "c.json"), weights)


def offline(*_, **__):
    raise OSError("no network")


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused(random_clip, tmp_path):
    tensors = random_clip.state_dict()
    tensors["token_embedding.weight"] = tensors["token_embedding.weight"][:1000]
    torch.save(tensors, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="vocabulary of 1000 pieces"):
        load_clip("auto", tmp_path / "w.pt")


def test_weights_from_the_hub(tmp_path, config_file, weights, monkeypatch):
    files = {"open_clip_config.json": config_file, None: weights}
    monkeypatch.setattr(sources, "download_from_hub", lambda repository, file, what: files[file])
    assert load_clip("hf-hub:owner/clip").weights_hash == load_clip(str(config_file), weights).weights_hash
    files[None] = tmp_path / "must not be read"
    assert load_clip("hf-hub:owner/clip", weights).architecture == "ViT-128x3-16-64x64"


def test_a_tag_that_cannot_be_downloaded_says_what_to_do_offline(monkeypatch):
    monkeypatch.setattr(downloads, "_require_network", offline)
    monkeypatch.setattr(downloads, "try_to_load_from_cache", lambda *_: None)
    for call in (lambda: load_clip("ViT-B-16", "openai"), lambda: load_clip("hf-hub:owner/clip")):
        with pytest.raises(WeightsNotFoundError, match="cannot be downloaded") as caught:
            call()
        assert "local weights file" in str(caught.value)
        assert "clip.model='tiny'" in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-B-16", "ViT-L-14-336"])
def test_full_architectures_are_read_off_the_shapes(name, tmp_path):
    clip = open_clip.create_model(name, force_quick_gelu=True)
    torch.save(clip.state_dict(), tmp_path / "w.pt")
    loaded = load_clip("auto", tmp_path / "w.pt")
    assert loaded.architecture == name
    assert all(torch.equal(a, b) for a, b in zip(clip.parameters(), loaded.model.parameters(), strict=True))
