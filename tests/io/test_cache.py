from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from rfclip.io import cache
from tests.support.log import keep_log


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "cache"))
    cache._warn_unwritable.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    keep_log(monkeypatch, cache, lambda message, _: lines.append(message))
    return lines


class Maker:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, torch.Tensor]:
        self.calls += 1
        return {"a": torch.arange(12.0).view(3, 4).T, "b": torch.tensor([1, 2])}


def _same(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> None:
    assert got.keys() == want.keys()
    for name in want:
        assert got[name].dtype == want[name].dtype
        assert torch.equal(got[name], want[name])


def test_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache.cache_dir() == tmp_path / "cache"
    monkeypatch.setenv("RFCLIP_CACHE", "~/elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_dir() == tmp_path / "elsewhere"
    monkeypatch.setenv("RFCLIP_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_dir() == tmp_path / "xdg" / "rfclip"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_dir() == tmp_path / ".cache" / "rfclip"


@pytest.mark.parametrize("variable", ["RFCLIP_CACHE", "XDG_CACHE_HOME", None])
def test_no_home_directory_is_no_reason_to_fail(
    monkeypatch: pytest.MonkeyPatch, log: list[str], tmp_path: Path, variable: str | None
) -> None:
    def expanduser(self: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "expanduser", expanduser)
    for name in ("RFCLIP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "~nobody-of-this-name/cache")
    make = Maker()
    for _ in range(2):
        _same(cache.cached_tensors("key", make), Maker()())
    assert make.calls == 2 and cache.cache_dir() is None
    assert len(log) == 1 and "no such home directory" in log[0] and "RFCLIP_CACHE" in log[0]
    assert cache.expanded("~nobody/photos") == Path("~nobody/photos")
    assert list(tmp_path.iterdir()) == []


def test_a_file_under_the_name_of_another_is_rebuilt(folder: Path, log: list[str]) -> None:
    cache.cached_tensors("other", lambda: {"a": torch.zeros(3)})
    (path,) = folder.iterdir()
    path.rename(cache._path("key"))
    _same(cache.cached_tensors("key", Maker()), Maker()())
    assert len(log) == 1 and "damaged" in log[0]


def test_made_once_and_read_back(folder: Path) -> None:
    make = Maker()
    _same(cache.cached_tensors("key", make), make())
    _same(cache.cached_tensors("key", make), make())
    assert make.calls == 3  # two of them by this test
    cache.cached_tensors("other key", make)
    assert make.calls == 4
    assert len(list(folder.iterdir())) == 2  # and no temporary file is left


@pytest.mark.parametrize("damage", ["empty", "truncated", "noise", "one bit", "no checksum", "directory"])
def test_damaged_file_is_rebuilt(folder: Path, log: list[str], damage: str) -> None:
    make = Maker()
    cache.cached_tensors("key", make)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-40] ^= 1
    if damage == "directory":
        path.unlink()
        path.mkdir()
    elif damage == "no checksum":
        path.write_bytes(cache.save({"a": torch.zeros(2)}))
    else:
        contents = {"empty": b"", "truncated": whole[:-5], "noise": b"\xff" * 99, "one bit": bytes(flipped)}
        path.write_bytes(contents[damage])
    _same(cache.cached_tensors("key", make), make())
    assert str(path) in log[0] and "rebuilt" in log[0]
    if damage != "directory":
        assert path.read_bytes() == whole


def test_unwritable_directory_warns_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: list[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "file" / "cache"))
    make = Maker()
    for _ in range(3):
        _same(cache.cached_tensors("key", make), Maker()())
    assert make.calls == 3
    assert len([line for line in log if "RFCLIP_CACHE" in line]) == 1


def test_full_disk_leaves_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch, log: list[str]) -> None:
    def replace(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", replace)
    _same(cache.cached_tensors("key", Maker()), Maker()())
    assert list(folder.iterdir()) == []
    assert "No space left" in log[0]


def test_threads_share_one_entry(folder: Path, log: list[str]) -> None:
    results: list[dict[str, torch.Tensor]] = []

    def work() -> None:
        results.append(cache.cached_tensors("key", Maker()))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for result in results:
        _same(result, Maker()())
    assert len(list(folder.iterdir())) == 1
    assert log == []


def test_two_processes_fill_one_cache(folder: Path, log: list[str]) -> None:
    code = (
        "import torch; from rfclip.io.cache import cached_tensors\n"
        "for i in range(40):\n"
        "    got = cached_tensors(f'key {i % 4}', lambda: {'a': torch.full((50, 7), float(i % 4))})\n"
        "    assert (got['a'] == i % 4).all()\n"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]
    for i in range(4):
        kept = cache.read_tensors(f"key {i}")
        assert kept is not None and torch.equal(kept["a"], torch.full((50, 7), float(i)))
    assert len(list(folder.iterdir())) == 4
    assert log == []
