import itertools
import os

import pytest

from jfusion.config import Data
from jfusion.data import table
from jfusion.data.problems import DataError
from jfusion.data.source import Source


def write(tmp_path, lines, name="movies.csv"):
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n")
    return path


def ids(source):
    return [row["id"] for row in source]


def numbered(count, extra=""):
    return [f"{i}{extra}" for i in range(count)]


def test_a_table_is_a_source(tmp_path):
    path = write(tmp_path, ["id,plot", "0012,a", "0013,"])
    source = table.read(path)
    assert isinstance(source, Source)
    assert len(source) == 2
    assert source[0] == {"id": "0012", "plot": "a"}
    assert source.name == str(path)
    assert source.root == tmp_path
    assert source.locate(1) == f"{path} row 2"
    assert table.read(path, id_column="id").locate(0) == f"{path} row 1 (id 0012)"


def test_no_rows_and_wrong_columns_are_errors(tmp_path):
    with pytest.raises(DataError, match="has no rows"):
        table.read(write(tmp_path, ["id,plot"]))
    with pytest.raises(DataError, match="has no rows"):
        table.read(write(tmp_path, [""]))
    path = write(tmp_path, ["id,poster", "1,a"])
    with pytest.raises(DataError, match="no column 'postre'; near it: 'poster'"):
        table.read(path, pictures=["postre"])
    with pytest.raises(DataError, match="no column 'key'; there are: 'id', 'poster'"):
        table.read(path, id_column="key")


def test_repeated_and_empty_ids_are_bad_rows(tmp_path):
    path = write(tmp_path, ["id,plot", "7,a", ",b", "7,c", "8,d"])
    source = table.read(path, id_column="id")
    assert source.bad_rows == {
        1: ("id", "id is empty"),
        2: ("id", f"id '7' is already that of {path} row 1"),
    }


def test_an_id_of_one_file_is_not_free_in_another(tmp_path):
    train = write(tmp_path, ["id", "1", "2", "3", "4"], "train.csv")
    test = write(tmp_path, ["id", "9", "2"], "test.csv")
    val = write(tmp_path, ["id", "5"], "val.csv")
    data = Data(path=str(train), val_path=str(val), test_path=str(test), id_column="id")
    found = table.splits(data)
    assert not found["train"].whole.bad_rows
    assert found["test"].bad_rows == {1: ("id", f"id '2' is already that of {train} row 2")}


def test_the_fingerprint_follows_content_and_pictures(tmp_path):
    (tmp_path / "a.png").write_bytes(b"1")
    path = write(tmp_path, ["id,poster", "1,a.png", "2,b.png", "3,"])

    def fingerprint(**options):
        return table.read(path, pictures=["poster"], **options).fingerprint

    first = fingerprint()
    assert fingerprint() == first
    (tmp_path / "a.png").write_bytes(b"12")
    second = fingerprint()
    os.utime(tmp_path / "a.png", ns=(0, 0))
    third = fingerprint()
    (tmp_path / "a.png").chmod(0o400)
    fourth = fingerprint()
    (tmp_path / "b.png").write_bytes(b"1")
    fifth = fingerprint()
    write(tmp_path, ["id,poster", "1,a.png", "2,b.png", "4,"])
    sixth = fingerprint()
    (tmp_path / "other").mkdir()
    seventh = fingerprint(root=tmp_path / "other")
    assert len({first, second, third, fourth, fifth, sixth, seventh}) == 7


def test_splits_of_one_file_know_the_whole(tmp_path):
    path = write(tmp_path, ["id,split", "1,val", "2,train", "3,test", "4,train"])
    train = table.splits(Data(path=str(path), split_column="split"))["train"]
    assert isinstance(train, Source)
    assert train.rows.tolist() == [1, 3]
    assert train.whole.fingerprint == table.read(path).fingerprint != train.fingerprint
    assert train.name == str(path) and train.root == tmp_path


@pytest.mark.parametrize("word", ["val", "dev", "valid", " Validation "])
def test_splits_by_column(tmp_path, word):
    path = write(tmp_path, ["id,split", "1,train", f"2,{word}", "3,test", "4,Train"])
    found = table.splits(Data(path=str(path), split_column="split"))
    assert {name: ids(source) for name, source in found.items()} == {
        "train": ["1", "4"],
        "val": ["2"],
        "test": ["3"],
    }
    assert found["train"].locate(1) == f"{path} row 4"
    assert len({source.fingerprint for source in found.values()}) == 3


