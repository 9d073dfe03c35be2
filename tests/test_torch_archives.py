"""Zip archives of PyTorch: what would run or read foreign memory on loading is refused, all else is read exactly."""

import random
import re
import struct
import zipfile

import pytest
import torch
from torch import nn

from rfclip import torch_archives
from rfclip.weights import WeightsError, read_weights

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning"
)
TENSORS = {"visual.proj": torch.arange(1000.0).reshape(40, 25), "ln.bias": torch.tensor([0.5, -1.5])}


@pytest.fixture
def archive(tmp_path, save_torchscript):
    path = tmp_path / "w.pt"
    save_torchscript(TENSORS, path)
    return path


def rewrite(path, change, compression=zipfile.ZIP_STORED):
    """Write an archive anew: change(name, content) gives a record's content, or None to leave it out."""
    with zipfile.ZipFile(path) as old:
        records = {name: change(name.partition("/")[2], old.read(name)) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", compression) as new:
        for name, content in records.items():
            if content is not None:
                new.writestr(name, content)


def refusal(path):
    """The sentence with which a file is refused; it names the file."""
    with pytest.raises(WeightsError, match=re.escape(str(path))) as caught:
        read_weights(path)
    return str(caught.value)


class Part(nn.Module):
    """Buffers of many kinds, and a constant in the traced code."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        long = torch.arange(10.0)
        kinds = [long.half(), long.bfloat16(), long.double(), long.long(), long > 3, long.byte(), long.cfloat()]
        views = [long[2:8:2], long[:6].reshape(2, 3).T, long[:1].expand(4), long[:0], long[3]]
        for number, tensor in enumerate([*kinds, *views]):
            self.register_buffer(f"kind{number}", tensor)

    def forward(self, x, scale: int = 3, name: str = "a"):
        return self.linear(x) * scale + torch.tensor([1.0, 2.0, 3.0])


class Whole(nn.Module):
    """Modules within modules, and a tensor with two names."""

    def __init__(self):
        super().__init__()
        self.part = Part()
        self.layers = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
        self.again = self.part.linear.weight

    def forward(self, x):
        return self.layers(self.part(x))


@pytest.mark.parametrize("compression", [None, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("traced", [True, False])
def test_every_dense_tensor_is_read_to_the_bit(tmp_path, traced, compression):
    path, model = tmp_path / "w.pt", Whole()
    module = torch.jit.trace(model, torch.zeros(2, 4)) if traced else torch.jit.script(model)
    torch.jit.save(module, path)
    if compression is not None:
        rewrite(path, lambda name, content: content, compression)
    found, expected = read_weights(path).tensors, model.state_dict()
    assert len(found) == len(expected) == 19
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


CLASS = b"  training : bool\n"
WRITES = b'torch.from_file("TARGET", True, 8)'


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"    x: Tensor)", b"    x: Tensor, y: Tensor=%s)" % WRITES),
        (b"    x: Tensor)", b"    x: Tensor, y: int=torch.numel(%s))" % WRITES),
        (CLASS, CLASS + b"  y : Final[int] = torch.numel(%s)\n" % WRITES),
        (CLASS, CLASS + b"  y : Final[int] = (1, torch.numel(%s))[1]\n" % WRITES),
        (b"class", b"def f(y: Tensor=%s) -> Tensor:\n  return y\nclass" % WRITES),
        (CLASS, CLASS + b"# \r  z = '\\\n  y : Final[int] = torch.numel(%s) \\\n# '\n" % WRITES),  # to Python a string
        (CLASS, CLASS + b"  def \\\n __setstate__(self: int, state: int) -> NoneType:\n    return None\n"),
        (CLASS, CLASS + b"  def __setstate__(self: int, state: int) -> NoneType:\n    return None\n"),
    ],
)
def test_code_that_would_run_on_loading_is_refused(tmp_path, archive, old, new):
    target = tmp_path / "attacked"
    new = new.replace(b"TARGET", str(target).encode())
    rewrite(archive, lambda name, content: content.replace(old, new) if name.endswith(".py") else content)
    assert re.search(
        r"holds code that (would run on loading|PyTorch did not write) \(code/__torch__.*\.py", refusal(archive)
    )
    assert not target.exists()


class Attack(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return x

    @torch.jit.export
    def __getstate__(self):
        return (self.w, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        self.w = state[0]
        self.training = state[1]
        torch.save(torch.zeros(5), "TARGET")


def test_a_setstate_of_a_scripted_module_is_not_run(tmp_path):
    path, target = tmp_path / "w.pt", tmp_path / "attacked"
    torch.jit.save(torch.jit.script(Attack()), path)
    rewrite(path, lambda name, content: content.replace(b"TARGET", str(target).encode()))
    assert re.search(r"would run on loading \(code/__torch__.*\.py, line \d+\)", refusal(path))
    assert not target.exists()


def test_code_that_only_speaks_of_setstate_is_read(archive):
    rewrite(archive, lambda name, content: content.replace(CLASS, b"  # def __setstate__(self)\n" + CLASS))
    assert set(read_weights(archive).tensors) == set(TENSORS)


@pytest.mark.parametrize("code", [b"class X(:", b"(" * 5000, b"\xff", b'x = """y"""', b"\x00"])
def test_code_that_does_not_parse_is_refused(archive, code):
    rewrite(archive, lambda name, content: code if name.endswith(".py") else content)
    assert re.search("damaged|PyTorch did not write", refusal(archive))


def test_an_object_of_a_compiled_extension_is_refused(archive):
    pickled = b"\x80\x02c__torch__.torch.classes.lib\nThing\n)\x81}b."
    rewrite(archive, lambda name, content: pickled if name == "constants.pkl" else content)
    assert re.search(r"compiled extension \(Thing\)", refusal(archive))


@pytest.mark.parametrize("kind", ["torchscript", "state dict"])
@pytest.mark.parametrize("cut", [lambda c: c[:64], lambda c: c + b"\0", lambda c: b"", lambda c: None])
def test_a_record_of_another_length_is_refused(archive, kind, cut):
    if kind == "state dict":
        torch.save(TENSORS, archive)
    rewrite(archive, lambda name, content: cut(content) if name == "data/0" else content)
    assert re.search(r"(\d+ bytes in|no) record data/0, expected 4000 bytes", refusal(archive))


def test_a_constant_of_another_length_is_refused(tmp_path):
    torch.jit.save(torch.jit.trace(Whole(), torch.zeros(2, 4)), tmp_path / "w.pt")
    rewrite(tmp_path / "w.pt", lambda name, content: content[:4] if name == "constants/0" else content)
    assert re.search("4 bytes in record constants/0, expected 8 bytes", refusal(tmp_path / "w.pt"))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"(K(K\x19t", b"(K)K\x19t", r"shape \(41, 25\) exceeds its storage"),
        (b"(K\x19K\x01t", b"(K\x1aK\x01t", "exceeds its storage"),
        (b"K\x00(K(K\x19t", b"K\x01(K(K\x19t", "exceeds its storage"),
        (b"(K\x19K\x01t", b"(J\xff\xff\xff\xffK\x01t", "exceeds its storage"),
        (b"(K\x19K\x01t", b"(K\x01t", "damaged"),
        (b"FloatStorage", b"HalfStorage", "4000 bytes in record data/0, expected 2000"),
        (b"FloatStorage", b"OtherStorage", "damaged"),
        (b"_rebuild_tensor_v2", b"_rebuild_sparse_tensor", r"not dense \(_rebuild_sparse_tensor\)"),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(archive, old, new, says):
    def change(name, content):
        assert name != "data.pkl" or old in content
        return content.replace(old, new) if name == "data.pkl" else content

    rewrite(archive, change)
    assert re.search(says, refusal(archive))


def test_a_pickle_that_asks_for_too_much_memory_is_refused(archive):
    pickled = b"\x80\x02)r" + struct.pack("<I", 2**24) + b"."
    rewrite(archive, lambda name, content: pickled if name == "constants.pkl" else content)
    assert re.search("damaged", refusal(archive))


def test_an_archive_that_unpacks_to_far_more_is_refused(archive, monkeypatch):
    monkeypatch.setattr(torch_archives, "_SLACK", 10_000)
    assert read_weights(archive).torchscript
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("w/more", bytes(1_000_000))
    assert re.search("unpacks to far more", refusal(archive))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["w/data.pkl", "w/DATA.PKL", "w/Data/0"])
def test_two_records_of_one_name_are_refused(archive, name):
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(name, b"\x80\x02).")
    assert re.search("several records of one name", refusal(archive))


def test_an_archive_in_the_oldest_format_is_refused(archive):
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("w/model.json", "{}")
    assert re.search("before PyTorch 1.4", refusal(archive))


@pytest.mark.parametrize("record", [r"data\.pkl", r"constants\.pkl", r".*\.py"])
@pytest.mark.filterwarnings("ignore")  # torch remarks on strange pickles
def test_fuzzed_records_are_read_or_give_a_sentence(archive, record):
    good, rng, count = archive.read_bytes(), random.Random(0), 0

    def damage(name, content):
        bad = bytearray(content)
        for _ in range(rng.randint(1, 4) if re.fullmatch(record, name) else 0):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        return bytes(bad)

    for _ in range(100):
        archive.write_bytes(good)
        rewrite(archive, damage)
        try:
            weights = read_weights(archive)
        except WeightsError as error:
            assert str(archive) in str(error)
            count += 1
        else:
            assert all(tensor.clone().shape == tensor.shape for tensor in weights.tensors.values())
    assert count > 10
