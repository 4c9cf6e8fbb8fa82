import io
import json
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jfusion.errors import UserError
from jfusion.training.writer import METRICS_FILE, Writer


def lines(workdir):
    return [json.loads(line) for line in (workdir / METRICS_FILE).read_text().splitlines()]


def steps(workdir):
    return [(line["step"], line["split"]) for line in lines(workdir)]


def tensorboard(workdir):
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    everything = {"scalars": 0, "images": 0, "tensors": 0}
    return module.EventAccumulator(str(workdir), size_guidance=everything).Reload()


def train(workdir, resume_step, last, checkpoint_every=3, evaluate_every=2):
    """Writes as the loop does; returns the last checkpoint's step."""
    checkpoint = resume_step
    with Writer(workdir, resume_step) as writer:
        for step in range((resume_step or 0) + 1, last + 1):
            writer.scalars(step, "train", {"loss": 1 / step, "learning_rate/text": 1e-3})
            if step % checkpoint_every == 0:
                writer.flush()
                checkpoint = step
            if step % evaluate_every == 0:
                writer.scalars(step, "val", {"macro_f1": step / 10})
    return checkpoint


def test_one_object_per_write(tmp_path):
    with Writer(tmp_path / "run") as writer:
        writer.scalars(1, "train", {"loss": jnp.float32(0.25), "epoch": 1})
        writer.scalars(np.int64(1), "val", {"macro_f1": np.float64(0.5)})
        # Nothing waits in a buffer for the end of the run.
        assert lines(tmp_path / "run") == [
            {"step": 1, "split": "train", "values": {"loss": 0.25, "epoch": 1}},
            {"step": 1, "split": "val", "values": {"macro_f1": 0.5}},
        ]


def test_scalars_on_tensorboard(tmp_path):
    train(tmp_path, None, 4)
    events = tensorboard(tmp_path)
    assert sorted(events.Tags()["scalars"]) == [
        "train/learning_rate/text",
        "train/loss",
        "val/macro_f1",
    ]
    assert [(e.step, e.value) for e in events.Scalars("val/macro_f1")] == [
        (2, pytest.approx(0.2)),
        (4, pytest.approx(0.4)),
    ]


def test_not_finite_is_null(tmp_path):
    with Writer(tmp_path) as writer:
        writer.scalars(1, "val", {"map": None, "loss": float("nan"), "rmse": np.inf, "f1": 0.5})
    text = (tmp_path / METRICS_FILE).read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert lines(tmp_path)[0]["values"] == {"map": None, "loss": None, "rmse": None, "f1": 0.5}
    assert tensorboard(tmp_path).Tags()["scalars"] == ["val/f1"]


@pytest.mark.parametrize("killed_at", [4, 5, 6, 7])
def test_a_resumed_run_records_what_an_uninterrupted_one_does(tmp_path, killed_at):
    train(tmp_path / "whole", None, 9)
    checkpoint = train(tmp_path / "resumed", None, killed_at)
    train(tmp_path / "resumed", checkpoint, 9)
    assert lines(tmp_path / "resumed") == lines(tmp_path / "whole")
    whole, resumed = tensorboard(tmp_path / "whole"), tensorboard(tmp_path / "resumed")
    for tag in ("train/loss", "val/macro_f1"):
        assert [(e.step, e.value) for e in resumed.Scalars(tag)] == [
            (e.step, e.value) for e in whole.Scalars(tag)
        ]


def test_an_evaluation_after_the_checkpoint_of_its_step_is_not_written_twice(tmp_path):
    train(tmp_path, None, 6)  # checkpoint at step 6, then the evaluation of step 6
    with Writer(tmp_path, 6) as writer:
        writer.scalars(6, "val", {"macro_f1": 0.6})
        writer.scalars(6, "val", {"seconds": 1.0})  # another write of that step is not the same
    assert steps(tmp_path)[-3:] == [(6, "train"), (6, "val"), (6, "val")]
    assert [e.step for e in tensorboard(tmp_path).Scalars("val/macro_f1")] == [2, 4, 6]


def test_a_new_run_drops_what_never_reached_a_checkpoint(tmp_path):
    train(tmp_path, None, 2)
    train(tmp_path, None, 4)
    assert steps(tmp_path)[0] == (1, "train") and len(steps(tmp_path)) == 6
    assert [e.step for e in tensorboard(tmp_path).Scalars("train/loss")] == [1, 2, 3, 4]


@pytest.mark.parametrize("left", [1, 20, 1_000])
def test_a_half_written_last_line_is_tolerated(tmp_path, left):
    train(tmp_path, None, 4)
    path = tmp_path / METRICS_FILE
    path.write_text(path.read_text() + '{"step": 3, "split": "train", "values": {"lo'[:left])
    train(tmp_path, 3, 4)
    assert steps(tmp_path) == [
        (1, "train"),
        (2, "train"),
        (2, "val"),
        (3, "train"),
        (4, "train"),
        (4, "val"),
    ]


def test_a_torn_event_file_is_tolerated(tmp_path):
    train(tmp_path, None, 3)
    (file,) = tmp_path.glob("events.out.*")
    file.write_bytes(file.read_bytes()[:-5])
    train(tmp_path, 2, 4)
    assert [e.step for e in tensorboard(tmp_path).Scalars("train/loss")] == [1, 2, 3, 4]


