"""Weight files: every accepted layout, every way to be broken, and no code run."""

import os
import pickle
import random
import warnings
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rfclip.clip.weights import (
    WeightsError,
    WeightsNotFoundError,
    hash_file,
    hash_tensors,
    load_strictly,
    read_weights,
)

TENSORS = {"visual.proj": torch.arange(6.0).reshape(3, 2), "ln.bias": torch.tensor([0.5, -1.5])}
SIZES = {name: torch.tensor(value) for name, value in
         (("input_resolution", 224), ("context_length", 77), ("vocab_size", 49408))}  # fmt: skip


def assert_read(weights, expected=TENSORS):
    assert set(weights.tensors) == set(expected)
    for name, tensor in expected.items():
        assert weights.tensors[name].dtype == tensor.dtype
        torch.testing.assert_close(weights.tensors[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.bin", "w", "w.safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
def test_state_dicts_are_read_whatever_the_name(tmp_path, name, zipped):
    torch.save(TENSORS, tmp_path / name, _use_new_zipfile_serialization=zipped)
    weights = read_weights(tmp_path / name)
    assert_read(weights)
    assert not weights.torchscript
    assert not weights.has_sizes


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_safetensors_are_read_whatever_the_name(tmp_path, name):
    save_file(TENSORS, tmp_path / name)
    assert_read(read_weights(tmp_path / name))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_keep_the_precision_of_the_file(tmp_path, dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in TENSORS.items()}
    torch.save(tensors, tmp_path / "w.pt")
    assert_read(read_weights(tmp_path / "w.pt"), tensors)


def test_a_training_checkpoint_is_unwrapped(tmp_path):
    state = {f"module.{name}": tensor for name, tensor in TENSORS.items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": {}}, tmp_path / "w.pt")
    assert_read(read_weights(tmp_path / "w.pt"))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.", "clip.", "a.b.c."])
def test_a_prefix_that_all_names_share_is_taken_off(tmp_path, prefix):
    torch.save({prefix + name: value for name, value in {**TENSORS, **SIZES}.items()}, tmp_path / "w.pt")
    weights = read_weights(tmp_path / "w.pt")
    assert_read(weights)
    assert weights.has_sizes


@pytest.mark.parametrize(
    "names",
    [
        ["visual.proj", "visual.conv1.weight"],
        ["text.proj", "text.b.weight"],
        ["transformer.resblocks.0.a", "transformer.b"],
        ["vision_model.a", "vision_model.b"],
        ["model.a", "b"],
        ["model.a", "model"],
        ["weight"],
    ],
)
def test_parts_of_a_model_are_no_prefix(tmp_path, names):
    torch.save({name: torch.zeros(1) for name in names}, tmp_path / "w.pt")
    assert list(read_weights(tmp_path / "w.pt").tensors) == names


def test_openai_size_entries_are_noticed_and_set_aside(tmp_path):
    torch.save({**TENSORS, **SIZES}, tmp_path / "w.pt")
    weights = read_weights(tmp_path / "w.pt")
    assert_read(weights)
    assert weights.has_sizes
    torch.save({**TENSORS, "vocab_size": SIZES["vocab_size"]}, tmp_path / "w.pt")
    assert not read_weights(tmp_path / "w.pt").has_sizes
    torch.save({**TENSORS, **{name: int(value) for name, value in SIZES.items()}}, tmp_path / "w.pt")
    weights = read_weights(tmp_path / "w.pt")
    assert_read(weights)
    assert weights.has_sizes
    torch.save({**TENSORS, "vocab_size": "many"}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"entries that are no tensors \(vocab_size\)"):
        read_weights(tmp_path / "w.pt")


def test_a_torchscript_archive_gives_its_state_dict(tmp_path, save_torchscript):
    save_torchscript({**TENSORS, **SIZES}, tmp_path / "w.pt")
    weights = read_weights(tmp_path / "w.pt")
    assert_read(weights)
    assert weights.torchscript
    assert weights.has_sizes


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(WeightsNotFoundError, match=r"none\.pt does not exist"):
        read_weights(tmp_path / "none.pt")
    assert issubclass(WeightsNotFoundError, (FileNotFoundError, WeightsError))
    assert issubclass(WeightsError, ValueError)


def test_a_folder_is_no_weights_file(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read"):
        read_weights(tmp_path)


def test_a_pipe_is_no_weights_file(tmp_path):
    os.mkfifo(tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"w\.pt cannot be read \(not a regular file\)"):
        read_weights(tmp_path / "w.pt")


ODD = {
    "meta": lambda tensor: tensor.to("meta"),
    "sparse": lambda tensor: tensor.to_sparse(),
    "csr": lambda tensor: tensor.to_sparse_csr(),
    "nested": lambda tensor: torch.nested.nested_tensor([tensor, tensor]),
    "jagged": lambda tensor: torch.nested.nested_tensor([tensor, tensor], layout=torch.jagged),
    "quantized": lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
}


@pytest.mark.filterwarnings("ignore")  # some of these kinds are young, some old
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", ["visual.proj", "vocab_size"])
def test_only_dense_tensors_are_read(tmp_path, kind, name):
    torch.save({**TENSORS, name: ODD[kind](TENSORS["visual.proj"])}, tmp_path / "w.pt")
    saying = rf"without values \({name}\)|holds Python objects beside tensors"  # as torch's release builds that kind
    with pytest.raises(WeightsError, match=saying):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.98])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "torchscript"])
def test_truncated_files_give_a_sentence(tmp_path, kind, share, save_torchscript):
    path = tmp_path / "w.pt"
    write(path, kind, save_torchscript)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(WeightsError, match=r"truncated|damaged"):
        read_weights(path)


