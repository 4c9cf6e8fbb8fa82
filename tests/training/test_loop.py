"""Whole runs within this process; `test_resume.py` has those that are killed."""

import collections
import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from jfusion import config_file
from jfusion.errors import UserError
from jfusion.training import evaluation, loop, run
from jfusion.training.checkpoint import Checkpoints, Progress
from jfusion.training.meter import NonFinite
from tests.training import runs

pytestmark = pytest.mark.usefixtures("compiled_programs")

KEY_BIAS = "encoders/plot/transformer/layer/0/attention/k_lin/bias"


def a_config(data=None, **train):
    plain = runs.PLAIN_CONFIG
    values = {"data": {**plain["data"], **(data or {})}, "train": {**plain["train"], **train}}
    return config_file.resolve(plain | values)


def one_phase(epochs, rate=1e-2, **train):
    return a_config(phases=[{"epochs": epochs, "rates": [[".*", rate]]}], **train)


def after(steps):
    """A request to stop that comes in a given step or evaluation batch."""
    calls = iter(range(1, 1000))
    return lambda: next(calls) >= steps


def checkpoint(folder, config, step, phase):
    """The state of a checkpoint, on the host."""
    checkpoints = Checkpoints(folder / "checkpoints", 100)
    abstract = run.prepare(config).abstract_state(Progress(phase))
    state = checkpoints.restore_state(step, phase, abstract)
    checkpoints.close()
    return jax.device_get(state)


def steps(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


def model(folder):
    return {
        name.removeprefix("params/"): leaf
        for name, leaf in load_file(folder / "model" / "weights.safetensors").items()
    }


def lines(folder, split):
    text = (folder / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, text) if line["split"] == split]


def require_equal(one, other):
    assert one.keys() == other.keys()
    for path, leaf in one.items():
        np.testing.assert_array_equal(leaf, other[path], err_msg=path)


def still(state, initial):
    """The trained parameters that did not move."""
    return {path for path, leaf in state.params.items() if np.array_equal(leaf, initial[path])}


