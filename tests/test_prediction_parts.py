import json

import pytest

from jfusion.errors import UserError
from jfusion.prediction_parts import Part, folder_of, plan

WHAT = {"input": "ab", "model": "cd"}


def test_every_row_is_in_one_part(tmp_path):
    parts = plan(tmp_path / "out.jsonl", WHAT, 7, 3)
    assert parts == [
        Part("part-00000.jsonl", 0, 2),
        Part("part-00001.jsonl", 2, 4),
        Part("part-00002.jsonl", 4, 7),
    ]
    manifest = json.loads((folder_of(tmp_path / "out.jsonl") / "manifest.json").read_text())
    assert manifest == WHAT | {"rows": 7, "parts": [part._asdict() for part in parts]}


def test_no_part_is_empty(tmp_path):
    assert [part[1:] for part in plan(tmp_path / "out.csv", WHAT, 2, 4)] == [(0, 1), (1, 2)]


def test_what_was_begun_keeps_its_parts(tmp_path):
    parts = plan(tmp_path / "out.csv", WHAT, 7, 3)
    assert plan(tmp_path / "out.csv", WHAT, 7, 2) == parts


@pytest.mark.parametrize(("what", "rows"), [({**WHAT, "model": "other"}, 7), (WHAT, 8)])
def test_another_prediction_is_refused(tmp_path, what, rows):
    plan(tmp_path / "out.csv", WHAT, 7, 3)
    with pytest.raises(UserError, match=r"out.csv.parts holds the parts of another prediction"):
        plan(tmp_path / "out.csv", what, rows, 3)


def test_a_damaged_manifest_is_an_error_that_names_it(tmp_path):
    plan(tmp_path / "out.csv", WHAT, 7, 3)
    (folder_of(tmp_path / "out.csv") / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest.json: "):
        plan(tmp_path / "out.csv", WHAT, 7, 3)
