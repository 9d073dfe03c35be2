"""Class names as they are typed on a command line, and words for what is none of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from rfclip.checks import near, shown
from rfclip.words.vocabulary import (
    BACKGROUND,
    BLACK,
    Vocabulary,
    distinct_colours,
    load_vocabulary,
    same_name,
    shipped_vocabularies,
    trimmed,
)

_MORE = re.compile(r";|[\r\n]|\S\.[a-z]{2,5}$", re.IGNORECASE)  # other ways of parting words, endings of files
_PIECES = re.compile(r"\\[\\,|]|[,|]|[^\\,|]+|\\", re.DOTALL)


def parse_classes(text: str) -> list[list[str]]:
    r"""Take "sky, temple|pagoda, tree" apart: commas part classes, ``|`` parts the aliases of a class.

    ``\,`` and ``\|`` are a comma and a bar inside a name, ``\\`` is a backslash; any other backslash stands for
    itself. White space around names is removed, and so is one comma at the very end.

    Returns:
        Per class its names.

    Raises:
        ValueError: No class, or a name is empty, or nothing of it can be seen.

    Example:
        >>> parse_classes(r"sky, temple|pagoda, salt\, pepper")
        [['sky'], ['temple', 'pagoda'], ['salt, pepper']]
    """
    rows = [[""]]
    for piece in _PIECES.findall(text):
        if piece == ",":
            rows.append([""])
        elif piece == "|":
            rows[-1].append("")
        else:
            rows[-1][-1] += piece[1:] if len(piece) == 2 and piece[0] == "\\" else piece
    rows = [[trimmed(name) for name in row] for row in rows]
    if len(rows) > 1 and rows[-1] == [""]:
        rows.pop()
    for number, row in enumerate(rows, 1):
        if "" in row:
            raise ValueError(
                f'class names {text!r}: class {number} has an empty name; write "sky, temple|pagoda, tree": commas '
                "part classes, | parts the names of a class, and \\, or \\| stand for these signs in a name"
            )
    return rows


def read_classes(text: str) -> Vocabulary:
    """The vocabulary that ``--classes`` asks for.

    Args:
        text: A shipped vocabulary's name, the path of a .json or .txt file, or class names
            (:func:`parse_classes`).

    Raises:
        ValueError: It cannot be read; the sentence says where.
        FileNotFoundError: It looks like a file, and there is none.

    Example:
        >>> read_classes("sky, temple|pagoda").classes
        ('sky', 'temple')
    """
    if _is_file(text) or text in shipped_vocabularies():
        return load_vocabulary(text)
    return load_vocabulary(parse_classes(text))


def hint(text: str, vocabulary: Vocabulary) -> str | None:
    """A sentence for a ``--classes`` that gave one class and looks as if more were meant: a file, "a; b", "voc22"."""
    shipped = shipped_vocabularies()
    looks_like_more = _MORE.search(text) or get_close_matches(text.lower(), shipped, cutoff=0.75) or _exists(text)
    if len(vocabulary.classes) > 1 or text in shipped or _is_file(text) or not looks_like_more:
        return None
    names = ", ".join(name for name in shipped if not name.endswith("_clean"))
    return (
        f"--classes {shown(text)} is one class only: commas part classes; shipped vocabularies are {names} (and these "
        "with _clean behind); files of your own end in .json or .txt"
    )


def with_background(vocabulary: Vocabulary, choice: str) -> Vocabulary:
    """Give a vocabulary the background that ``--background`` asks for.

    Args:
        vocabulary: The classes.
        choice: 'none': nothing is added. 'words': class 0 is the background, asked for by the published background
            names of VOC21 (sky, wall, tree, ...) as far as they name none of the classes. 'auto': 'words' where
            there is only one class, which would otherwise take every pixel; else nothing is added. Anything else
            is the background's own names, parted by commas.

    Returns:
        The vocabulary, itself if nothing changes; a vocabulary that has a background keeps it, with the new names
        behind its own.

    Raises:
        ValueError: An empty name.

    Example:
        >>> with_background(read_classes("cat, dog"), "wall, floor").names
        (('wall', 'floor'), ('cat',), ('dog',))
    """
    if choice == "none" or (choice == "auto" and (len(vocabulary.names) > 1 or vocabulary.has_background)):
        return vocabulary
    if choice in ("auto", "words"):
        words: Iterable[str] = load_vocabulary("voc21").names[0]
    else:
        words = [name for row in parse_classes(choice) for name in row]
    taken = {same_name(name) for name in vocabulary.queries}
    words = tuple(word for word in dict.fromkeys(words) if same_name(word) not in taken)
    if vocabulary.background is not None:
        rows = list(vocabulary.names)
        rows[vocabulary.background] += words
        return replace(vocabulary, names=tuple(rows))
    names = (words or (BACKGROUND,), *vocabulary.names)
    classes = (BACKGROUND, *vocabulary.classes)
    return Vocabulary(names, classes, distinct_colours(len(names), background=True), background=0)


def choose_background(vocabulary: Vocabulary, which: str) -> Vocabulary:
    """Make the class that ``--background-class`` names the background, where it stands.

    Args:
        vocabulary: The classes.
        which: One of a class's names, or its number, counted from 0; a name that looks like a number is a name.

    Returns:
        The vocabulary with that class as its background, shown as 'background'.

    Raises:
        ValueError: No such class, or another class is the background by its name.

    Example:
        >>> choose_background(read_classes("cat, wall|floor"), "floor").background
        1
    """
    wanted = same_name(trimmed(which))
    called = [
        {same_name(name) for name in (shows, *row)}
        for shows, row in zip(vocabulary.classes, vocabulary.names, strict=True)
    ]
    found = [index for index, names in enumerate(called) if wanted in names]
    if not found:
        found = [index for index in range(len(called)) if str(index) == wanted]
    if len(found) != 1:
        why = f"a name of the classes {', '.join(map(str, found))}" if found else "none of the classes"
        raise ValueError(
            f"--background-class {shown(which)} is {why}{near(wanted, set().union(*called))}: give a name, or a "
            f"number in 0..{len(called) - 1}"
        )
    (index,) = found
    if vocabulary.background not in (None, index):
        raise ValueError(
            f"--background-class {shown(which)} is class {index}, but class {vocabulary.background} is the background "
            "by its name: leave --background-class out, or call that class something else"
        )
    classes, colours = list(vocabulary.classes), list(vocabulary.colours)
    classes[index], colours[index] = BACKGROUND, BLACK
    return replace(vocabulary, classes=tuple(classes), colours=tuple(colours), background=index)


def _is_file(text: str) -> bool:
    """Whether a text names a vocabulary file."""
    return text.lower().endswith((".json", ".txt")) and (not set(text) & set(",|") or _exists(text))


def _exists(text: str) -> bool:
    """Whether there is such a file, for a text that may be far too long for a path."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False
