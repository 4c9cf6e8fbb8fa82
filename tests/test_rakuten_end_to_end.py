"""The full recipe on a stand-in of Rakuten's files, with a full-size network of random weights."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from jfusion import artifact, trees
from jfusion.data.builders.rakuten_archive import LABELS
from tests.full_size import jfusion, write_mobilenet_v2
from tests.standins import rakuten as standin

TOTAL, BACKBONE = 4_707_803, 2_223_872
STEPS = 3  # of an epoch of its 22 rows to train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The data set, built, and the network; it leaves nothing behind."""
    folder = tmp_path_factory.mktemp("rakuten")
    standin.write(folder / "files", products=30, size=40)
    write_mobilenet_v2(folder / "mobilenet_v2")
    jfusion(folder, "prepare", "--dataset=rakuten", f"--source={folder}/files")
    yield folder
    shutil.rmtree(folder)


def test_the_recipe_runs(folder):
    run = folder / "run"
    said = jfusion(
        folder,
        "main",
        "--config=configs/product_fusion.py:rakuten",
        f"--workdir={run}",
        f"--config.inputs.image.encoder.weights={folder}/mobilenet_v2",
        "--config.train.batch_size=8",
        "--config.train.phases.0.epochs=1",
        "--config.train.phases.1.epochs=1",
        f"--config.train.max_steps={2 * STEPS}",
    )
    # The stand-in has fewer words than the 15,000 of the recipe's vocabulary.
    model = artifact.read(run / "model")
    words = model.spec["encoders"]["text"]["sizes"]["vocab_size"]
    total = TOTAL - 128 * (15_001 - words)
    assert 50 < words < 1000 and trees.size(model.params) == total
    assert "phase 1: image: trains on cached features" in said
    assert f"phase 1: {total - BACKBONE:,} of {total:,} parameters trained" in said
    assert f"phase 2: {total:,} of {total:,} parameters trained" in said

    summary = json.loads((run / "summary.json").read_text())
    rows = summary["rows"]
    assert sum(rows["train"].values()) > sum(rows["val"].values()) > 0
    assert sum(counts["missing"] for counts in rows.values()) >= 3
    assert {"macro_f1", "weighted_f1", "accuracy", "top5_accuracy"} <= set(summary["test"])
    assert set(summary["patterns"]) == {"image + text", "image", "text"}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    val = {line["step"]: line["values"] for line in lines if line["split"] == "val"}
    assert list(val) == [STEPS * (phase) for phase in (1, 2)]
    assert summary["val"]["macro_f1"] == max(values["macro_f1"] for values in val.values())
    first = summary["best_step"] == STEPS  # whether it is the first phase's
    assert summary["params"] == {"total": total, "trainable": total - first * BACKBONE}
    assert (run / "confusion_code.png").is_file()
    (events,) = run.glob("events.out.*")
    assert b"test/code/confusion" in events.read_bytes()

    assert model.targets["code"]["labels"] == list(LABELS) and len(LABELS) == 27
    assert model.inputs["text"].spec()["max_tokens"] == 60
    assert model.inputs["image"].spec()["size"] == 224
    assert model.spec["encoders"]["image"]["pixels"]["mean"] == [0.5] * 3
    before = load_file(folder / "mobilenet_v2" / "model.safetensors")
    ours, published = "encoders/image/layer/3/expand_1x1", "mobilenet_v2.layer.3.expand_1x1"
    pairs = (
        (
            model.params[f"{ours}/convolution/kernel"],
            before[f"{published}.convolution.weight"][..., 0, 0].T,
        ),
        (
            model.stats[f"{ours}/normalization/mean"],
            before[f"{published}.normalization.running_mean"],
        ),
    )
    for after, start in pairs:
        assert after.shape == start.shape
        # Only the second phase trains the backbone.
        assert np.array_equal(after, start) == first
        assert np.abs(after - start).max() < 0.2
