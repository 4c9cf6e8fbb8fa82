import dataclasses
from pathlib import Path

import pytest

from jfusion import config_file
from jfusion.config import ConfigError
from jfusion.training import repeats, seen_rows
from tests.training import runs

DRAWN = {"source": "table", "path": "rows.csv"}
MARKED = {**DRAWN, "split_column": "split"}
APART = {**DRAWN, "val_path": "val.csv", "test_path": "test.csv"}
SAMPLE = {"source": "products"}


def a_config(data, seed=0, **changes):
    return config_file.resolve(runs.PRODUCTS_CONFIG | {"data": data, "seed": seed} | changes)


def check(before, now, seeds=(0, 0)):
    config = a_config(before, seeds[0])
    origin = {"seed": config.seed, "data": dataclasses.asdict(config.data)}
    seen_rows.require_apart("config.attach_to", Path("old"), a_config(now, seeds[1]), origin)


@pytest.mark.parametrize(
    ("before", "now", "seeds"),
    [
        (DRAWN, DRAWN, (0, 0)),
        (DRAWN, {**DRAWN, "path": str(Path("rows.csv").resolve())}, (0, 0)),
        (DRAWN, {**DRAWN, "path": "others.csv"}, (0, 1)),
        (DRAWN, SAMPLE, (0, 1)),
        (MARKED, MARKED, (0, 1)),
        (APART, APART, (0, 1)),
        (SAMPLE, SAMPLE, (0, 1)),
        (SAMPLE, {**SAMPLE, "on_error": "skip"}, (0, 0)),
        ({**DRAWN, "fold": (1, 5)}, {**DRAWN, "fold": (1, 5)}, (0, 0)),
    ],
)
def test_rows_that_are_divided_alike_or_are_others_may_be_learnt_on(before, now, seeds):
    check(before, now, seeds)


@pytest.mark.parametrize(
    ("before", "now", "seeds", "told"),
    [
        (DRAWN, DRAWN, (0, 1), "seed 0, and here it is 1"),
        (DRAWN, {**DRAWN, "test_fraction": 0.3}, (0, 0), "data.test_fraction 0.15, and here it is"),
        (DRAWN, {**DRAWN, "group_column": "who"}, (0, 0), "data.group_column '', and here it is"),
        (DRAWN, MARKED, (0, 0), "data.split_column '', and here it is 'split'"),
        ({**APART, "test_path": ""}, {**APART, "test_path": ""}, (0, 1), "seed 0, and here it is"),
        (APART, {**DRAWN, "path": "test.csv"}, (0, 0), "data.val_path "),
        (MARKED, {**MARKED, "fold": (0, 5)}, (0, 0), "data.fold (), and here it is (0, 5)"),
        (SAMPLE, {**SAMPLE, "fold": (0, 5)}, (0, 0), "data.fold (), and here it is (0, 5)"),
        ({**SAMPLE, "fold": (0, 5)}, {**SAMPLE, "fold": (1, 5)}, (0, 0), "data.fold (0, 5), and"),
        ({**SAMPLE, "fold": (0, 5)}, {**SAMPLE, "fold": (0, 5)}, (0, 1), "seed 0, and here it is"),
    ],
)
def test_rows_that_were_learnt_are_not_tested(before, now, seeds, told):
    with pytest.raises(ConfigError) as caught:
        check(before, now, seeds)
    assert str(caught.value).startswith("config.attach_to: old was trained on the same data with ")
    assert told in str(caught.value)
    assert str(caught.value).endswith("rows it has learnt would be tested; divide them as there")


def test_folds_are_refused_before_the_first_is_trained(tmp_path, monkeypatch):
    config = a_config(SAMPLE)
    origin = {"seed": 0, "data": dataclasses.asdict(config.data)}
    monkeypatch.setattr("jfusion.artifact.verify", lambda folder: {"origin": origin})
    monkeypatch.setattr("jfusion.training.loop.train", lambda *_: pytest.fail("it began"))
    with pytest.raises(ConfigError, match=r"config\.attach_to: old was .* with data\.fold \(\), "):
        repeats.train(dataclasses.replace(config, attach_to="old", folds=3), tmp_path)
