import numpy as np
import pytest

from jfusion.config import MultiLabel, Regression, metrics_of
from jfusion.data import pipeline
from jfusion.data.split import Split
from jfusion.training import evaluation, losses, metrics, sharding, steps
from tests import tiny


def a_split(rows, keep):
    """A split of random rows, of which those in `keep` take part."""
    batch = tiny.batch(rows)
    return Split(
        name="val",
        source=None,
        inputs=batch["inputs"],
        present=batch["present"],
        targets=batch["targets"],
        rows=np.arange(rows),
        keep=np.array(keep),
    )


@pytest.fixture(scope="module")
def evaluate():
    network, state, _ = tiny.setup()
    loss = {"genres": losses.build(MultiLabel(column="genres"))}
    eval_step = steps.make_eval_step(network, loss)

    def run(batches):
        mesh = sharding.make_mesh()
        return evaluation.run(eval_step, state.evaluated, state.stats, batches, mesh)

    return run


KEEP = [0, 2, 3, 4, 7, 8, 9, 10, 12, 13]


def test_every_row_once_whatever_the_batches(evaluate):
    split = a_split(14, KEEP)
    whole = evaluate(pipeline.batches(split, 16, shuffle=False))
    np.testing.assert_array_equal(whole.rows, KEEP)
    assert whole.heads["genres"].shape == (10, tiny.LABELS)
    assert whole.losses["genres"].shape == (10,)
    for size in (3, 4):
        parts = evaluate(pipeline.batches(split, size, shuffle=False))
        np.testing.assert_array_equal(parts.rows, KEEP)
        np.testing.assert_allclose(parts.heads["genres"], whole.heads["genres"], atol=1e-5)
        np.testing.assert_allclose(parts.losses["genres"], whole.losses["genres"], atol=1e-5)
    mean = {"loss": whole.losses["genres"].mean()}
    scores = score(parts, split.targets, {"genres": MultiLabel(column="genres")})
    assert scores["loss"] == pytest.approx(mean["loss"], abs=1e-5)


def test_outputs_are_in_the_order_of_the_rows(evaluate):
    split = a_split(14, KEEP)
    ordered = evaluate(pipeline.batches(split, 4, shuffle=False))
    shuffled = evaluate(pipeline.batches(split, 4, shuffle=True, seed=3))
    np.testing.assert_array_equal(shuffled.rows, KEEP)
    np.testing.assert_allclose(shuffled.heads["genres"], ordered.heads["genres"], atol=1e-5)


def test_it_can_be_stopped_after_any_batch():
    """What is called after each batch may raise."""
    calls = []

    def after_batch():
        calls.append(len(calls))
        if len(calls) == 2:
            raise KeyboardInterrupt

    batches = pipeline.batches(a_split(14, KEEP), 4, shuffle=False)
    with pytest.raises(KeyboardInterrupt):
        evaluation.run(
            lambda params, stats, batch: ({}, {}, {}),
            {},
            {},
            batches,
            sharding.make_mesh(),
            after_batch,
        )
    assert calls == [0, 1]


def outputs(heads):
    rng = np.random.default_rng(0)
    rows = np.array([1, 2, 5])
    logits = {name: rng.normal(size=(3, 4)).astype(np.float32) for name in heads}
    losses = {name: rng.random(3, np.float32) for name in heads}
    return evaluation.Outputs(rows, logits, losses, {})


def score(given, targets, sections):
    by_name = {name: losses.build(section) for name, section in sections.items()}
    return evaluation.score(given, targets, sections, by_name)


TARGETS = {
    name: np.random.default_rng(1).integers(0, 2, (6, 4)).astype(np.float32)
    for name in ("genres", "moods")
}


def test_a_single_target_has_plain_names():
    given = outputs(["genres"])
    section = MultiLabel(column="genres", threshold=0.4, weight=2.0)
    scores = score(given, TARGETS, {"genres": section})
    probabilities = 1 / (1 + np.exp(-given.heads["genres"]))
    expected = metrics.multilabel(probabilities, TARGETS["genres"][[1, 2, 5]], 0.4)
    assert scores.pop("loss") == pytest.approx(2 * given.losses["genres"].mean())
    assert scores == pytest.approx(expected)
    assert set(scores) == set(metrics_of(section))


def test_several_targets_have_their_names_in_front():
    given = outputs(["genres", "moods"])
    sections = {
        "genres": MultiLabel(column="genres"),
        "moods": MultiLabel(column="moods", weight=0.5),
    }
    scores = score(given, TARGETS, sections)
    names = ("loss", *metrics_of(sections["moods"]))
    assert set(scores) == {"loss"} | {f"{head}/{name}" for head in sections for name in names}
    means = {name: given.losses[name].mean() for name in sections}
    assert scores["loss"] == pytest.approx(means["genres"] + 0.5 * means["moods"])
    assert scores["moods/loss"] == pytest.approx(means["moods"])


def test_a_loss_is_finished_over_the_whole_split():
    """The root of the mean over all rows, not a mean of roots."""
    section = Regression(column="phq8", loss="rmse")
    given = evaluation.Outputs(
        np.array([0, 2]),
        {"phq8": np.array([[5.0], [9.0]], np.float32)},
        {"phq8": np.array([4.0, 9.0], np.float32)},
        {},
    )
    scores = score(given, {"phq8": np.array([[7.0], [0.0], [6.0]], np.float32)}, {"phq8": section})
    assert scores["loss"] == pytest.approx(6.5**0.5, rel=1e-6)
    assert scores["rmse"] == pytest.approx(6.5**0.5)


def test_only_some_modalities(evaluate):
    """Rows that have nothing else are left out; the others answer as if the rest were absent."""
    split = a_split(6, range(6))
    split.present["plot"][1] = False
    split.present["poster"][2] = False
    batches = list(pipeline.batches(split, 4, shuffle=False))
    given = evaluate(evaluation.only(batches, {"plot"}))
    np.testing.assert_array_equal(given.rows, [0, 2, 3, 4, 5])
    split.present["poster"][:] = False
    split.present["plot"][1] = True
    alone = evaluate(pipeline.batches(split, 4, shuffle=False))
    np.testing.assert_allclose(
        given.heads["genres"], alone.heads["genres"][[0, 2, 3, 4, 5]], atol=1e-5
    )
    assert batches[0]["present"]["poster"][0], "the batches themselves stay as they are"


@pytest.mark.parametrize(
    ("values", "best", "monitor", "expected"),
    [
        ({"macro_f1": 0.0}, {}, "macro_f1", True),
        ({"macro_f1": None}, {}, "macro_f1", True),
        ({"macro_f1": 0.5}, {"macro_f1": 0.4}, "macro_f1", True),
        ({"macro_f1": 0.4}, {"macro_f1": 0.4}, "macro_f1", False),
        ({"macro_f1": 0.3}, {"macro_f1": 0.4}, "macro_f1", False),
        ({"loss": 0.3}, {"loss": 0.4}, "loss", True),
        ({"loss": 0.5}, {"loss": 0.4}, "loss", False),
        ({"a/rmse": 1.0}, {"a/rmse": 2.0}, "a/rmse", True),
        ({"a/mae": 3.0}, {"a/mae": 2.0}, "a/mae", False),
        ({"map": None}, {"map": 0.1}, "map", False),
        ({"map": 0.1}, {"map": None}, "map", True),
        ({"map": None}, {"map": None}, "map", False),
    ],
)
def test_better(values, best, monitor, expected):
    assert evaluation.better(values, best, monitor) is expected
