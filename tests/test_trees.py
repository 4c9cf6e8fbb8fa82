import numpy as np
import pytest

from jfusion import trees

PATHS = (
    "encoders/plot/embeddings/word/embedding",
    "encoders/plot/layer/0/kernel",
    "encoders/plot/layer/10/kernel",
    "fusion/layers/0/bias",
    "heads/genres/kernel",
)


def matched(*patterns):
    return trees.first_match(patterns, PATHS)


def test_flatten_joins_keys_and_sorts():
    nested = {"b": {1: {"x": 5}, 0: {"y": 6}}, "a": 7, "empty": {}}
    flat = trees.flatten(nested)
    assert flat == {"a": 7, "b/0/y": 6, "b/1/x": 5}
    assert list(flat) == sorted(flat)


def test_the_first_pattern_that_matches_wins():
    values = matched(("encoders/.*/0/.*", 1), ("encoders/.*", 2), (".*", 3))
    assert list(values) == list(PATHS)
    assert list(values.values()) == [2, 1, 2, 3, 3]
    assert set(matched((".*", 3), ("encoders/.*", 2)).values()) == {3}


def test_a_pattern_matches_the_whole_path():
    values = matched(("encoders/plot/layer/1/.*|encoders/plot/layer/10/.*", 1), (".*", 2))
    assert values["encoders/plot/layer/10/kernel"] == 1
    with pytest.raises(ValueError, match="'kernel' matches no parameter"):
        matched(("kernel", 1), (".*", 2))
    with pytest.raises(ValueError, match="'encoders/plot/layer/1' matches no parameter"):
        matched(("encoders/plot/layer/1", 1), (".*", 2))


def test_every_path_must_be_covered():
    with pytest.raises(ValueError, match=r"covers 2 of 5 .*first 'fusion/layers/0/bias'.*'\.\*'"):
        matched(("encoders/.*", 1))
    with pytest.raises(ValueError, match="covers 5 of 5"):
        matched()


def test_a_pattern_without_use_is_a_typing_error():
    with pytest.raises(ValueError) as caught:
        matched(("encoders/polt/.*", 1), (".*", 2))
    assert str(caught.value).startswith("pattern 'encoders/polt/.*' matches no parameter; near it:")
    assert "encoders/plot" in str(caught.value)
    with pytest.raises(ValueError, match=r"matches no parameter$"):
        matched(("zzz", 1), (".*", 2))


def test_what_is_no_regular_expression_is_named():
    with pytest.raises(ValueError, match=r"'encoders/\(' is not a regular expression: "):
        matched(("encoders/(", 1), (".*", 2))


def test_split_goes_by_truth():
    tree = {path: len(path) for path in PATHS}
    yes, no = trees.split(tree, matched(("heads/.*", 1e-3), (".*", 0.0)))
    assert list(yes) == ["heads/genres/kernel"]
    assert list(no) == list(PATHS[:-1])
    assert {**yes, **no} == tree


def test_size_counts_scalars():
    assert trees.size({"a": np.zeros((2, 3)), "b": np.zeros(()), "c": np.zeros((4, 0))}) == 7