def scripted(monkeypatch, *values):
    """Makes the monitored metric of one evaluation after the other what a test says."""
    values, score = iter(values), evaluation.score
    monkeypatch.setattr(
        evaluation, "score", lambda *args: score(*args) | {"macro_f1": next(values)}
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, compiled_programs):
    """A run of two phases, uninterrupted, with all of its checkpoints."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JFUSION_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        loop.train(a_config(keep=100), folder)
    return folder


def test_the_run_folder_is_complete(finished):
    names = {path.name.split(".out.")[0] for path in finished.iterdir()}
    assert names == {
        *("events", "metrics.jsonl", "summary.json", "test_predictions.csv"),
        *("checkpoints", "frozen", "model"),
    }
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["rows"]["train"] == {"ok": 61, "missing": 0, "skipped": 0}
    assert summary["samples_per_second"] > 0
    assert [line["step"] for line in lines(finished, "val")] == [8, 16, 24, 32]
    assert steps(finished) == [3, 6, 8, 9, 12, 15, 16, 18, 21, 24, 27, 30, 32]
    best = max(lines(finished, "val"), key=lambda line: line["values"]["macro_f1"])
    assert summary["best_step"] == best["step"]
    assert summary["val"] == best["values"]
    (test,) = lines(finished, "test")
    assert summary["test"] == {name: test["values"][name] for name in summary["test"]}


def test_each_phase_moves_what_it_trains_and_nothing_else(finished):
    config = a_config()
    first = run.prepare(config).first_state()
    initial = jax.device_get({**first.params, **first.frozen})
    phases = {16: 0, 18: 1, 32: 1}
    states = {step: checkpoint(finished, config, step, phase) for step, phase in phases.items()}
    require_equal(states[16].frozen, {p: initial[p] for p in initial if p.startswith("encoders/")})
    assert still(states[16], initial) == {"fusion/missing/plot"}  # no row is without its plot
    assert set(states[32].frozen) == {path for path in initial if "embeddings/" in path}
    require_equal(states[32].frozen, {path: initial[path] for path in states[32].frozen})
    # Softmax does not see the bias of the keys, whose gradient is nothing but rounding.
    assert still(states[32], initial) - {KEY_BIAS} == {"fusion/missing/plot"}
    # Two steps into the second phase, its optimizer has counted two.
    assert int(states[18].opt_state["adam"][1].count) == 2


def stop_and_resume(folder, config, stops=(), damage=None):
    """Stops a run at the given batches (counted in each start), then lets it end."""
    for count in stops:
        with pytest.raises(loop.Preempted):
            loop.train(config, folder, after(count))
    if damage:
        damage(folder / "checkpoints")
    loop.train(config, folder)


def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_used(tmp_path, finished, capsys):
    def damage(folder):
        assert {"12", "13"} <= {path.name for path in folder.iterdir()}
        shutil.rmtree(folder / "13" / "state")

    stop_and_resume(tmp_path, a_config(keep=100), [15], damage)  # 8 steps, 2 batches, 5 steps
    said = capsys.readouterr().err
    assert "checkpoint 13 is damaged (state/" in said
    assert "resuming at step 12\n" in said
    assert runs.results(tmp_path) == runs.results(finished)


def test_with_all_checkpoints_damaged_the_run_begins_anew(tmp_path, finished, capsys):
    def damage(folder):
        for path in folder.iterdir():
            (path / "progress" / "metadata").write_text("")

    stop_and_resume(tmp_path, a_config(keep=100), [7], damage)
    said = capsys.readouterr().err
    assert "no checkpoint is whole; the run begins anew" in said
    assert "resuming" not in said
    assert runs.results(tmp_path) == runs.results(finished)


def test_changed_data_are_not_gone_on_with(tmp_path):
    config = a_config()
    with pytest.raises(loop.Preempted, match="stopped by SIGTERM at step 2; everything is saved"):
        loop.train(config, tmp_path, after(2))
    more = a_config(data={"rows": 120})
    with pytest.raises(UserError, match="the data changed since this run began: movies/train, "):
        loop.train(more, tmp_path)
    assert steps(tmp_path) == [2]


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    with pytest.raises(NonFinite) as caught:
        loop.train(one_phase(2, rate=1e15, checkpoint_every=1, keep=100), tmp_path)
    message = str(caught.value)
    step = int(message.split(" of step ")[1].split()[0])
    assert step > 1
    assert message.count("movies/train row ") == 8
    assert steps(tmp_path) == list(range(1, step))
    for kept in steps(tmp_path):
        state = checkpoint(tmp_path, one_phase(2, rate=1e15), kept, 0)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))
    assert not (tmp_path / "summary.json").exists()


def test_a_step_that_leads_out_of_the_numbers_is_never_saved(tmp_path):
    config = one_phase(1, rate=3e38, weight_decay=1e6, checkpoint_every=1)
    with pytest.raises(NonFinite, match="the parameters are not finite after step 1; its batch: "):
        loop.train(config, tmp_path)
    assert steps(tmp_path) == []


def test_patience_ends_a_phase_and_the_best_model_goes_on(tmp_path, monkeypatch):
    scripted(monkeypatch, 0.3, 0.5, 0.4, 0.5, 0.2, 0.1, 0.9)  # 4 + 2 evaluations, and the test
    config = a_config(
        patience=2,
        keep=100,
        phases=[
            {"epochs": 9, "rates": [[".*", 1e-2]]},
            {"epochs": 9, "rates": [["heads/.*", 1e-2], [".*", 0.0]]},
        ],
    )
    summary = loop.train(config, tmp_path)
    assert [line["step"] for line in lines(tmp_path, "val")] == [8, 16, 24, 32, 40, 48]
    assert summary["best_step"] == 16
    assert summary["val"]["macro_f1"] == 0.5
    assert summary["test"]["macro_f1"] == 0.9
    best, last = (checkpoint(tmp_path, config, step, 0) for step in (16, 32))
    assert not np.array_equal(best.params["heads/genres/bias"], last.params["heads/genres/bias"])
    require_equal(model(tmp_path), best.params)
    second = checkpoint(tmp_path, config, 48, 1)
    require_equal(second.frozen, {path: best.params[path] for path in second.frozen})


def test_a_later_phase_may_find_the_best_model(tmp_path, monkeypatch):
    scripted(monkeypatch, 0.3, 0.2, 0.4, 0.1, 0.0)
    summary = loop.train(a_config(), tmp_path)
    assert summary["best_step"] == 24
    state = checkpoint(tmp_path, a_config(), 24, 1)
    require_equal(model(tmp_path), {**state.params, **state.frozen})


def test_early_stopping_goes_on_after_a_restart(tmp_path, monkeypatch):
    config = one_phase(9, patience=2)
    scripted(monkeypatch, 0.5, 0.4)
    with pytest.raises(loop.Preempted):
        loop.train(config, tmp_path, after(22))  # in the third epoch, with one evaluation wasted
    monkeypatch.undo()
    scripted(monkeypatch, 0.3, 0.9)
    assert loop.train(config, tmp_path)["best_step"] == 8
    assert [line["step"] for line in lines(tmp_path, "val")] == [8, 16, 24]


def test_max_steps_ends_the_run_anywhere(tmp_path):
    summary = loop.train(a_config(max_steps=5), tmp_path)
    assert summary["best_step"] == 5
    assert [line["step"] for line in lines(tmp_path, "val")] == [5]
    assert steps(tmp_path) == [3, 5]


def test_evaluation_uses_the_average(tmp_path):
    config = one_phase(1, ema=0.9)
    loop.train(config, tmp_path)
    state = checkpoint(tmp_path, config, 8, 0)
    require_equal(model(tmp_path), state.opt_state["average"])
    assert any(not np.array_equal(x, state.params[p]) for p, x in model(tmp_path).items())


def test_nothing_is_compiled_after_the_first_epoch(tmp_path):
    counts = collections.Counter()

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            counts["compiled"] += 1

    def note_batch():
        counts["batches"] += 1
        counts[counts["batches"]] = counts["compiled"]
        return False

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        loop.train(one_phase(3), tmp_path, note_batch)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert counts["batches"] == 3 * (8 + 2) + 3
    assert counts[10] >= 2  # both steps, at least
    assert counts[12] == counts[33]  # with the save at the end of the epoch
