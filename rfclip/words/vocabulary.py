"""The class names that are asked for: shipped, from a file, or a list; with names and colours to show."""

from __future__ import annotations

import colorsys
import functools
import json
import logging
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rfclip.checks import shown
from rfclip.data import DATA

LOG = logging.getLogger(__name__)

_VOCABULARIES = DATA / "vocabularies"
BACKGROUND = "background"
Colour = tuple[int, int, int]
BLACK = (0, 0, 0)
# Signs that show nothing and are no part of a word: control characters, soft hyphens, marks of direction, ...
_HIDDEN = r"\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
# What is no part of a name at its ends: these, white space, and joiners, which join nothing there
_ENDS = re.compile(rf"^[\s\u200c\u200d{_HIDDEN}]+|[\s\u200c\u200d{_HIDDEN}]+$")
_WITHIN = re.compile(rf"(?!\s)[{_HIDDEN}]")
# Letters and marks that show nothing, beside what is invisible by its category: fillers, joiners, variation selectors
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


@dataclass(frozen=True)
class Vocabulary:
    """The names of C classes; a class may have several (aliases), and each of them is a query of its own.

    Attributes:
        names: Per class the names that are asked for; C rows of at least one name.
        classes: Per class the name that is shown, C of them.
        colours: Per class the colour (r, g, b), 0..255, C of them.
        background: The class that is the background, which a threshold may fall back to, 0..C-1; None without one.
    """

    names: tuple[tuple[str, ...], ...]
    classes: tuple[str, ...]
    colours: tuple[Colour, ...] = field(repr=False)
    background: int | None = None

    @property
    def has_background(self) -> bool:
        """Whether one of the classes is the background."""
        return self.background is not None

    @property
    def queries(self) -> tuple[str, ...]:
        """All names, class by class; Q of them."""
        return tuple(name for row in self.names for name in row)

    @property
    def query_class(self) -> tuple[int, ...]:
        """The class that each of the Q queries belongs to, ascending, 0..C-1."""
        return tuple(index for index, row in enumerate(self.names) for _ in row)

    @property
    def palette(self) -> list[list[int]]:
        """The colours as mmsegmentation takes them: C lists of [r, g, b]."""
        return [list(colour) for colour in self.colours]


def shipped_vocabularies() -> tuple[str, ...]:
    """Names of the vocabularies that come with the package."""
    return shipped_lists(_VOCABULARIES)


def load_vocabulary(spec: str | Path | Sequence[str | Sequence[str]]) -> Vocabulary:
    """Class names from a shipped vocabulary, a file, or a list.

    A vocabulary of a benchmark shows the class names and colours of its data set, whatever names it asks
    for; any other shows the first name of each class in a generated colour, and the class whose first name is
    'background' is the background.

    Args:
        spec: A shipped name such as 'voc21' or 'voc21_clean'; the path of a .json file (a list whose entries
            are a name or a list of aliases) or of a .txt file (a line per class, aliases separated by commas;
            blank lines at the end are ignored); or such a list itself. In lists and .json files a name may
            hold any character. White space around names is removed, and so are byte-order marks and the like; within
            a name they are logged. So is a name that stands twice: its queries tie, and the first always wins.

    Raises:
        ValueError: Not a list of names or lists of names, no class, a class without names, a name of which
            nothing can be seen, two classes 'background', an unknown vocabulary, an unreadable file; the sentence
            names the class.
        FileNotFoundError: No such file.
    """
    source, rows = _read_rows(spec)
    names = _checked_rows(source, rows)
    if source.lower().endswith(".txt"):
        _warn_about_bars(source, names)
    _warn_about_repeats(source, names)
    _warn_about_hidden_signs(source, names)
    about = _benchmark(spec)
    if about is None:
        classes = tuple(row[0] for row in names)
        background = _background_of(source, classes)
        colours = list(distinct_colours(len(names), background is not None))
        if background is not None:
            colours.insert(background, colours.pop(0))
        return Vocabulary(names, classes, tuple(colours), background)
    meta = dataset_facts()[about["dataset"]]
    if len(meta["classes"]) != len(names):
        raise ValueError(
            f"vocabulary '{source}' has {len(names)} rows, but {about['dataset']} has {len(meta['classes'])} "
            "classes; give it one row per class"
        )
    palette = tuple((int(r), int(g), int(b)) for r, g, b in meta["palette"])
    return Vocabulary(names, tuple(meta["classes"]), palette, 0 if about["has_background"] else None)


