import numpy as np
import pytest

from jfusion.config import METRICS, MultiLabel
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
    loss = {"genres": (1.0, losses.build(MultiLabel(column="genres")))}
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
    assert whole.logits["genres"].shape == (10, tiny.LABELS)
    assert whole.losses["genres"].shape == (10,)
    for size in (3, 4):
        parts = evaluate(pipeline.batches(split, size, shuffle=False))
        np.testing.assert_array_equal(parts.rows, KEEP)
        np.testing.assert_allclose(parts.logits["genres"], whole.logits["genres"], atol=1e-5)
        np.testing.assert_allclose(parts.losses["genres"], whole.losses["genres"], atol=1e-5)
    mean = {"loss": whole.losses["genres"].mean()}
    scores = evaluation.score(parts, split.targets, {"genres": 0.5}, {"genres": 1.0})
    assert scores["loss"] == pytest.approx(mean["loss"], abs=1e-5)


def test_outputs_are_in_the_order_of_the_rows(evaluate):
    split = a_split(14, KEEP)
    ordered = evaluate(pipeline.batches(split, 4, shuffle=False))
    shuffled = evaluate(pipeline.batches(split, 4, shuffle=True, seed=3))
    np.testing.assert_array_equal(shuffled.rows, KEEP)
    np.testing.assert_allclose(shuffled.logits["genres"], ordered.logits["genres"], atol=1e-5)


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
            lambda params, stats, batch: {"logits": {}, "loss": {}},
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
    return evaluation.Outputs(rows, logits, {name: rng.random(3, np.float32) for name in heads})


TARGETS = {
    name: np.random.default_rng(1).integers(0, 2, (6, 4)).astype(np.float32)
    for name in ("genres", "moods")
}


def test_a_single_target_has_plain_names():
    given = outputs(["genres"])
    scores = evaluation.score(given, TARGETS, {"genres": 0.4}, {"genres": 2.0})
    probabilities = 1 / (1 + np.exp(-given.logits["genres"]))
    expected = metrics.multilabel(probabilities, TARGETS["genres"][[1, 2, 5]], 0.4)
    assert scores.pop("loss") == pytest.approx(2 * given.losses["genres"].mean())
    assert scores == pytest.approx(expected)
    assert set(scores) == set(METRICS["multilabel"])


def test_several_targets_have_their_names_in_front():
    given = outputs(["genres", "moods"])
    weights = {"genres": 1.0, "moods": 0.5}
    scores = evaluation.score(given, TARGETS, {"genres": 0.5, "moods": 0.5}, weights)
    names = ("loss", *METRICS["multilabel"])
    assert set(scores) == {"loss"} | {f"{head}/{name}" for head in weights for name in names}
    losses = {name: given.losses[name].mean() for name in weights}
    assert scores["loss"] == pytest.approx(losses["genres"] + 0.5 * losses["moods"])
    assert scores["moods/loss"] == pytest.approx(losses["moods"])


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


def test_probabilities_of_large_logits_are_finite():
    given = outputs(["genres"])._replace(logits={"genres": np.array([[-1e4, 0, 1e4]], np.float32)})
    np.testing.assert_array_equal(given.probabilities("genres"), [[0, 0.5, 1]])
    assert given.probabilities("genres").dtype == np.float32
