import json
import subprocess
import sys

import pytest

from jfusion.data.builders import mm_imdb
from tests.standins import daic_woz as interviews
from tests.standins import mm_imdb as standin
from tests.standins import rakuten as products
from tests.standins.tables import poster


def numbers(lines):
    """The rows of the printed tables: name -> cells."""
    rows = (line.split() for line in lines)
    return {" ".join(row[:-4]): row[-4:] for row in rows if len(row) > 4}


def prepare(*arguments):
    command = [sys.executable, "-W", "error", "-m", "jfusion.prepare", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_builds_once_and_describes_what_is_there(tmp_path):
    standin.write(tmp_path / "mmimdb")
    where = ("--data_dir", tmp_path / "tfds")
    first = prepare("--dataset", "mm_imdb", "--source", tmp_path / "mmimdb", *where)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""  # no bars and no log lines where there is no terminal
    told, *table = first.stdout.splitlines()
    assert told == f"mm_imdb is built: {tmp_path}/tfds/mm_imdb/1.0.0"
    rows = numbers(table)
    assert rows["movies"] == ["36", "6", "18", "60"]
    assert rows["without label"][-1] == "2"
    assert list(rows).index("Drama") < list(rows).index("Film-Noir")
    assert rows["News"][-1] == "2"
    assert table[-1] == (
        "next:  python -m jfusion.main --config configs/genre_fusion.py:mm_imdb "
        f"--config.data.path={tmp_path}/tfds"
    )

    again = prepare("--dataset", "mm_imdb", *where)
    assert again.returncode == 0, again.stderr
    told_again, *table_again = again.stdout.splitlines()
    assert told_again == f"mm_imdb was built before: {tmp_path}/tfds/mm_imdb/1.0.0"
    assert table_again == table
    assert len(mm_imdb.sources(tmp_path / "tfds")["train"]) == 36


def test_interviews_are_counted_and_what_is_odd_is_named(tmp_path):
    interviews.write(tmp_path / "corpus", {"train": 11, "dev": 2, "test": 1}, seconds=12)
    where = ("--data_dir", tmp_path / "tfds")
    first = prepare("--dataset", "daic_woz", "--source", tmp_path / "corpus", *where)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    told, *table = first.stdout.splitlines()
    assert told == f"daic_woz is built: {tmp_path}/tfds/daic_woz/1.0.0"
    rows = numbers(table)
    assert rows["sessions"] == ["9", "2", "1", "12"]
    assert rows["without video"] == ["1", "0", "0", "1"]
    assert rows["without score"] == ["0", "0", "1", "1"]
    assert rows["infinite numbers in audio"] == ["0", "7", "0", "7"]
    assert table[-4:] == [
        "listed, but not there: 308, 309",
        "class is not that of the score: 409",
        "",
        "next:  python -m jfusion.main --config configs/phq8_attention.py:daic_woz "
        f"--config.data.path={tmp_path}/tfds",
    ]


def test_products_are_built_and_audited(tmp_path):
    odd = products.write(tmp_path / "rakuten", codes=3)
    where = ("--data_dir", tmp_path / "tfds")
    first = prepare("--dataset", "rakuten", "--source", tmp_path / "rakuten", *where, "--audit")
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    told, *lines = first.stdout.splitlines()
    folder = tmp_path / "tfds" / "rakuten" / "1.0.0"
    assert told == f"rakuten is built: {folder}"
    rows = numbers(lines)
    assert rows["products"][-1] == rows["rows"][-1] == "60"
    assert rows["broken picture"][-1] == "2" and rows["40"][-1] == "20" and rows["60"][-1] == "0"
    assert f"missing picture: {odd['no_picture']}" in lines
    assert "designation, same text: 0 groups span splits" in lines
    assert "image, same pixels: 0 groups span splits" in lines
    report = json.loads((folder / "audit.json").read_text())
    assert sum(report["splits"].values()) == 60
    assert lines[-3:] == [
        f"audit: {folder}/audit.json",
        "",
        "next:  python -m jfusion.main --config configs/product_fusion.py:rakuten "
        f"--config.data.path={tmp_path}/tfds",
    ]

    # What was built is audited just so, here in another column.
    options = ("--audit", "--text_column", "code", "--report", tmp_path / "codes.json")
    again = prepare("--dataset", "rakuten", *where, *options)
    assert again.returncode == 0, again.stderr
    alike_in_train = numbers(again.stdout.splitlines())["code: same text"]
    assert alike_in_train == ["0", *rows["products"][1:3], "18"]
    (finding,) = json.loads((tmp_path / "codes.json").read_text())["findings"]
    assert (finding["column"], finding["groups"]) == ("code", 3)


def test_any_table_can_be_audited(tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text(
        "title,picture,split\nÉtui [noir],a.png,train\nLampe,a.png,train\netui noir,b.png,test\n"
        "Vase,,val\nBol,broken.png,dev\n"
    )
    (tmp_path / "a.png").write_bytes(poster())
    (tmp_path / "b.png").write_bytes(poster(kind="BMP"))
    (tmp_path / "broken.png").write_bytes(b"")
    columns = ("--text_column", "title", "--image_column", "picture", "--split_column", "split")
    result = prepare("--dataset", "table", "--source", table, *columns, "--audit")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    rows = numbers(lines)
    assert rows["rows"] == ["2", "2", "1", "5"]
    assert rows["title: same text"] == ["0", "0", "1", "1"]  # in train, which is told last
    assert rows["picture: unreadable"] == ["0", "1", "0", "1"]
    assert f"  train: {table} row 1 = test: {table} row 3" in lines
    assert lines[-1] == f"audit: {tmp_path}/mine.audit.json"
    findings = json.loads((tmp_path / "mine.audit.json").read_text())["findings"]
    assert [finding["rows"] for finding in findings[:2]] == [
        {"train": 1, "val": 0, "test": 1},
        {"train": 2, "val": 0, "test": 1},
    ]


def test_tables_of_several_files_can_be_audited(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(poster())
    paths = {name: tmp_path / f"{name}.csv" for name in ("train", "val", "test")}
    for path, picture in zip(paths.values(), ("a.png", "a.png", ""), strict=True):
        path.write_text(f"title,picture\n{path.stem},{picture}\n")
    options = ("--val_path", paths["val"], "--test_path", paths["test"])
    options += ("--image_column", "picture", "--root", tmp_path / "pictures", "--audit")
    result = prepare("--dataset", "table", "--source", paths["train"], *options)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert numbers(lines)["picture: same pixels"] == ["0", "1", "0", "1"]
    assert f"  train: {paths['train']} row 1 = val: {paths['val']} row 1" in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table"], "error: --dataset: a table needs no building; give --audit"),
        (["table", "--audit"], "error: --source: say which table"),
        (["table", "--audit", "--source", "t.csv"], "error: --text_column, --image_column: say"),
        (["table", "--audit", "--source", "t.csv", "--text_column", "a"], "error: no table file"),
        (["rakuten", "--split_column", "a"], "error: --split_column: rakuten has splits"),
        (["mm_imdb", "--val_path", "a.csv"], "error: --val_path: mm_imdb has splits"),
    ],
)
def test_an_audit_that_cannot_be_is_told_in_one_line(arguments, message):
    result = prepare("--dataset", *arguments)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith(message) and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("dataset", "arguments", "message"),
    [
        ("mm_imdb", ["--source", "nowhere"], "error: nowhere: no such folder"),
        ("mm_imdb", [], "error: --source: say where mm_imdb lies"),
        ("daic_woz", ["--source", "nowhere"], "error: nowhere: no such folder"),
        ("daic_woz", [], "error: --source: say where daic_woz lies"),
        ("rakuten", ["--source", "nowhere"], "error: nowhere: no such folder"),
    ],
)
def test_a_wrong_source_gives_one_line(tmp_path, dataset, arguments, message):
    result = prepare("--dataset", dataset, "--data_dir", tmp_path, *arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_an_unknown_data_set_gives_the_known_ones():
    result = prepare("--dataset", "imdb")
    assert result.returncode == 2
    assert "mm_imdb" in result.stderr


def test_help_lists_every_flag():
    result = prepare("--help")
    for flag in ("dataset", "source", "data_dir", "text_column", "image_column", "report"):
        assert f"--{flag}" in result.stdout
    assert "--[no]audit" in result.stdout
