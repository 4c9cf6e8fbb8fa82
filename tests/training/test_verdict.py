import numpy as np
import pytest

from jfusion.config import Classes, Regression
from jfusion.training import losses, regression, tables, verdict
from jfusion.training.evaluation import Outputs

SECTIONS = {
    "phq8": Regression(column="phq8", cut=(10.0,), coverage=0.8),
    "low": Classes(column="phq8", cut=(10.0,), weight=0.5),
}
LOSSES = {name: losses.build(section) for name, section in SECTIONS.items()}
STATISTICS = {"phq8": {"mean": 7.0, "median": 6.0, "spread": 5.0}, "low": {}}
TRUTH = np.array([3.0, 12.0, 0.0, 20.0, 9.0, 10.0, 5.0])
TARGETS = {"phq8": TRUTH[:, None].astype(np.float32), "low": (TRUTH >= 10).astype(np.int32)}
ROWS = {("audio", "text"): [0, 1, 3, 4, 5, 6], ("audio",): [0, 1, 3], ("text",): []}
ASKED = []


def outputs_of(modalities):
    """A model whose error is the number of modalities that it is not given, plus one."""
    chosen = ("audio", "text") if modalities is None else tuple(modalities)
    ASKED.append(chosen)
    rows = np.array(ROWS[chosen], np.int64)
    off = 3.0 - len(chosen)
    heads = {
        "phq8": (TRUTH[rows] + off * (-1) ** rows)[:, None].astype(np.float32),
        "low": np.stack([TRUTH[rows] < 10, TRUTH[rows] >= 10], axis=1).astype(np.float32),
    }
    each = {"phq8": np.full(len(rows), off**2), "low": np.full(len(rows), 0.3)}
    return Outputs(rows, heads, each, {})


def judge(**changes):
    given = {"radii": {"phq8": 0.5}, "owners": None} | changes
    return verdict.judge(
        outputs_of, ["text", "audio"], TARGETS, SECTIONS, LOSSES, STATISTICS, **given
    )


def test_scores_and_every_choice_of_modalities():
    ASKED.clear()
    judged, outputs = judge()
    assert judged.scores["phq8/rmse"] == pytest.approx(1)
    assert judged.scores["loss"] == pytest.approx(1 + 0.5 * 0.3)
    assert len(outputs.rows) == 6
    assert list(judged.patterns) == ["audio + text", "audio", "text"]
    assert judged.patterns["audio + text"] == {"rows": 6, **judged.scores}
    assert judged.patterns["audio"]["rows"] == 3
    assert judged.patterns["audio"]["phq8/rmse"] == pytest.approx(2)
    assert judged.patterns["text"] == {"rows": 0}, "no row has it: there is nothing to score"
    assert ASKED == [("audio", "text"), ("audio",), ("text",)], "nothing is run twice"


def test_a_single_modality_has_no_choices():
    judged, _ = verdict.judge(
        lambda chosen: outputs_of(("audio",)),
        ["audio"],
        *(TARGETS, SECTIONS, LOSSES, STATISTICS, {}),
    )
    assert judged.patterns == {}
    assert judged.coverage == {}, "no radius is known"


def test_constants_are_those_of_the_training_split():
    judged, _ = judge()
    truth = TRUTH[ROWS["audio", "text"]]
    for name, constant in (("mean", 7.0), ("median", 6.0)):
        expected = regression.scores(np.full(6, constant), truth, 10.0)
        assert judged.constants[name] == {f"phq8/{k}": x for k, x in expected.items()}
    assert set(judged.intervals) == set(judged.constants["mean"]), "of numbers, not of classes"


def test_coverage_of_the_interval():
    assert judge()[0].coverage["phq8"] == {"radius": 0.5, "wanted": 0.8, "measured": 0.0}
    assert judge(radii={"phq8": 1.01})[0].coverage["phq8"]["measured"] == 1.0
    assert judge(radii={"phq8": None})[0].coverage == {}


def test_intervals_draw_all_rows_of_one_person_together():
    alone, together = judge()[0], judge(owners=list("aabbccd"))[0]
    assert alone.intervals["phq8/ccc"] != together.intervals["phq8/ccc"]
    low, high = alone.intervals["phq8/rmse"]
    assert low == pytest.approx(1, abs=1e-6) and high == pytest.approx(1, abs=1e-6)


def test_radii_cover_the_share_of_validation_rows():
    off = np.array([1.0, -2.0, 3.0, -4.0])
    outputs = Outputs(np.array([0, 1, 3, 4]), {}, {}, {})
    outputs.heads["phq8"] = (TRUTH[outputs.rows] + off)[:, None]
    outputs.heads["low"] = np.zeros((4, 2))
    assert verdict.radii(SECTIONS, outputs, TARGETS) == {"phq8": pytest.approx(4)}
    few = {"phq8": Regression(column="phq8", coverage=0.95)}
    assert verdict.radii(few, outputs, TARGETS) == {"phq8": None}


def test_the_tables_say_it_all():
    shown = tables.of_verdict(judge()[0])
    constants, coverage, modalities = shown.values()
    assert [row["metric"] for row in constants][:2] == ["phq8/rmse", "phq8/mae"]
    assert constants[0]["model"] == pytest.approx(1)
    assert constants[0]["always the mean"] > 5
    assert coverage == [{"target": "phq8", "radius": 0.5, "wanted": 0.8, "measured": 0.0}]
    assert [row["given"] for row in modalities] == ["audio + text", "audio", "text"]
    assert modalities[2]["phq8/rmse"] is None
    assert not any(name.endswith("loss") for name in modalities[0])
