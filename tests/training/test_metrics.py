import json

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_recall_fscore_support,
    roc_auc_score,
    top_k_accuracy_score,
)

from jfusion.training import metrics


def draw(rows=60, labels=5, seed=0):
    rng = np.random.default_rng(seed)
    targets = (rng.random((rows, labels)) < [0.5, 0.3, 0.2, 0.1, 0.05][:labels]).astype(np.float32)
    targets[0] = 1  # every label has a positive
    probabilities = np.clip(0.35 * targets + rng.random(targets.shape) * 0.7, 0, 1)
    return probabilities.astype(np.float32), targets


@pytest.mark.parametrize("threshold", [0.5, 0.3])
@pytest.mark.parametrize("seed", [0, 1])
def test_equal_to_scikit_learn(seed, threshold):
    probabilities, targets = draw(seed=seed)
    predicted = probabilities > threshold
    want = {
        f"{average}_f1": f1_score(targets, predicted, average=average, zero_division=0)
        for average in ("macro", "micro", "weighted", "samples")
    }
    want["map"] = average_precision_score(targets, probabilities, average="macro")
    want["auroc"] = roc_auc_score(targets, probabilities, average="macro")
    got = metrics.multilabel(probabilities, targets, threshold)
    assert list(got) == list(want)
    np.testing.assert_allclose(list(got.values()), list(want.values()), rtol=1e-12)
    assert all(type(score) is float for score in got.values())


@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_table_equals_scikit_learn(threshold):
    probabilities, targets = draw()
    names = ["drama", "comedy", "war", "western", "news"]
    table = metrics.per_label(probabilities, targets, names, threshold)
    want = precision_recall_fscore_support(targets, probabilities > threshold, zero_division=0)
    for key, column in zip(("precision", "recall", "f1", "support"), want, strict=True):
        np.testing.assert_allclose([row[key] for row in table], column, rtol=1e-12)
    aps = average_precision_score(targets, probabilities, average=None)
    np.testing.assert_allclose([row["ap"] for row in table], aps, rtol=1e-12)
    assert [row["label"] for row in table] == names
    assert list(table[0]) == ["label", "precision", "recall", "f1", "ap", "support"]


def test_a_probability_at_the_threshold_is_no_prediction():
    targets = np.array([[1.0], [1.0]])
    scores = metrics.multilabel(np.array([[0.5], [0.75]]), targets, 0.5)
    assert scores["micro_f1"] == pytest.approx(2 / 3)


def test_labels_without_positives_or_negatives():
    probabilities, targets = draw(labels=4)
    probabilities[:, 1] = 0.1  # neither positives nor predictions: F1 0, no AP, no AUROC
    targets[:, 1] = 0
    targets[:, 2] = 1  # no negatives: AP 1, no AUROC
    scores = metrics.multilabel(probabilities, targets)
    table = metrics.per_label(probabilities, targets, list("abcd"))
    assert table[1] == {
        "label": "b",
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "ap": None,
        "support": 0,
    }
    assert table[2]["ap"] == 1.0
    assert scores["macro_f1"] == pytest.approx(np.mean([row["f1"] for row in table]))
    assert scores["map"] == pytest.approx(np.mean([table[i]["ap"] for i in (0, 2, 3)]))
    both = [0, 3]
    assert scores["auroc"] == pytest.approx(roc_auc_score(targets[:, both], probabilities[:, both]))


def test_a_split_without_positives_has_no_ranking_scores():
    scores = metrics.multilabel(np.full((3, 2), 0.2), np.zeros((3, 2)))
    assert scores["map"] is None and scores["auroc"] is None
    assert [scores[f"{kind}_f1"] for kind in ("macro", "micro", "weighted", "samples")] == [0.0] * 4
    json.dumps(scores, allow_nan=False)


def test_a_single_label_is_not_a_binary_problem():
    probabilities, targets = draw(labels=1)
    scores = metrics.multilabel(probabilities, targets)
    want = f1_score(targets[:, 0], probabilities[:, 0] > 0.5)
    assert [scores["macro_f1"], scores["micro_f1"], scores["weighted_f1"]] == [
        pytest.approx(want)
    ] * 3


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_named(value):
    probabilities, targets = draw()
    probabilities[[7, 31], [0, 2]] = value
    with pytest.raises(ValueError, match=r"of 2 of 60 rows are not finite: rows 7, 31 "):
        metrics.multilabel(probabilities, targets)
    with pytest.raises(ValueError, match="rows 7, 31 "):
        metrics.per_label(probabilities, targets, list("abcde"))


