import csv
import dataclasses
import json

import pytest

from jfusion.config import Config, Data, Encoder, Frames, Phase, Regression, Train
from jfusion.training import loop, regression, repeats

CONFIG = Config(
    inputs={"audio": Frames(encoder=Encoder("mean_pool"), column="audio")},
    targets={"phq8": Regression(column="phq8", cut=(10.0,))},
    train=Train(phases=(Phase(epochs=1),), monitor="rmse"),
    data=Data(source="interviews", group_column="participant"),
    seed=3,
)


def with_runs(**changes):
    return dataclasses.replace(CONFIG, **changes)


@pytest.fixture
def trained(monkeypatch):
    """Stands in for training: three test rows per fold, off by the seed."""
    runs = []

    def train(config, folder, stop_requested, mirror):
        runs.append((config.seed, config.data.fold))
        part = config.data.fold[0] if config.data.fold else 0
        folder.mkdir(parents=True)
        with open(folder / "test_predictions.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["row", "participant", "status", "phq8", "phq8/true"])
            for i in range(3):
                truth = 4 * part + 3 * i
                table.writerow([part * 3 + i, f"p{part}{i}", "ok", truth + config.seed, truth])
            table.writerow([99, "p99", "bad: audio", "", 5])
        summary = {
            "seed": config.seed,
            "best_step": 7,
            "test": {"rmse": float(config.seed), "ccc": None if part else 0.5},
            "seconds": 1.5,
            "versions": {"jax": "1"},
        }
        (folder / "summary.json").write_text(json.dumps(summary))

    monkeypatch.setattr(loop, "train", train)
    return runs


def test_the_plan():
    assert repeats.plan(CONFIG) == [("", CONFIG)]
    names = [name for name, _ in repeats.plan(with_runs(seeds=2, folds=3))]
    assert names == [f"fold-{k}-seed-{s}" for k in range(3) for s in (3, 4)]
    for _, run in repeats.plan(with_runs(seeds=2, folds=3)):
        assert (run.seeds, run.folds) == (1, 0), "a run of its own"
    assert [run.data.fold for _, run in repeats.plan(with_runs(folds=3))] == [
        (0, 3),
        (1, 3),
        (2, 3),
    ]
    assert [name for name, _ in repeats.plan(with_runs(seeds=2))] == ["seed-3", "seed-4"]


def test_seeds_are_reported_as_one(trained, tmp_path):
    summary = repeats.train(with_runs(seeds=3), tmp_path)
    assert trained == [(3, ()), (4, ()), (5, ())]
    assert summary["test"]["rmse"] == {"mean": 4, "std": 1, "lowest": 3, "highest": 5}
    assert [run["folder"] for run in summary["runs"]] == ["seed-3", "seed-4", "seed-5"]
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    # The three rows of each run, with what the three seeds said of each.
    expected = regression.scores([3, 6, 9, 4, 7, 10, 5, 8, 11], [0, 3, 6] * 3, 10.0)
    pooled = summary["pooled"]
    assert {name: x["score"] for name, x in pooled.items()} == expected
    assert pooled["rmse"]["from"] == pytest.approx(pooled["rmse"]["to"]), (
        "every participant has the same three errors, so that drawing others changes nothing"
    )


def test_folds_and_what_is_undefined(trained, tmp_path):
    summary = repeats.train(with_runs(folds=3), tmp_path)
    assert trained == [(3, (k, 3)) for k in range(3)]
    assert summary["test"]["ccc"] == {"mean": 0.5, "std": None, "lowest": 0.5, "highest": 0.5}
    assert summary["pooled"]["mae"]["score"] == 3


def test_finished_runs_are_not_repeated(trained, tmp_path):
    first = repeats.train(with_runs(seeds=2), tmp_path)
    (tmp_path / "seed-4" / "summary.json").unlink()
    (tmp_path / "seed-4" / "test_predictions.csv").unlink()
    (tmp_path / "seed-4").rmdir()
    assert repeats.train(with_runs(seeds=2), tmp_path) == first
    assert [seed for seed, _ in trained] == [3, 4, 4]
