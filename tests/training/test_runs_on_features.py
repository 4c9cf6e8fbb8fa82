"""Whole runs with phases on cached features."""

import copy
import json
import types

import numpy as np
import pytest

from jfusion import config_file
from jfusion.data import cache
from jfusion.training import loop, run
from tests.training import runs
from tests.training.test_features import Watch, entries

pytestmark = pytest.mark.usefixtures("compiled_programs")


def a_config(frozen, cache_features, **train):
    """A run with a frozen encoder."""
    values = copy.deepcopy(runs.CONFIG)
    if frozen == "plot":
        del values["inputs"]["poster"]
        values["inputs"]["plot"] |= {"max_tokens": 6, "windows": 2}
        values["inputs"]["plot"]["encoder"]["sizes"] |= {"dropout": 0.0, "attention_dropout": 0.0}
    else:
        values["inputs"]["poster"]["encoder"] |= {"dense": 8}
    rates = [[f"encoders/{frozen}/.*", 0.0], [".*", 1e-2]]
    phases = [{"epochs": 3, "rates": rates}]
    values["train"] = {"batch_size": 8, "phases": phases, "cache_features": cache_features, **train}
    values["log"] = {"every": 1, "pictures": 0}
    return config_file.resolve(values)


def results(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [
        (line["step"], line["split"], name, value)
        for line in lines
        for name, value in sorted(line["values"].items())
        if name != "samples_per_second"
    ]


def after(batches):
    """A request to stop that comes in a given batch."""
    calls = iter(range(1, 1000))
    return lambda: next(calls) >= batches


@pytest.mark.parametrize("frozen", ["poster", "plot"])
def test_a_run_on_features_gives_the_same_metrics(tmp_path, frozen, capsys):
    for kept in (False, True):
        loop.train(a_config(frozen, kept), tmp_path / str(kept))
    said = capsys.readouterr().err
    assert said.count("cached features") == 1
    assert f"phase 1: {frozen}: trains on cached features" in said
    without, on = results(tmp_path / "False"), results(tmp_path / "True")
    assert [entry[:3] for entry in without] == [entry[:3] for entry in on]
    assert {"train", "val", "test"} == {entry[1] for entry in on}
    values = [[x[3] for x in part if x[3] is not None] for part in (without, on)]
    np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-6)


def test_a_run_on_features_that_is_stopped_goes_on_with_the_same_bits(tmp_path):
    config = a_config("poster", True, checkpoint_every=3)
    loop.train(config, tmp_path / "whole")
    for count in (5, 8):  # in the first epoch, and in the second
        with pytest.raises(loop.Preempted):
            loop.train(config, tmp_path / "parts", after(count))
    loop.train(config, tmp_path / "parts")
    assert runs.results(tmp_path / "parts") == runs.results(tmp_path / "whole")


def test_a_run_can_be_stopped_while_it_computes_features(tmp_path, monkeypatch):
    monkeypatch.setenv("JFUSION_CACHE", str(tmp_path / "cache"))
    config = a_config("poster", True)
    with pytest.raises(loop.Preempted, match="step 0"):
        loop.train(config, tmp_path / "run", lambda: True)
    assert entries(tmp_path / "cache") == []


def test_without_space_a_run_goes_on_without_features(monkeypatch, tmp_path):
    monkeypatch.setenv("JFUSION_CACHE", str(tmp_path))
    prepared = run.prepare(a_config("poster", True))
    usage = types.SimpleNamespace(free=10)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: usage)
    said = []
    splits = prepared.phase_splits(0, prepared.first_state(), said.append, Watch())
    assert "pixels" in splits["train"].inputs["poster"]
    assert len(said) == 1
    assert "phase 1: poster: features are not cached: the cache of features needs" in said[0]
