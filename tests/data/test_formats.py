import json

import pyarrow
import pyarrow.parquet
import pytest

from jfusion.data import formats
from jfusion.data.problems import DataError


def read(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return formats.read(path)


def test_csv_keeps_text_as_it_is(tmp_path):
    content = '\ufeffid,plot,note\r\n0012345,"She said ""no"",\nthen\r\nleft",NA\r\n1e3,nan,\r\n'
    assert read(tmp_path, "a.csv", content) == {
        "id": ["0012345", "1e3"],
        "plot": ['She said "no",\nthen\r\nleft', "nan"],
        "note": ["NA", ""],
    }


def test_csv_skips_blank_lines_and_takes_long_cells(tmp_path):
    long = "x" * 500_000
    assert read(tmp_path, "a.csv", f"plot\n\n{long}\n\nb\n") == {"plot": [long, "b"]}


def test_tsv_splits_at_tabs_only(tmp_path):
    table = read(tmp_path, "a.TSV", 'plot\tgenres\nshe, "he"\ta|b\n')
    assert table == {"plot": ['she, "he"'], "genres": ["a|b"]}


def test_ragged_rows_are_all_named(tmp_path):
    with pytest.raises(DataError) as caught:
        read(tmp_path, "a.csv", 'id,plot\n1,"a\nb"\n2,b,c\n3,d\n4\n')
    assert [problem.row for problem in caught.value.problems] == ["row 2", "row 4"]
    assert "3 cells where the header has 2: ['2', 'b', 'c']" in str(caught.value)
    assert "quote cells that hold the delimiter ','" in str(caught.value)


def test_an_open_quote_is_an_error_and_does_not_swallow_rows(tmp_path):
    with pytest.raises(DataError, match=r"a\.csv, after data row 1 .*a quote is not closed"):
        read(tmp_path, "a.csv", 'id,plot\n1,a\n2,"b\n3,c\n')
    with pytest.raises(DataError, match="after data row 0"):
        read(tmp_path, "b.csv", 'id,plot\n1,"a" b\n')


def test_another_encoding_is_told_with_its_line(tmp_path):
    with pytest.raises(DataError, match="not UTF-8: byte 0xe9 in line 3"):
        read(tmp_path, "a.csv", "id,plot\n1,a\n2,caf\xe9\n".encode("latin-1"))


def test_repeated_column_names_are_refused(tmp_path):
    with pytest.raises(DataError, match="several columns named 'plot'"):
        read(tmp_path, "a.csv", "plot,id,plot\na,b,c\n")


def test_jsonl_keeps_types_and_fills_absent_keys(tmp_path):
    lines = [{"plot": "2020-01-01 00:00:00", "genres": ["a", "b"]}, {"id": 7, "plot": None}]
    content = "\n".join(json.dumps(line) for line in lines) + "\r\n\n"
    assert read(tmp_path, "a.jsonl", content) == {
        "plot": ["2020-01-01 00:00:00", None],
        "genres": [["a", "b"], None],
        "id": [None, 7],
    }


def test_bad_json_lines_are_all_named(tmp_path):
    with pytest.raises(DataError) as caught:
        read(tmp_path, "a.jsonl", '{"plot": "a"}\n{"plot": \n[1]\n')
    assert [problem.row for problem in caught.value.problems] == ["row 2", "row 3"]
    assert "not a JSON object" in str(caught.value)


def test_parquet_has_lists_and_bytes(tmp_path):
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"poster": [b"\x00\x01", None], "genres": [["a"], []]})
    pyarrow.parquet.write_table(table, path)
    columns = formats.read(path)
    assert columns["poster"][0].as_py() == b"\x00\x01"
    assert columns["genres"][1].as_py() == []
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read(tmp_path, "b.parquet", "id,plot\n")


def test_wrong_paths_name_the_nearest(tmp_path):
    (tmp_path / "movies.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match=r"no table file .*near it: 'movies\.csv'"):
        formats.read(tmp_path / "movie.csv")
    (tmp_path / "movies.xlsx").write_text("")
    with pytest.raises(DataError, match=r"cannot tell the format from '\.xlsx'.*\.parquet"):
        formats.read(tmp_path / "movies.xlsx")