@pytest.mark.parametrize("damage", ["not json", "[1, 2]", '{"split": "val"}', "3"])
def test_damage_elsewhere_is_named(tmp_path, damage):
    train(tmp_path, None, 4)
    path = tmp_path / METRICS_FILE
    before = path.read_text().splitlines()
    path.write_text("\n".join([before[0], damage, *before[1:]]) + "\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl line 2 .*remove that line"):
        Writer(tmp_path, 3)
    assert damage in path.read_text(), "the file must be left as it was"


def test_other_processes_write_nothing(tmp_path):
    with Writer(tmp_path / "run", active=False) as writer:
        writer.scalars(1, "train", {"loss": 1.0})
        writer.pr_curves(1, "val", np.zeros((2, 1)), np.zeros((2, 1)), ["a"])
        writer.picture(1, "val/pictures", np.zeros((2, 2, 3), np.uint8))
        writer.table(1, "val/labels", [{"label": "a"}])
        writer.hparams({"seed": 0}, [])
        writer.flush()
    assert not (tmp_path / "run").exists()


def test_precision_recall_curves(tmp_path):
    targets = np.array([[1, 0], [1, 0], [0, 0], [0, 0]], np.float32)
    probabilities = np.array([[0.9, 0.1], [0.4, 0.2], [0.6, 0.3], [0.1, 1.0]], np.float32)
    with Writer(tmp_path) as writer:
        writer.pr_curves(5, "val", probabilities, targets, ["sci-fi", "never seen"])
    events = tensorboard(tmp_path)
    assert events.Tags()["tensors"] == ["val/pr_curve/sci-fi", "val/pr_curve/never seen"]
    (event,) = events.Tensors("val/pr_curve/sci-fi")
    tp, fp, _, _, precision, recall = np.array(event.tensor_proto.float_val).reshape(6, 127)
    assert event.step == 5
    at_half = 63  # of thresholds 0, 1/126, ..., 1
    assert (tp[at_half], fp[at_half]) == (1, 1)
    assert (precision[at_half], recall[at_half]) == (0.5, 0.5)
    assert (tp[0], fp[0]) == (2, 2)


def test_pictures(tmp_path):
    page = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    with Writer(tmp_path) as writer:
        writer.picture(7, "val/pictures", page)
    (event,) = tensorboard(tmp_path).Images("val/pictures")
    assert (event.step, event.width, event.height) == (7, 30, 20)
    np.testing.assert_array_equal(Image.open(io.BytesIO(event.encoded_image_string)), page)


def test_tables(tmp_path):
    rows = [
        {"label": "a|b", "f1": 0.12345, "ap": None, "support": 3},
        {"label": "c", "f1": 1.0, "ap": 0.5, "support": 10},
    ]
    with Writer(tmp_path) as writer:
        writer.table(7, "val/labels", rows)
    (event,) = tensorboard(tmp_path).Tensors("val/labels/text_summary")
    assert event.tensor_proto.string_val[0].decode().splitlines() == [
        "| label | f1 | ap | support |",
        "| --- | --- | --- | --- |",
        r"| a\|b | 0.123 | - | 3 |",
        "| c | 1.000 | 0.500 | 10 |",
    ]


def test_hyperparameters_belong_to_the_run_itself(tmp_path):
    proto = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
    config = {
        "train": {"phases": ({"epochs": 3}, {"epochs": 5}), "precision": "float32"},
        "targets": {"genres": {"labels": ("a", "b"), "pos_weight": True}},
        "nothing": None,
    }
    with Writer(tmp_path) as writer:
        writer.scalars(9, "test", {"macro_f1": 0.75})
        writer.hparams(config, ["test/macro_f1"])
    assert all(path.is_file() for path in tmp_path.iterdir()), "TensorBoard would show another run"
    events = tensorboard(tmp_path)
    assert [e.value for e in events.Scalars("test/macro_f1")] == [0.75]
    contents = events.PluginTagToContent("hparams")
    start = proto.HParamsPluginData.FromString(contents["_hparams_/session_start_info"])
    hparams = start.session_start_info.hparams
    assert {name: hparams[name].WhichOneof("kind") for name in hparams} == {
        "train.phases.0.epochs": "number_value",
        "train.phases.1.epochs": "number_value",
        "train.precision": "string_value",
        "targets.genres.labels": "string_value",
        "targets.genres.pos_weight": "bool_value",
    }
    assert hparams["train.phases.1.epochs"].number_value == 5
    experiment = proto.HParamsPluginData.FromString(contents["_hparams_/experiment"]).experiment
    assert [info.name.tag for info in experiment.metric_infos] == ["test/macro_f1"]


def test_neither_torch_nor_tensorflow_is_needed(tmp_path):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "sys.modules.update(torch=None, tensorflow=None, tensorboard=None)\n"
        "from jfusion.training.writer import Writer\n"
        "with Writer(Path(sys.argv[1])) as writer:\n"
        "    writer.scalars(1, 'train', {'loss': 0.5})\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=root)
    assert steps(tmp_path) == [(1, "train")]
