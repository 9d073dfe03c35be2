"""Files that are whole or not there, and what is said where none can be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from rfclip.io.atomic import write_whole


@pytest.mark.parametrize("content", ["caf\u00e9 \udce9\n", b"\x00\xff"])
def test_a_file_is_replaced_whole(content: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250 + ".json")  # as long as names may be
    for old in (b"", b"a longer text that stood there before"):
        path.write_bytes(old)
        write_whole(path, content)
        assert path.read_bytes() == (b"caf\xc3\xa9 \\udce9\n" if isinstance(content, str) else content)
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "not there/a.json", tmp_path / "folder"):
        with pytest.raises(OSError, match=path.name) as found:
            write_whole(path, "x")
        assert found.value.filename == str(path)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
