"""Full recipes on a stand-in of DAIC-WOZ, with full-size networks of random weights."""

import csv
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from jfusion import artifact, trees
from jfusion.models.lora import is_adapter
from tests.full_size import jfusion, write_bert, write_distilbert
from tests.standins import daic_woz as standin

# phq8_lora is phq8_lora_norm without its normalisations, and tests/test_configs.py trains it.
TOTALS = {
    "phq8_lora_norm": (110_416_725, 1_525_077),
    "phq8_attention": (127_426_182, 127_426_182),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The corpus, prepared, and the networks; it leaves no gigabytes behind."""
    folder = tmp_path_factory.mktemp("daic_woz")
    standin.write(folder / "corpus", scored_test=True)
    write_bert(folder / "bert")
    write_distilbert(folder / "distilbert")
    jfusion(folder, "prepare", "--dataset=daic_woz", f"--source={folder}/corpus")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", TOTALS)
def test_the_recipe_runs(folder, name):
    network = "distilbert" if name == "phq8_attention" else "bert"
    run = folder / name
    said = jfusion(
        folder,
        "main",
        f"--config=configs/{name}.py:daic_woz",
        f"--workdir={run}",
        f"--config.inputs.transcript.encoder.weights={folder}/{network}",
        "--config.inputs.transcript.max_tokens=32",
        "--config.inputs.transcript.windows=2",
        "--config.train.batch_size=4",
        "--config.train.max_steps=2",
    )
    assert "of their text used" in said
    summary = json.loads((run / "summary.json").read_text())
    total, trainable = TOTALS[name]
    assert summary["params"] == {"total": total, "trainable": trainable}
    assert sum(sum(rows.values()) for rows in summary["rows"].values()) == 22
    assert summary["rows"]["train"]["missing"] >= 3
    prefix = "phq8/" if name == "phq8_attention" else ""
    assert 0 < summary["test"][f"{prefix}rmse"] < 15
    assert len(summary["patterns"]) == 7
    assert set(summary["constants"]) == {"mean", "median"}
    assert f"{prefix}ccc" in summary["intervals"]
    with open(run / "test_predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["participant"] == "451"
    assert all(row["phq8"] and row["phq8/true"] for row in rows)

    model = artifact.read(run / "model")
    assert trees.size(model.params) == total
    video = model.inputs["video"].spec()
    assert "AU12_r" in video["features"] and len(video["mean"]) == 10
    if network == "bert":
        check_adapters(folder, run, model)


def check_adapters(folder, run, model):
    """Only adapters and what is after the encoders moved, and no checkpoint holds the rest."""
    key = "bert.encoder.layer.7.attention.self.query.weight"
    before = load_file(folder / "bert" / "model.safetensors")[key].T
    layer = "encoders/transcript/encoder/layer/7/attention/self/query"
    np.testing.assert_array_equal(model.params[f"{layer}/kernel"], before)
    adapters = [path for path in model.params if is_adapter(path)]
    assert len(adapters) == 12 * 2 * 2
    assert all(np.abs(model.params[path]).max() > 0 for path in adapters)
    kept = load_file(run / "model" / "adapter-transcript" / "adapter_model.safetensors")
    assert len(kept) == len(adapters)
    # Adapters, heads, and the two moments of each; the base has 440 MB.
    size = sum(path.stat().st_size for path in (run / "checkpoints").rglob("*") if path.is_file())
    assert size < 60e6
