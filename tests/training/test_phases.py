"""Phases over networks with BatchNorm: a frozen encoder, then the head alone, then everything."""

import copy

import jax
import numpy as np

from jfusion import artifact, config_file
from jfusion.training import evaluation, loop, run
from jfusion.training.checkpoint import Checkpoints, Progress
from tests.training import runs

FROZEN = "encoders/title/"
STEPS = 5  # of an epoch


def a_config():
    values = copy.deepcopy(runs.PRODUCTS_CONFIG)
    title = values["inputs"]["title"]
    title["encoder"] |= {"dense": 8}
    values["inputs"] = {"title": title}
    phases = [
        {"epochs": 2, "rates": [[f"{FROZEN}.*", 0.0], [".*", 1e-2]]},
        {"epochs": 1, "rates": [["heads/.*", 1e-2], [".*", 0.0]]},
        {"epochs": 1, "rates": [[".*", 1e-2]]},
    ]
    values["train"] = {"batch_size": 8, "keep": 100, "phases": phases, "cache_features": False}
    return config_file.resolve(values)


def moved(one, other):
    """The leaves that differ."""
    assert one.keys() == other.keys()
    return {path for path, leaf in one.items() if not np.array_equal(leaf, other[path])}


def test_statistics_follow_their_phases_and_the_best_model_goes_on(tmp_path, monkeypatch):
    scores, score = iter([0.5, 0.3, 0.1, 0.2, 0.4]), evaluation.score  # 4 epochs, and the test
    monkeypatch.setattr(
        evaluation, "score", lambda *args: score(*args) | {"macro_f1": next(scores)}
    )
    config = a_config()
    summary = loop.train(config, tmp_path)

    prepared = run.prepare(config)
    before = jax.device_get(prepared.first_state())
    checkpoints = Checkpoints(tmp_path / "checkpoints", 100)
    best, last, head, all_ = (
        jax.device_get(
            checkpoints.restore_state(
                epoch * STEPS, phase, prepared.abstract_state(Progress(phase))
            )
        )
        for epoch, phase in ((1, 0), (2, 0), (3, 1), (4, 2))
    )
    checkpoints.close()
    # While the encoder is frozen its statistics stay, and all others move, in both epochs.
    encoder = {path for path in before.stats if path.startswith(FROZEN)}
    others = {f"{x}/{y}" for x in ("dense/title/norm", "fusion/norms/0") for y in ("mean", "var")}
    assert set(before.stats) == encoder | others and len(encoder) >= 6
    assert moved(best.stats, before.stats) == moved(last.stats, best.stats) == others
    # The second phase begins with the best model, and moves no statistics either.
    began = {**best.params, **best.frozen}
    assert not moved(head.stats, best.stats)
    assert not moved(head.frozen, {path: began[path] for path in head.frozen})
    assert moved(head.params, {path: began[path] for path in head.params})
    # In the third all of them move.
    assert moved(all_.stats, best.stats) == set(before.stats)
    # Neither found anything better, and nothing is lost.
    assert (summary["best_step"], summary["val"]["macro_f1"]) == (STEPS, 0.5)
    kept = artifact.read(tmp_path / "model")
    assert not moved(kept.params, began) and not moved(kept.stats, best.stats)
