import numpy as np

from jfusion.data import notes
from jfusion.data.sequence import SequenceInput
from jfusion.data.split import prepare_split
from jfusion.data.text import TextInput, Vocabulary
from tests.data.rows import Rows

WORDS = "a b c d e f g h i j"


def readers(windows=1):
    vocabulary = Vocabulary.fit([WORDS], 20)
    scale = {"mean": [0, 0], "std": [1, 1]}
    return {
        "words": TextInput("words", vocabulary, max_tokens=4, windows=windows),
        "audio": SequenceInput("audio", pick=[0, 1], total=2, steps=3, **scale),
    }


def lines(rows, tmp_path, windows=1, **options):
    inputs = readers(windows)
    split = prepare_split(Rows(rows), inputs, cache_dir=tmp_path, **options)
    return notes.lines(split, inputs)


def test_nothing_is_said_of_what_is_whole(tmp_path):
    rows = [{"words": "a b", "audio": np.ones((2, 2))}, {"words": None, "audio": np.ones((9, 2))}]
    assert lines(rows, tmp_path) == []
    assert lines([{"words": "a", "audio": None}], tmp_path) == []


def test_cut_texts_and_masked_values_are_told(tmp_path):
    holes = np.array([[1, np.inf], [-np.inf, 1], [np.nan, 1], [1, 1]])
    rows = [
        {"words": WORDS, "audio": np.ones((4, 2))},
        {"words": "a b c d", "audio": holes},
        {"words": "a", "audio": None},
        {"words": None, "audio": np.ones((4, 2))},
    ]
    assert lines(rows, tmp_path) == [
        "words: 2 of 3 rows cut to 4 tokens (35 % of their text used)",
        "audio: 2 infinite values masked in 1 rows; 88 % of the values known",
    ]
    assert lines(rows, tmp_path, windows=2) == [
        "words: 1 of 3 rows cut to 2 windows of 4 tokens (40 % of their text used)",
        "audio: 2 infinite values masked in 1 rows; 88 % of the values known",
    ]


def test_rows_that_do_not_take_part_are_not_counted(tmp_path):
    rows = [{"words": WORDS, "audio": "no.npy"}, {"words": WORDS, "audio": np.ones((4, 2))}]
    assert lines(rows, tmp_path, on_error="skip") == [
        "words: 1 of 1 rows cut to 4 tokens (20 % of their text used)"
    ]
