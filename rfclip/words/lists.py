"""Other lists of names for the classes of a vocabulary: plain words, other aliases, words that are not there."""

from __future__ import annotations

from dataclasses import replace

from rfclip.words.vocabulary import Vocabulary, load_vocabulary


def plain_vocabulary(vocabulary: Vocabulary) -> Vocabulary:
    """The data set's own class names, read as plain words, and no aliases.

    Example:
        >>> plain_vocabulary(load_vocabulary("ade20k")).names[-1]
        ('flag',)
    """
    words = [" ".join(name.replace("_", " ").split()) for name in vocabulary.classes]
    return replace(vocabulary, names=load_vocabulary(words).names)
