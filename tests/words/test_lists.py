"""Other lists of names for the same classes."""

from rfclip.words.lists import DISTRACTORS, distractor_words, other_aliases, plain_vocabulary, with_distractors
from rfclip.words.vocabulary import load_vocabulary


def test_plain_names_are_one_word_list_per_class_of_the_data_set() -> None:
    plain = plain_vocabulary(load_vocabulary("voc21"))
    assert len(plain.names) == 21 and all(len(row) == 1 for row in plain.names)
    assert plain.names[0] == ("background",) and plain.has_background


def test_other_aliases_leave_the_first_name_out_where_there_are_others() -> None:
    shipped = load_vocabulary("voc21")
    other = other_aliases(shipped)
    for row, before in zip(other.names, shipped.names, strict=True):
        assert row == (before[1:] if len(before) > 1 else before)
    assert (other.classes, other.background) == (shipped.classes, shipped.background)


def test_distractor_words_are_in_no_known_list_and_taken_evenly() -> None:
    known = [load_vocabulary([["cat", "kitten"], "dog"])]
    others = [load_vocabulary(["Cat", "a", "b", "c"]), load_vocabulary(["A", "d", "kitten", "e", "f"])]
    assert distractor_words(known, others, 100) == ("A", "b", "c", "d", "e", "f")  # the later spelling of a
    assert distractor_words(known, others, 3) == ("A", "c", "e")
    assert distractor_words(known, others, 0) == distractor_words(known, [], 5) == ()


def test_distractors_join_the_background_or_are_a_further_class() -> None:
    with_background = load_vocabulary(["cat", ["background", "wall"]])
    joined = with_distractors(with_background, ["sea", "sand"])
    assert joined.names == (("cat",), ("background", "wall", "sea", "sand"))
    assert joined.background == 1 and joined.classes == with_background.classes
    further = with_distractors(load_vocabulary("ade20k"), ["sea", "sand"])
    assert len(further.classes) == len(further.colours) == len(further.names) == 151
    assert further.classes[-1] == DISTRACTORS and len(set(further.colours[-1:]) & set(further.colours[:-1])) == 0
