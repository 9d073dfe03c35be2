"""Zip archives of PyTorch: whole or refused, read exactly, and nothing in them runs."""

import os
import pickle
import random
import re
import struct
import zipfile

import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import nn

from rfclip.clip import torch_archives
from rfclip.clip.loader import load_clip
from rfclip.clip.weights import WeightsError, read_weights

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


def in_the_old_format(path):
    """Write an archive anew as torch 1.7 did: format version 3, its folder named archive, no further records."""
    with zipfile.ZipFile(path) as old:
        records = {name.partition("/")[2]: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, content in records.items():
            if not name.startswith((".", "byteorder", "traced_inputs")):
                new.writestr(f"archive/{name}", b"3\n" if name == "version" else content)


@pytest.fixture(scope="module")
def clip():
    """A small CLIP in OpenAI's layout, with its three entries of sizes and a tensor that is no parameter or buffer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vision = CLIPVisionCfg(image_size=64, patch_size=16, width=128, layers=2)
        model = CLIP(32, vision, CLIPTextCfg(width=64, heads=1, layers=1), quick_gelu=True).eval()
    for name, value in {"input_resolution": 64, "context_length": 77, "vocab_size": 49408}.items():
        model.__dict__.pop(name, None)
        model.register_buffer(name, torch.tensor(value))
    model.aside = torch.ones(3)
    return model.requires_grad_(False)


def save_compiled(clip, path, traced, half):
    clip = clip.half() if half else clip.float()
    if traced:
        images = torch.zeros(1, 3, 64, 64, dtype=clip.visual.proj.dtype)
        inputs = {"encode_image": images, "encode_text": torch.zeros(1, 77, dtype=torch.long)}
        torch.jit.save(torch.jit.trace_module(clip, inputs, check_trace=False), path)
    else:
        torch.jit.save(torch.jit.script(clip), path)


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("traced", [True, False])
def test_the_state_dict_of_a_clip_is_that_of_torch_jit(tmp_path, clip, traced, half, old):
    path = tmp_path / "clip.pt"
    save_compiled(clip, path, traced, half)
    expected = torch.jit.load(path).state_dict()
    if old:
        in_the_old_format(path)
    weights = read_weights(path)
    assert weights.torchscript
    assert weights.has_sizes
    assert len(weights.tensors) + 3 == len(expected)
    assert weights.tensors["visual.proj"].dtype == (torch.half if half else torch.float)
    for name, tensor in weights.tensors.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name])


@pytest.mark.parametrize("traced", [True, False])
def test_an_archive_as_openai_publishes_them_is_loaded(tmp_path, clip, traced):
    save_compiled(clip, tmp_path / "clip.pt", traced, half=True)
    in_the_old_format(tmp_path / "clip.pt")
    loaded = load_clip("auto", tmp_path / "clip.pt")
    assert loaded.activation == "QuickGELU"
    assert torch.equal(loaded.model.visual.proj, clip.visual.proj.float())
    assert loaded.model.visual.proj.dtype == torch.float


def test_archives_that_list_no_buffers_count_all_tensors(tmp_path):
    torch.jit.save(torch.jit.script(Whole()), tmp_path / "w.pt")
    rewrite(
        tmp_path / "w.pt",
        lambda name, content: re.sub(rb"  __buffers__ = .*\n", b"", content) if name.endswith(".py") else content,
    )
    assert read_weights(tmp_path / "w.pt").tensors.keys() == Whole().state_dict().keys()


def test_shared_storages_stay_shared(tmp_path):
    torch.jit.save(torch.jit.script(Whole()), tmp_path / "w.pt")
    tensors = read_weights(tmp_path / "w.pt").tensors
    assert tensors["again"].data_ptr() == tensors["part.linear.weight"].data_ptr()


class Scripted:
    """An object of the archive that is no module."""

    def __init__(self, x: torch.Tensor):
        self.x = x


class Kinds(nn.Module):
    """Attributes of all kinds that TorchScript saves."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))
        self.numbers, self.flags, self.reals, self.tensors = [1, 2], [True], [0.5], [torch.ones(2)]
        self.words = torch.jit.Attribute({"a": 1}, dict[str, int])
        self.device, self.dtype, self.nothing, self.pair = torch.device("cpu"), torch.half, None, (1, "a")
        self.object = torch.jit.script(Scripted)(torch.ones(3))
        self.list = nn.ModuleList([nn.Linear(2, 2, bias=False), nn.Identity()])

    def forward(self, x):
        if self.flags[0] and self.numbers[0] + self.reals[0] > 0 and self.words["a"] + self.pair[0] > 0:
            x = x + self.tensors[0] + self.object.x[:2]
        return self.list[0](x).to(self.device)


def test_other_attributes_are_passed_over(tmp_path):
    torch.jit.save(torch.jit.script(Kinds()), tmp_path / "w.pt")
    assert set(read_weights(tmp_path / "w.pt").tensors) == {"w", "list.0.weight"}


CLASS = b"  training : bool\n"
WRITES = b'torch.from_file("TARGET", True, 8)'


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"    x: Tensor)", b"    x: Tensor, y: Tensor=%s)" % WRITES),
        (b"    x: Tensor)", b"    x: Tensor, y: int=torch.numel(%s))" % WRITES),
        (CLASS, CLASS + b"  y : Final[int] = torch.numel(%s)\n" % WRITES),
        (b"class", b"def f(y: Tensor=%s) -> Tensor:\n  return y\nclass" % WRITES),
        (CLASS, CLASS + b"  def __setstate__(self: int, state: int) -> NoneType:\n    return None\n"),
        (CLASS, CLASS + b"  class X(:\n" + b"(" * 5000 + b"\x00"),
    ],
)
def test_code_is_not_compiled(tmp_path, archive, old, new):
    target = tmp_path / "attacked"
    new = new.replace(b"TARGET", str(target).encode())
    rewrite(archive, lambda name, content: content.replace(old, new) if name.endswith(".py") else content)
    tensors = read_weights(archive).tensors
    assert set(tensors) == set(TENSORS)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
    assert not target.exists()