def test_split_column_mistakes_are_errors(tmp_path):
    path = write(tmp_path, ["id,split", "1,train", "2,hold-out", "3,"])
    with pytest.raises(DataError) as caught:
        table.splits(Data(path=str(path), split_column="split"))
    assert [problem.row for problem in caught.value.problems] == ["row 2", "row 3"]
    with pytest.raises(DataError, match="no column 'splits'; near it: 'split'"):
        table.splits(Data(path=str(path), split_column="splits"))
    path = write(tmp_path, ["id,split", "1,train", "2,test"])
    with pytest.raises(DataError, match=r"no row whose 'split' is val or dev.*data\.val_path"):
        table.splits(Data(path=str(path), split_column="split"))


def test_random_splits_follow_the_seed_and_share_no_row(tmp_path):
    data = Data(path=str(write(tmp_path, ["id", *numbered(40)])), val_fraction=0.25)
    first, again, other = (table.splits(data, seed=seed) for seed in (1, 1, 2))
    parts = {name: ids(source) for name, source in first.items()}
    assert {name: len(part) for name, part in parts.items()} == {"train": 24, "val": 10, "test": 6}
    assert sorted(itertools.chain(*parts.values()), key=int) == numbered(40)
    assert parts == {name: ids(source) for name, source in again.items()}
    assert parts["val"] != ids(other["val"])
    with pytest.raises(DataError, match="2 rows, too few"):
        table.splits(Data(path=str(write(tmp_path, ["id", "1", "2"]))))


def test_random_splits_keep_groups_together(tmp_path):
    people = [str(row % 11) for row in range(60)]
    lines = [f"{row},p{who}" for row, who in enumerate(people)]
    path = write(tmp_path, ["id,who", *lines])
    options = {"path": str(path), "group_column": "who", "cache_dir": str(tmp_path / "cache")}
    drawn = []
    for seed in (0, 0, 1, 2):
        found = table.splits(Data(**options), seed=seed)
        who = {name: {row["who"] for row in source} for name, source in found.items()}
        assert sum(map(len, who.values())) == 11 == len(set.union(*who.values()))
        assert sorted(int(row) for source in found.values() for row in ids(source)) == [*range(60)]
        assert 9 <= len(found["val"]) <= 14 and 9 <= len(found["test"]) <= 14
        drawn.append({name: sorted(names) for name, names in who.items()})
    assert drawn[0] == drawn[1] and drawn[0] != drawn[2] != drawn[3]
    path = write(tmp_path, ["id,who", *(f"{row},p{row % 2}" for row in range(40))])
    with pytest.raises(DataError, match="2 groups, too few to split at random"):
        table.splits(Data(**options | {"path": str(path)}))
    with pytest.raises(DataError, match="no column 'whom'; near it: 'who'"):
        table.splits(Data(**options | {"group_column": "whom"}))


def test_separate_files_are_splits_of_their_own(tmp_path):
    train = write(tmp_path, ["id", *numbered(20)], "train.csv")
    val = write(tmp_path, ["id", *numbered(3, "v")], "val.csv")
    test = write(tmp_path, ["id", *numbered(2, "t")], "test.csv")
    both = table.splits(Data(path=str(train), val_path=str(val), test_path=str(test)))
    assert [len(both[name]) for name in ("train", "val", "test")] == [20, 3, 2]
    assert both["val"].locate(0) == f"{val} row 1"
    drawn = table.splits(Data(path=str(train), val_path=str(val), test_fraction=0.2))
    assert [len(drawn[name]) for name in ("train", "val", "test")] == [16, 3, 4]


def test_a_split_given_twice_is_an_error(tmp_path):
    path = write(tmp_path, ["id,split", "1,train", "2,val", "3,test"])
    val = write(tmp_path, ["id", "4"], "val.csv")
    with pytest.raises(DataError, match=r"'split' is val, and data\.val_path gives"):
        table.splits(Data(path=str(path), split_column="split", val_path=str(val)))
