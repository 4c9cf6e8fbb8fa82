import subprocess
import sys

import pytest

from jfusion.data.builders import mm_imdb
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source", "nowhere"], "error: nowhere: no such folder"),
        ([], "error: --source: say where mm_imdb lies"),
    ],
)
def test_a_wrong_source_gives_one_line(tmp_path, arguments, message):
    result = prepare("--dataset", "mm_imdb", "--data_dir", tmp_path, *arguments)
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