def test_many_bad_rows_are_cut_short():
    with pytest.raises(ValueError, match=r"18, 19, \.\.\. "):
        metrics.multilabel(np.full((50, 2), np.nan), np.zeros((50, 2)))


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(3, 3\)"):
        metrics.multilabel(np.zeros((3, 2)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="nothing to score"):
        metrics.multilabel(np.zeros((0, 2)), np.zeros((0, 2)))
    with pytest.raises(ValueError, match="1 label names"):
        metrics.per_label(np.zeros((3, 2)), np.zeros((3, 2)), ["a"])


def draw_classes(rows=80, classes=8, seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.integers(classes, size=rows)
    scores = rng.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[targets]
    return scores.astype(np.float32), targets.astype(np.int32)


@pytest.mark.parametrize("classes", [2, 3, 8])
def test_classes_equal_scikit_learn(classes):
    scores, targets = draw_classes(classes=classes)
    predicted = scores.argmax(1)
    got = metrics.classes(scores, targets)
    want = {
        "macro_f1": f1_score(targets, predicted, average="macro"),
        "weighted_f1": f1_score(targets, predicted, average="weighted"),
        "accuracy": accuracy_score(targets, predicted),
    }
    if classes > 5:
        want["top5_accuracy"] = top_k_accuracy_score(targets, scores, k=5)
        assert want["accuracy"] < want["top5_accuracy"] < 1
    else:
        assert got.pop("top5_accuracy") is None
    assert list(got) == list(want)
    np.testing.assert_allclose(list(got.values()), list(want.values()), rtol=1e-12)
    assert all(type(score) is float for score in got.values())


def test_classes_by_hand():
    scores = np.array([[2, 1, 0], [2, 1, 0], [0, 1, 0], [0, 3, 1]], np.float32)
    got = metrics.classes(scores, np.array([0, 1, 1, 1], np.int32))
    # Class 0: precision 1/2, recall 1. Class 1: precision 1, recall 2/3. Class 2: never.
    assert got["macro_f1"] == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)
    assert got["weighted_f1"] == pytest.approx((2 / 3 + 3 * 4 / 5) / 4)
    assert got["accuracy"] == 0.75
    json.dumps(got, allow_nan=False)


def test_a_class_that_no_row_has_counts_in_the_mean():
    scores, targets = draw_classes(classes=8)
    targets = np.minimum(targets, 4)  # the last three classes are gone
    got = metrics.classes(scores, targets)
    labels = range(8)
    want = f1_score(targets, scores.argmax(1), labels=labels, average="macro", zero_division=0)
    assert got["macro_f1"] == pytest.approx(want, rel=1e-12)
    assert got["top5_accuracy"] == pytest.approx(
        np.mean([t in np.argsort(-s)[:5] for s, t in zip(scores, targets, strict=True)])
    )


def test_wrong_classes_are_refused():
    scores, targets = draw_classes()
    scores[[3, 9], 1] = np.nan
    with pytest.raises(ValueError, match=r"scores of 2 of 80 rows are not finite: rows 3, 9 "):
        metrics.classes(scores, targets)
    with pytest.raises(ValueError, match=r"\(3, 2\) and targets \(3, 2\)"):
        metrics.classes(np.zeros((3, 2)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"target 2 of row 1 .* classes 0 to 1"):
        metrics.classes(np.zeros((3, 2)), np.array([0, 2, 1]))
    with pytest.raises(ValueError, match="target -1 of row 0"):
        metrics.classes(np.zeros((3, 2)), np.array([-1, 0, 1]))
    with pytest.raises(ValueError, match="nothing to score"):
        metrics.classes(np.zeros((0, 2)), np.zeros(0, np.int32))


def test_scores_of_each_class():
    scores = np.eye(3)[[0, 1, 1, 0, 0]]
    rows = metrics.per_class(scores, np.array([0, 1, 0, 0, 1]), ["a", "b", "c"])
    assert rows[0] == {
        "label": "a",
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
        "support": 3,
    }
    assert rows[2] == {"label": "c", "precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert type(rows[0]["support"]) is int