def distinct_colours(count: int, background: bool = False) -> tuple[Colour, ...]:
    """``count`` different colours (r, g, b), 0..255, always the same; the first is black for a background.

    Hue, saturation and value each go round by a step of their own, so that neighbours in the list differ.

    Example:
        >>> distinct_colours(2, background=True)
        ((0, 0, 0), (255, 0, 0))
    """
    colours: dict[Colour, None] = {BLACK: None} if background else {}
    step = 0
    while len(colours) < count:
        hue, paleness, darkness = (step * stride % 1 for stride in (0.618034, 0.754878, 0.569840))
        rgb = colorsys.hsv_to_rgb(hue, 1 - 0.6 * paleness, 1 - 0.5 * darkness)
        red, green, blue = (round(255 * channel) for channel in rgb)
        colours.setdefault((red, green, blue))
        step += 1
    return tuple(colours)


def shipped_lists(folder: Path) -> tuple[str, ...]:
    """Names of the .json lists in a data folder; files that begin with '_' describe the others."""
    return tuple(sorted(path.stem for path in folder.glob("*.json") if not path.stem.startswith("_")))


def read_json_list(spec: str | Path, folder: Path, kind: str) -> Any:
    """Contents, unchecked, of a shipped list in ``folder`` or of a .json file; ``kind`` is for errors."""
    shipped = shipped_lists(folder)
    path = folder / f"{spec}.json" if str(spec) in shipped else Path(spec)
    if path.suffix.lower() != ".json":
        raise ValueError(
            f"{kind} {shown(str(spec))} is neither shipped ({', '.join(shipped)}) nor a file of a kind that "
            "can be read by its ending; strings of your own go in as a list"
        )
    try:
        return json.loads(_read_file(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{shown(str(path))} cannot be read as {kind}: {error}") from error


def trimmed(name: str) -> str:
    """A name without the white space and the signs of no width around it; '' if nothing of it can be seen."""
    seen = _UNSEEN.sub("", name)
    if all(unicodedata.category(sign) in ("Cc", "Cf", "Zs", "Zl", "Zp") for sign in seen):
        return ""
    return _ENDS.sub("", name)


def same_name(name: str) -> str:
    """What the tokenizers take for the same name: they take no notice of case and of the width of white space.

    Example:
        >>> same_name("Dining  Table")
        'dining table'
    """
    return " ".join(name.lower().split())


def _read_rows(spec: Any) -> tuple[str, Any]:
    """Where the rows come from, for messages, and the rows, unchecked."""
    if not isinstance(spec, (str, Path)):
        return "list", spec
    if Path(spec).suffix.lower() != ".txt":
        rows = read_json_list(spec, _VOCABULARIES, "vocabulary")
        shipped = str(spec) in shipped_vocabularies() and isinstance(rows, Mapping)
        return str(spec), _derived(rows) if shipped else rows
    lines = _read_file(Path(spec)).rstrip().split("\n")
    return str(spec), [line.strip().removesuffix(",").split(",") for line in lines]


def _derived(entry: Mapping[str, Any]) -> list[Any]:
    """The rows of a shipped vocabulary that says what it has otherwise than another one.

    Args:
        entry: `of`: the other one; `names`: per class of the data set the names that it has instead, or the vocabulary
            of which these are.
    """
    _, rows = _read_rows(entry["of"])
    changes = entry["names"]
    if isinstance(changes, str):
        changes = read_json_list(changes, _VOCABULARIES, "vocabulary")["names"]
    about = _benchmark(entry["of"])
    classes = dataset_facts()[about["dataset"]]["classes"] if about is not None else ()
    rows = list(rows)
    for name, names in changes.items():
        rows[classes.index(name)] = names
    return rows


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} not found") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{shown(str(path))} cannot be read as UTF-8 text: {error}") from error


