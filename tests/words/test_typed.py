"""Class names from a command line."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfclip.words.typed import choose_background, hint, parse_classes, read_classes, with_background
from rfclip.words.vocabulary import load_vocabulary, trimmed


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("sky, temple|pagoda, tree", [["sky"], ["temple", "pagoda"], ["tree"]]),
        ("dog", [["dog"]]),
        ("dog,", [["dog"]]),
        (r"salt\, pepper, a\|b", [["salt, pepper"], ["a|b"]]),
        (r"back\\, slash\x", [["back\\"], ["slash\\x"]]),
        ("  wide   name  | other ", [["wide   name", "other"]]),
        ("{}, été, 犬|🐕", [["{}"], ["été"], ["犬", "🐕"]]),
    ],
)
def test_parse(text: str, rows: list[list[str]]) -> None:
    assert parse_classes(text) == rows


@pytest.mark.parametrize("text", ["", "  ", ",", "a,,b", "a||b", "|a", "a|", "a, ,", ",a"])
def test_empty_names_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="has an empty name"):
        parse_classes(text)


@pytest.mark.parametrize("name", ["\0", "\ufeff", "\u200d", "\ufe0f"], ids=ascii)
def test_names_of_which_nothing_can_be_seen_are_empty(name: str) -> None:
    for text in (name, f"{name}, sky", f"sky|{name}, dog"):
        with pytest.raises(ValueError, match="has an empty name"):
            parse_classes(text)


NAMES = st.text(min_size=1, max_size=8).map(trimmed).filter(bool)


@given(st.lists(st.lists(NAMES, min_size=1, max_size=3), min_size=1, max_size=5))
def test_what_is_escaped_comes_back(rows: list[list[str]]) -> None:
    def escaped(name: str) -> str:
        return name.replace("\\", "\\\\").replace(",", "\\,").replace("|", "\\|")

    assert parse_classes(" , ".join(" | ".join(map(escaped, row)) for row in rows)) == rows


@given(st.text(st.sampled_from("\\,| ab"), max_size=12))
def test_any_text_gives_names_or_a_sentence(text: str) -> None:
    try:
        rows = parse_classes(text)
    except ValueError as error:
        assert "empty name" in str(error)
    else:
        assert rows
        assert all(row and all(name and name == trimmed(name) for name in row) for row in rows)


def test_shipped_file_or_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dog").write_text("a file that has nothing to do with it")
    Path("mine.json").write_text(json.dumps(["sky", ["temple", "pagoda, large"]]))
    Path("a, b.txt").write_text("sky\ntemple, pagoda\n")
    assert read_classes("voc21").classes[0] == "background"
    assert read_classes("mine.json").names == (("sky",), ("temple", "pagoda, large"))
    assert read_classes("a, b.txt").names == (("sky",), ("temple", "pagoda"))
    assert read_classes("dog").names == (("dog",),)
    assert read_classes("voc21, dog").names == (("voc21",), ("dog",))
    assert len(read_classes("x, " * 3000 + "y").names) == 3001
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt"):
        read_classes("nowhere.txt")


@pytest.mark.parametrize("text", ["classes.csv", "voc22", "VOC21", "sky; grass; cat", "sky\ngrass", "words"])
def test_one_class_that_looks_like_more(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("words").write_text("sky")
    sentence = hint(text, read_classes(text))
    assert sentence is not None
    assert "one class only: commas part classes; shipped vocabularies are ade20k, " in sentence


@pytest.mark.parametrize("text", ["dog", "dog|cat", "a cat on a mat", "St. Bernard", "sky, grass; cat", "one.txt"])
def test_one_class_that_is_meant(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.txt").write_text("dog")
    assert hint(text, read_classes(text)) is None


def test_no_background_changes_nothing() -> None:
    words = load_vocabulary(["sky", "dog"])
    assert with_background(words, "none") is words
    assert with_background(words, "auto") is words
    one = load_vocabulary(["dog"])
    assert with_background(one, "none") is one


def test_background_words_leave_out_what_is_a_class() -> None:
    words = with_background(load_vocabulary([["Sky", "tree"], "dog"]), "words")
    assert words.classes == ("background", "Sky", "dog")
    assert words.has_background
    assert len(set(words.colours)) == 3
    assert "wall" in words.names[0]
    assert not {"sky", "tree"} & set(words.names[0])


def test_one_class_gets_a_background_by_itself() -> None:
    words = with_background(load_vocabulary(["dog"]), "auto")
    assert words.classes == ("background", "dog")
    assert with_background(load_vocabulary(["background"]), "auto").classes == ("background",)


def test_own_background_words() -> None:
    words = with_background(load_vocabulary(["dog", "cat"]), "wall, floor|wall, Dog")
    assert words.names == (("wall", "floor"), ("dog",), ("cat",))
    assert with_background(load_vocabulary(["dog"]), "dog").names == (("background",), ("dog",))
    with pytest.raises(ValueError, match="empty name"):
        with_background(load_vocabulary(["dog"]), "")


def test_a_background_that_is_there_is_extended() -> None:
    own = load_vocabulary("voc21")
    words = with_background(own, "words")
    assert words.classes == own.classes
    assert words.names[1:] == own.names[1:]
    more = with_background(own, "carpet")
    assert more.names[0] == (*own.names[0], "carpet")


def test_a_background_that_stands_elsewhere_is_extended_there() -> None:
    words = with_background(load_vocabulary(["car", "person", "background"]), "words")
    assert words.classes == ("car", "person", "background") and words.background == 2
    assert "wall" in words.names[2] and words.names[2][0] == "background"
    assert words.names[:2] == (("car",), ("person",))


@pytest.mark.parametrize("which", ["0", "sky", "Wall ", "GRASS"])
def test_a_class_is_named_to_be_the_background(which: str) -> None:
    words = choose_background(load_vocabulary([["sky", "wall", "grass"], "car", "person"]), which)
    assert words.classes == ("background", "car", "person") and words.background == 0
    assert words.names[0] == ("sky", "wall", "grass") and words.colours[0] == (0, 0, 0)
    assert with_background(words, "floor").names[0] == ("sky", "wall", "grass", "floor")


def test_a_number_may_be_a_name() -> None:
    words = load_vocabulary(["zero", "0", "1"])
    assert choose_background(words, "0").background == 1
    assert choose_background(words, "2").background == 2
    assert choose_background(load_vocabulary("voc21"), "background") == load_vocabulary("voc21")


@pytest.mark.parametrize(
    ("classes", "which", "said"),
    [
        (["car", "sky"], "skyy", r"'skyy' is none of the classes.*did you mean 'sky'.* 0\.\.1"),
        (["car", "sky"], "2", "'2' is none of the classes"),
        (["car", "sky"], "-1", "'-1' is none of the classes"),
        (["car", "sky"], "", "'' is none of the classes"),
        ([["car", "van"], ["sky", "Van"]], "van", "a name of the classes 0, 1"),
        (["background", "sky"], "sky", "class 0 is the background by its name"),
    ],
)
def test_a_background_class_that_is_none_gets_a_sentence(classes: list[str], which: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        choose_background(load_vocabulary(classes), which)