def write(path, kind, save_torchscript):
    if kind == "safetensors":
        save_file(TENSORS, path)
    elif kind == "torchscript":
        save_torchscript(TENSORS, path)
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=kind == "zip")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "torchscript"])
def test_fuzzed_files_are_read_or_give_a_sentence(tmp_path, kind, save_torchscript):
    path = tmp_path / "w.pt"
    write(path, kind, save_torchscript)
    good, rng, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(150):
        bad = bytearray(good)
        for _ in range(rng.randint(1, 6)):
            bad[rng.randrange(min(len(bad), 900))] = rng.randrange(256)
        path.write_bytes(bad)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch remarks on strange pickles
                read_weights(path)
        except WeightsError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 10


class Attack:
    def __reduce__(self):
        return os.mkdir, (os.environ["ATTACKED"],)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_not_run(tmp_path, monkeypatch, zipped):
    trace = tmp_path / "attacked"
    monkeypatch.setenv("ATTACKED", str(trace))
    torch.save({**TENSORS, "x": Attack()}, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    (tmp_path / "w.bin").write_bytes(pickle.dumps(Attack()))
    for name in ("w.pt", "w.bin"):
        with pytest.raises(WeightsError, match="Python objects"):
            read_weights(tmp_path / name)
    assert not trace.exists()


def test_a_pickle_disguised_as_torchscript_is_not_run(tmp_path, monkeypatch):
    trace = tmp_path / "attacked"
    monkeypatch.setenv("ATTACKED", str(trace))
    torch.save({"x": Attack()}, tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt", "a") as archive:
        archive.writestr("w/constants.pkl", pickle.dumps(()))
        archive.writestr("w/code/__torch__.py", "")
    with pytest.raises(WeightsError):
        read_weights(tmp_path / "w.pt")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([torch.zeros(2)], "holds no state dict but a list"),
        ({}, "holds no state dict"),
        ({"epoch": 3, "model": {}}, r"no tensors \(epoch, model\)"),
    ],
)
def test_other_contents_are_refused(tmp_path, content, says):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=says):
        read_weights(tmp_path / "w.pt")


def small():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1, bias=False))
    return model, {name: torch.randn_like(tensor) for name, tensor in model.state_dict().items()}


def test_load_strictly_copies_every_tensor_exactly():
    model, tensors = small()
    load_strictly(model, tensors, "file", "model")
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())


def test_load_strictly_keeps_fp32_and_widens_half():
    model, tensors = small()
    tensors["0.weight"] = torch.full((3, 2), 1 + 2**-20)  # fp16 would round this to 1
    tensors["1.weight"] = torch.full((1, 3), 0.1).half()
    load_strictly(model, tensors, "file", "model")
    assert (model[0].weight == 1 + 2**-20).all()
    assert model[1].weight.dtype == torch.float32
    assert (model[1].weight == torch.tensor(0.1).half().float()).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("0.bias"), r"1 missing \(0\.bias\)"),
        (lambda t: t.update(a=t["0.bias"], b=t["0.bias"]), r"2 unexpected \(a, b\)"),
        (lambda t: t.update({str(i): t["0.bias"] for i in range(9)}), r"9 unexpected \(0, 1, 2, \.\.\.\)"),
        (lambda t: t.update({"1.weight": t["0.weight"]}), r"1\.weight is \(3, 2\), expected \(1, 3\)"),
        (lambda t: t["0.weight"].fill_(float("nan")), r"not finite \(0\.weight\)"),
        (lambda t: t.update({"0.bias": torch.ones(3, dtype=torch.int8)}), r"not floating point .*0\.bias"),
    ],
)
def test_load_strictly_names_what_does_not_fit(change, says):
    model, tensors = small()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    change(tensors)
    with pytest.raises(WeightsError, match=says) as caught:
        load_strictly(model, tensors, "some.pt", "ViT-X")
    assert "some.pt" in str(caught.value)
    assert "ViT-X" in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_load_strictly_does_not_compute_with_a_tensor_of_another_shape():
    model, tensors = small()
    tensors["0.bias"] = torch.zeros(()).expand(2**50)
    with pytest.raises(WeightsError, match=r"0\.bias is \(1125899906842624,\), expected \(3,\)"):
        load_strictly(model, tensors, "file", "model")


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_logit_scale_may_be_a_scalar_or_one_number(shape):
    model = nn.Module()
    model.logit_scale = nn.Parameter(torch.ones(()))
    load_strictly(model, {"logit_scale": torch.full(shape, 4.6)}, "file", "model")
    assert model.logit_scale.item() == pytest.approx(4.6)


def test_hash_depends_on_names_shapes_types_and_values_but_not_on_order():
    base = hash_tensors(TENSORS)
    assert hash_tensors(dict(reversed(TENSORS.items()))) == base
    assert len(base) == 64
    others = [
        {**TENSORS, "more": torch.zeros(1)},
        {**TENSORS, "ln.bias": torch.tensor([0.5, -1.5001])},
        {**TENSORS, "ln.bias": torch.tensor([[0.5, -1.5]])},
        {**TENSORS, "ln.bias": TENSORS["ln.bias"].double()},
        {"visual.proj": TENSORS["visual.proj"], "ln_bias": TENSORS["ln.bias"]},
    ]
    assert len({base, hash_tensors(TENSORS, "GELU"), *map(hash_tensors, others)}) == 7


def test_hash_does_not_depend_on_strides():
    tensor = torch.arange(6.0).reshape(2, 3)
    assert hash_tensors({"a": tensor.T}) == hash_tensors({"a": tensor.T.contiguous()})


def test_hash_file_is_sha256(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert hash_file(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
