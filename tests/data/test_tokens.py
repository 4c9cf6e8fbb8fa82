import json

import numpy as np
import pytest

from jfusion import config as schema
from jfusion.data import dataset, notes
from jfusion.data.split import prepare_split
from jfusion.data.tokens import TokenInput
from tests.data.rows import column


def reader(vocabulary=900, max_tokens=4, windows=1):
    return TokenInput("tokens", vocabulary, max_tokens=max_tokens, windows=windows)


@pytest.mark.parametrize(
    "cell",
    [
        [15, 847, 23],
        "[15, 847, 23]",
        (15, 847, 23, 0, 0),
        np.array([15, 847, 23]),
        " [0,15,847,23]",
    ],
    ids=str,
)
def test_a_list_is_taken_as_it_is_without_its_padding(cell):
    cells = reader().encode([cell])
    assert cells.arrays["ids"].tolist() == [[15, 847, 23, 0]]
    assert cells.arrays["length"].tolist() == [3]
    assert cells.arrays["ids"].dtype == cells.arrays["length"].dtype == np.int32
    assert not cells.bad and cells.notes["used"].tolist() == [1]


def test_a_long_list_is_cut_at_its_end_and_told():
    cells = reader().encode([list(range(1, 11)), [900] * 4, [], [0, 0]])
    assert cells.arrays["ids"].tolist() == [[1, 2, 3, 4], [900] * 4, [0] * 4, [0] * 4]
    assert cells.arrays["length"].tolist() == [4, 4, 0, 0]
    np.testing.assert_allclose(cells.notes["used"], [0.4, 1, 1, 1])


def test_windows_are_spread_over_the_whole_list():
    made = reader(max_tokens=2, windows=2)
    cells = made.encode([[1, 2, 3, 4, 5], [6]])
    assert cells.arrays["ids"].tolist() == [[[1, 2], [5, 0]], [[6, 0], [0, 0]]]
    assert cells.arrays["length"].tolist() == [[2, 1], [1, 0]]
    assert {k: a.shape[1:] for k, a in cells.arrays.items()} == {
        k: shape for k, (shape, _) in made.arrays.items()
    }


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("a red lamp", "not a list of token numbers: 'a red lamp'"),
        ("[1, 2", "not a list of token numbers: '[1, 2'"),
        ("['a', 'b']", "not a list of token numbers: "),
        ("[" * 100_000, "not a list of token numbers: "),
        ("7", "not a list of token numbers but int: 7"),
        ({"a": 1}, "not a list of token numbers but dict: "),
        ([1, 901], "token 901 is not in the vocabulary, 1 to 900 and 0 for padding; set the input"),
        ([-1], "token -1 is not in the vocabulary"),
        (["lamp"], "'lamp' is no token number"),
        ([1.0], "1.0 is no token number"),
        ([True], "True is no token number"),
        ([[1]], "[1] is no token number"),
        ("__import__('os').abort()", "not a list of token numbers: "),
    ],
    ids=lambda x: str(x)[:20],
)
def test_bad_cells_say_why_and_leave_their_neighbours_alone(cell, reason):
    cells = reader().encode([[1], cell, [2]])
    assert list(cells.bad) == [1] and cells.bad[1].startswith(reason)
    assert cells.arrays["length"].tolist() == [1, 0, 1]
    assert not cells.arrays["ids"][1].any()


def test_it_comes_back_from_its_spec(tmp_path):
    made = reader(windows=2)
    made.save(tmp_path, "title")
    again = dataset.input_from_spec(json.loads(json.dumps(made.spec())), tmp_path, "title")
    assert isinstance(again, TokenInput) and again.spec() == made.spec()
    assert again.vocab_size == made.vocab_size == 901
    assert made.spec() != reader().spec() != reader(vocabulary=901).spec()


def test_a_run_says_how_many_lists_were_cut():
    source = column("tokens", [[1], [1] * 8, None, "[2, 3]"])
    split = prepare_split(source, {"title": reader()}, on_error="missing", progress=False)
    assert split.present["title"].tolist() == [True, True, False, True]
    assert notes.lines(split, {"title": reader()}) == [
        "title: 1 of 3 rows cut to 4 tokens (50 % of their text used)"
    ]


def an_experiment(folder, cells, **text):
    lines = [json.dumps({"title": cell, "kind": "ab"[i % 2]}) for i, cell in enumerate(cells)]
    (folder / "table.jsonl").write_text("\n".join(lines), encoding="utf-8")
    part = schema.Text(schema.Encoder("text_cnn"), "title", max_tokens=6, **text)
    return schema.Config(
        inputs={"title": part},
        targets={"kind": schema.Classes("kind")},
        train=schema.Train(phases=(schema.Phase(1),)),
        data=schema.Data(path=str(folder / "table.jsonl")),
    )


def test_a_config_chooses_ready_tokens(tmp_path):
    made = dataset.load(an_experiment(tmp_path, [[1, 2]] * 12, ids=True, vocabulary=50), {})
    assert isinstance(made.inputs["title"], TokenInput) and made.inputs["title"].vocab_size == 51
    with pytest.raises(schema.RangeError, match="tokenizer: expected none with ids, got 'x'"):
        an_experiment(tmp_path, [[1]], ids=True, tokenizer="x")


def test_a_text_cnn_gets_the_commonest_words_alone(tmp_path):
    titles = ["red lamp, red", "red [lamp]!", "red"] * 8
    made = dataset.load(an_experiment(tmp_path, titles, vocabulary=10), {}).inputs["title"]
    assert made.vocab_size == 3
    cells = made.encode(["a lamp. A RED lamp?"])
    assert cells.arrays["ids"].tolist() == [[2, 1, 2, 0, 0, 0]]
