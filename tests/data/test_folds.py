import itertools

import numpy as np
import pytest

from jfusion.data import folds
from jfusion.data.problems import DataError
from jfusion.data.source import Joined, Subset
from jfusion.data.targets import EmbeddingColumn, LabelColumn, NumberColumn
from tests.data.rows import Rows

PHQ8 = NumberColumn("phq8")


def interviews(people=40, most=3, seed=0, **options):
    """Rows of people, up to `most` each, whose score is one of 25."""
    rng = np.random.default_rng(seed)
    rows = [
        {"who": str(who), "phq8": int(rng.integers(25))}
        for who in range(people)
        for _ in range(rng.integers(1, most + 1))
    ]
    return Rows([rows[i] for i in rng.permutation(len(rows))], **options)


def own_splits(source):
    rows = np.arange(len(source))
    return {name: Subset(source, rows[i::3]) for i, name in enumerate(("train", "val", "test"))}


def cells(source, column):
    return [source[row][column] for row in range(len(source))]


def divide(source, k, n, targets=(PHQ8,), group_column="who", **options):
    sources = source if isinstance(source, dict) else own_splits(source)
    return folds.divide(sources, (k, n), targets, group_column=group_column, **options)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_every_row_is_in_the_test_once_and_nobody_is_on_two_sides(tmp_path, n):
    source = interviews()
    made = [divide(source, k, n, cache_dir=tmp_path) for k in range(n)]
    tested = np.concatenate([parts["test"].rows for parts in made])
    assert sorted(tested.tolist()) == list(range(len(source)))
    for k, parts in enumerate(made):
        rows = np.concatenate([part.rows for part in parts.values()])
        assert sorted(rows.tolist()) == list(range(len(source)))
        people = {name: set(cells(part, "who")) for name, part in parts.items()}
        for one, other in itertools.combinations(people.values(), 2):
            assert not one & other
        np.testing.assert_array_equal(parts["val"].rows, made[(k + 1) % n]["test"].rows)
        assert all((np.diff(part.rows) > 0).all() for part in parts.values())


def test_parts_are_of_a_size_and_of_a_make_up(tmp_path):
    source = interviews(people=100, most=1)
    made = [divide(source, k, 5, cache_dir=tmp_path)["test"] for k in range(5)]
    assert {len(part) for part in made} == {20}
    high = [sum(score >= 20 for score in cells(part, "phq8")) for part in made]
    assert max(high) - min(high) <= 1
    big = Rows([{"who": str(max(0, i - 11)), "phq8": i % 25} for i in range(60)])  # 12 of one
    sizes = {len(divide(big, k, 5, cache_dir=tmp_path)["test"]) for k in range(5)}
    assert sizes == {12}
    uneven = interviews(people=60, most=4)
    sizes = [len(divide(uneven, k, 5, cache_dir=tmp_path)["test"]) for k in range(5)]
    assert max(sizes) - min(sizes) <= 1


def test_the_seed_fixes_the_cut(tmp_path):
    source = interviews()
    first, again, other = (
        divide(source, 1, 5, seed=seed, cache_dir=tmp_path)["test"].rows.tolist()
        for seed in (0, 0, 1)
    )
    assert first == again != other
    # The data set's own division does not matter.
    rows = np.arange(len(source))
    swapped = {name: Subset(source, rows[2 - i :: 3]) for i, name in enumerate(("a", "b", "c"))}
    assert divide(swapped, 1, 5, cache_dir=tmp_path)["test"].rows.tolist() == first


def test_rows_without_a_target_are_left_out(tmp_path):
    source = interviews()
    for row in (0, 5, 9):
        source.rows[row]["phq8"] = None
    source.rows[11]["phq8"] = "eleven"  # is bad, not empty
    made = [divide(source, k, 4, cache_dir=tmp_path)["test"].rows for k in range(4)]
    rows = np.concatenate(made).tolist()
    assert sorted(rows) == [row for row in range(len(source)) if row not in (0, 5, 9)]


@pytest.mark.parametrize("targets", [(), (EmbeddingColumn(),), (LabelColumn("phq8", "|", ()),)])
def test_any_target_can_be_cut(tmp_path, targets):
    source = interviews()
    made = [divide(source, k, 4, targets, cache_dir=tmp_path)["test"].rows for k in range(4)]
    assert sorted(np.concatenate(made).tolist()) == list(range(len(source)))


def test_without_groups_each_row_is_one(tmp_path):
    source = interviews(people=10, most=3)
    made = [divide(source, k, 5, group_column="", cache_dir=tmp_path)["test"] for k in range(5)]
    sizes = [len(part) for part in made]
    assert max(sizes) - min(sizes) <= 1 and sum(sizes) == len(source)


def test_too_few_groups_are_an_error(tmp_path):
    source = interviews(people=4)
    assert divide(source, 0, 4, cache_dir=tmp_path)["test"]
    with pytest.raises(DataError, match="5 folds need as many groups, there are 4 with a target"):
        divide(source, 0, 5, cache_dir=tmp_path)
    source = Rows([{"who": 1, "phq8": None}] * 5)
    with pytest.raises(DataError, match="3 folds need as many groups, there are 0 with a target"):
        divide(source, 0, 3, cache_dir=tmp_path)


def test_separate_sources_become_one(tmp_path):
    sources = {
        name: interviews(people=9, seed=seed, name=f"{name}.csv")
        for seed, name in enumerate(("train", "val", "test"))
    }
    made = [divide(sources, k, 3, cache_dir=tmp_path) for k in range(3)]
    wholes = {id(part.whole) for parts in made[:1] for part in parts.values()}
    assert len(wholes) == 1
    assert {part.whole.fingerprint for parts in made for part in parts.values()} == {
        made[0]["test"].whole.fingerprint
    }
    whole = made[0]["test"].whole
    assert isinstance(whole, Joined) and len(whole) == sum(map(len, sources.values()))
    rows = np.concatenate([parts["test"].rows for parts in made])
    assert sorted(rows.tolist()) == list(range(len(whole)))
    assert {whole.locate(row).split()[0] for row in made[0]["test"].rows.tolist()} == {
        "train.csv",
        "val.csv",
        "test.csv",
    }


def test_parts_of_one_source_are_that_source_again(tmp_path):
    source = interviews()
    assert divide(source, 0, 3, cache_dir=tmp_path)["train"].whole is source
    other = interviews(people=5, name="test.csv")
    joined = folds.join([*list(own_splits(source).values())[:2], other])
    assert isinstance(joined.whole, Joined) and joined.whole.parts == (source, other)
    left_out = {id(source.rows[row]) for row in own_splits(source)["test"].rows.tolist()}
    assert len(joined) == len(source) - len(left_out) + len(other)
    assert not left_out & {id(joined[row]) for row in range(len(joined))}


def test_sources_with_paths_lie_in_one_folder(tmp_path):
    one, other = interviews(name="a", root=tmp_path / "a"), interviews(name="b", root=tmp_path)
    with pytest.raises(DataError, match=r"a, b: these lie in different folders; set data\.root"):
        folds.join([one, other])
    assert folds.join([one, interviews(name="b", root=tmp_path / "a")]).root == tmp_path / "a"
