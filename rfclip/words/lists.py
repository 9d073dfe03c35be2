"""Other lists of names for the classes of a vocabulary: plain words, other aliases, and words of what is not there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rfclip.words.vocabulary import Vocabulary, distinct_colours, load_vocabulary, same_name

DISTRACTORS = "(distractor words)"  # the class that distractor words are, where there is no background


def plain_vocabulary(vocabulary: Vocabulary) -> Vocabulary:
    """The data set's own class names, read as plain words, and no aliases.

    Example:
        >>> plain_vocabulary(load_vocabulary("ade20k")).names[-1]
        ('flag',)
    """
    words = [" ".join(name.replace("_", " ").split()) for name in vocabulary.classes]
    return replace(vocabulary, names=load_vocabulary(words).names)


def other_aliases(vocabulary: Vocabulary) -> Vocabulary:
    """Each class by its names but the first; a class with one name keeps it.

    Example:
        >>> other_aliases(load_vocabulary([["sky", "cloud", "air"], "grass"])).names
        (('cloud', 'air'), ('grass',))
    """
    return replace(vocabulary, names=tuple(row[1:] or row for row in vocabulary.names))


def distractor_words(known: Iterable[Vocabulary], others: Iterable[Vocabulary], count: int) -> tuple[str, ...]:
    """Names of other vocabularies that none of the known ones has, taken evenly over all of them.

    Args:
        known: The lists of names for what is in the pictures.
        others: Those from which words are taken.
        count: How many at most.

    Example:
        >>> distractor_words([load_vocabulary(["cat"])], [load_vocabulary(["Cat", "sea", "sand"])], 1)
        ('sea',)
    """
    taken = {same_name(name) for vocabulary in known for name in (*vocabulary.queries, *vocabulary.classes)}
    pool = {
        same_name(name): name for vocabulary in others for name in vocabulary.queries if same_name(name) not in taken
    }
    words = list(pool.values())
    count = min(count, len(words))
    return tuple(words[place * len(words) // count] for place in range(count))


def with_distractors(vocabulary: Vocabulary, words: Sequence[str]) -> Vocabulary:
    """Words of what is not there: more names of the background, or, without one, of a further class, the last.

    Example:
        >>> with_distractors(load_vocabulary(["cat", "dog"]), ["sea", "sand"]).names
        (('cat',), ('dog',), ('sea', 'sand'))
    """
    names = list(vocabulary.names)
    if vocabulary.background is not None:
        names[vocabulary.background] += tuple(words)
        return replace(vocabulary, names=tuple(names))
    colours = {*vocabulary.colours}
    free = next(colour for colour in distinct_colours(len(colours) + 1) if colour not in colours)
    return Vocabulary(
        (*names, tuple(words)), (*vocabulary.classes, DISTRACTORS), (*vocabulary.colours, free), vocabulary.background
    )