def test_code_that_is_no_text_is_refused(archive):
    rewrite(archive, lambda name, content: b"\xff" if name.endswith(".py") else content)
    assert re.search("damaged", refusal(archive))


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
    assert re.search(r"packs its tensors in a way of its own \(__torch__.*Attack\)", refusal(path))
    assert not target.exists()


class Command:
    def __reduce__(self):
        return os.mkdir, (os.environ["ATTACKED"],)


def test_a_pickle_of_a_torchscript_archive_runs_nothing(tmp_path, archive, monkeypatch):
    monkeypatch.setenv("ATTACKED", str(tmp_path / "attacked"))
    pickled = pickle.dumps(Command(), protocol=2)
    rewrite(archive, lambda name, content: pickled if name == "data.pkl" else content)
    assert re.search("Python objects", refusal(archive))
    rewrite(
        archive,
        lambda name, content: b"\x80\x02c__torch__\nX\n(X\x01\x00\x00\x00atR." if name == "data.pkl" else content,
    )
    assert read_failure(archive)
    assert not (tmp_path / "attacked").exists()


def read_failure(path):
    """Whether a file is refused, or holds nothing."""
    try:
        return not read_weights(path).tensors
    except WeightsError as error:
        return str(path) in str(error)


@pytest.mark.parametrize(
    "target", [b"c__torch__\nX\n", b"ctorch.jit._pickle\nrestore_type_tag\n", b"ctorch._utils\n_rebuild_tensor_v2\n"]
)
def test_a_pickle_cannot_change_the_reader(archive, target):
    good = archive.read_bytes()
    attributes = b"N}X\x0c\x00\x00\x00__setstate__N" + b"s" + b"\x86b."
    rewrite(archive, lambda name, content: b"\x80\x02" + target + attributes if name == "data.pkl" else content)
    assert read_failure(archive)
    archive.write_bytes(good)
    assert set(read_weights(archive).tensors) == set(TENSORS)


def test_modules_that_hold_themselves_are_refused(archive):
    looped = b"\x80\x02c__torch__\nX\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb."
    rewrite(archive, lambda name, content: looped if name == "data.pkl" else content)
    assert re.search("nests more than 20000 modules", refusal(archive))


@pytest.mark.parametrize("kind", ["torchscript", "state dict"])
@pytest.mark.parametrize("record", ["data/0", "data.pkl", "version"])
def test_a_damaged_record_is_found_by_its_checksum(archive, kind, record):
    if kind == "state dict":
        torch.save(TENSORS, archive)
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as file:
        (info,) = [info for info in file.infolist() if info.filename.partition("/")[2] == record]
        place = content.index(file.read(info), info.header_offset)
    content[place + info.file_size // 2] ^= 0x80
    archive.write_bytes(content)
    assert re.search(rf"record w/{record} is not what its checksum says: download it again", refusal(archive))


def test_an_archive_without_checksums_is_read(tmp_path):
    torch.save(TENSORS, tmp_path / "w.pt")
    content = bytearray((tmp_path / "w.pt").read_bytes())
    with zipfile.ZipFile(tmp_path / "w.pt") as file:
        for info in file.infolist():
            for place in [match.start() for match in re.finditer(re.escape(struct.pack("<I", info.CRC)), content)]:
                content[place : place + 4] = bytes(4)
    (tmp_path / "w.pt").write_bytes(content)
    assert set(read_weights(tmp_path / "w.pt").tensors) == set(TENSORS)


@pytest.mark.parametrize("kind", ["torchscript", "state dict"])
@pytest.mark.parametrize("cut", [lambda c: c[:64], lambda c: c + b"\0", lambda c: b"", lambda c: None])
def test_a_record_of_another_length_is_refused(archive, kind, cut):
    if kind == "state dict":
        torch.save(TENSORS, archive)
    rewrite(archive, lambda name, content: cut(content) if name == "data/0" else content)
    assert re.search(r"(\d+ bytes in|no) record data/0, expected 4000 bytes", refusal(archive))


def test_constants_of_the_code_are_no_weights(tmp_path):
    torch.jit.save(torch.jit.trace(Whole(), torch.zeros(2, 4)), tmp_path / "w.pt")
    rewrite(tmp_path / "w.pt", lambda name, content: content[:4] if name == "constants/0" else content)
    assert read_weights(tmp_path / "w.pt").tensors.keys() == Whole().state_dict().keys()


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
    rewrite(archive, lambda name, content: pickled if name == "data.pkl" else content)
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


@pytest.mark.parametrize("record", [r"data\.pkl", r"data/0", r"code/.*"])
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
        else:
            assert all(tensor.clone().shape == tensor.shape for tensor in weights.tensors.values())
        count += 1
    assert count == 100