def _checked_rows(source: str, rows: Any) -> tuple[tuple[str, ...], ...]:
    if not isinstance(rows, (list, tuple)) or not rows:
        raise ValueError(
            f"vocabulary '{source}' must be a non-empty list with a name or a list of names per class, "
            f"got {shown(rows)}"
        )
    return tuple(_checked_row(source, index, row) for index, row in enumerate(rows))


def _checked_row(source: str, index: int, row: Any) -> tuple[str, ...]:
    names = [row] if isinstance(row, str) else row
    if not isinstance(names, (list, tuple)) or not names:
        raise ValueError(
            f"vocabulary '{source}', class {index}: expected a name or a non-empty list of names, got {shown(row)}"
        )
    for name in names:
        if not isinstance(name, str) or not trimmed(name) or not encodable(name):
            raise ValueError(
                f"vocabulary '{source}', class {index}: {shown(name)} is not a name; names are non-empty strings of "
                "signs that can be seen"
            )
    return tuple(trimmed(name) for name in names)


def _background_of(source: str, classes: Sequence[str]) -> int | None:
    """The class that is called 'background'; ValueError if there are two, to the eye."""
    found = [index for index, name in enumerate(classes) if same_name(_WITHIN.sub("", name)) == BACKGROUND]
    if len(found) > 1:
        raise ValueError(
            f"vocabulary '{source}': classes {', '.join(map(str, found))} are called 'background', and there is "
            "one background: put their names into one class, or name the others for what they show"
        )
    return found[0] if found else None


def encodable(name: str) -> bool:
    """Whether the text is sound Unicode: half a surrogate pair is not, and no tokenizer takes it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _warn_about_repeats(source: str, names: tuple[tuple[str, ...], ...]) -> None:
    """Log names that stand twice."""
    places: dict[str, list[int]] = {}
    for index, row in enumerate(names):
        for name in row:
            places.setdefault(same_name(name), []).append(index)
    for name, classes in places.items():
        if len(classes) > 1:
            LOG.warning(
                f"Vocabulary '{source}': '{name}' stands in classes {', '.join(map(str, classes))}. "
                "Identical queries tie and the first wins, so the later ones never do."
            )


def _warn_about_hidden_signs(source: str, names: tuple[tuple[str, ...], ...]) -> None:
    """Log names that a tokenizer reads otherwise than a person, who does not see some of their signs."""
    hidden = [ascii(name) for row in names for name in row if _WITHIN.search(name)]
    if hidden:
        LOG.warning(
            f"Vocabulary '{source}': {', '.join(hidden[:3])}{', ...' if len(hidden) > 3 else ''} hold signs that show "
            "nothing, and the tokenizer reads them: take them out."
        )


def _warn_about_bars(source: str, names: tuple[tuple[str, ...], ...]) -> None:
    """Log names with a bar, which parts aliases on command lines, and is a character like others in a .txt file."""
    barred = [name for row in names for name in row if "|" in name]
    if barred:
        LOG.warning(
            f"Vocabulary '{source}': {shown(barred[0])} is one name. In .txt files commas part the names of a class, "
            "| does not."
        )


def _benchmark(spec: Any) -> Mapping[str, Any] | None:
    """The data set of a shipped vocabulary, which begins with the benchmark's name: 'voc21', 'voc21_clean'."""
    if not isinstance(spec, (str, Path)) or str(spec) not in shipped_vocabularies():
        return None
    return next((about for name, about in _benchmarks().items() if f"{spec}_".startswith(f"{name}_")), None)


@functools.cache
def _benchmarks() -> dict[str, dict[str, Any]]:
    return json.loads((_VOCABULARIES / "_benchmarks.json").read_text(encoding="utf-8"))


@functools.cache
def dataset_facts() -> dict[str, dict[str, Any]]:
    """Class names (a tuple) and colours (0..255) of the benchmarks' data sets, by the name of their dataset class."""
    facts = json.loads((DATA / "datasets.json").read_text(encoding="utf-8"))
    return {name: {**entry, "classes": tuple(entry["classes"])} for name, entry in facts.items()}
