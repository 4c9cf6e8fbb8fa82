import subprocess
import sys

import pytest

from jfusion.data.builders import mm_imdb
from tests.standins import daic_woz as interviews
from tests.standins import mm_imdb as standin


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
    rows = {
        " ".join(line.split()[:-4]): line.split()[-4:] for line in table if len(line.split()) > 4
    }
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
    rows = {
        " ".join(line.split()[:-4]): line.split()[-4:] for line in table if len(line.split()) > 4
    }
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


@pytest.mark.parametrize(
    ("dataset", "arguments", "message"),
    [
        ("mm_imdb", ["--source", "nowhere"], "error: nowhere: no such folder"),
        ("mm_imdb", [], "error: --source: say where mm_imdb lies"),
        ("daic_woz", ["--source", "nowhere"], "error: nowhere: no such folder"),
        ("daic_woz", [], "error: --source: say where daic_woz lies"),
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
    for flag in ("--dataset", "--source", "--data_dir"):
        assert flag in result.stdout
