"""The full recipe on a stand-in of MM-IMDb, with full-size networks of random weights."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from jfusion import artifact, trees
from tests.full_size import jfusion, write_convnext, write_distilbert
from tests.standins import mm_imdb as standin


@pytest.fixture
def folder(tmp_path):
    """A folder that leaves no gigabytes behind."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def expected_rows(archive, ids):
    """What becomes of the rows of each split, by the oddities that concern it."""
    no_plot = {ids[name] for name in ("empty_plot", "no_plots", "no_plot_key")}
    no_poster = {ids[name] for name in ("no_poster", "empty_poster")}
    rows = {}
    for name, members in json.loads((archive / "split.json").read_text()).items():
        missing = len((no_plot | no_poster) & set(members))
        skipped = int(ids["wordless"] in members)  # neither plot nor poster
        counts = {"ok": len(members) - missing - skipped, "missing": missing, "skipped": skipped}
        rows["val" if name == "dev" else name] = counts
    return rows


def test_the_recipe_runs(folder):
    ids = standin.write(folder / "mmimdb", movies=30)
    write_distilbert(folder / "distilbert")
    write_convnext(folder / "convnext")
    jfusion(folder, "prepare", "--dataset=mm_imdb", f"--source={folder}/mmimdb")
    said = jfusion(
        folder,
        "main",
        "--config=configs/genre_fusion.py:mm_imdb",
        f"--workdir={folder}/run",
        f"--config.inputs.plot.encoder.weights={folder}/distilbert",
        f"--config.inputs.poster.encoder.weights={folder}/convnext",
        "--config.train.batch_size=4",
        "--config.train.accumulate=2",
        "--config.train.max_steps=2",
    )
    assert f"(id {ids['wordless']})" in said and "plot: 1 of 3 rows cut to 256 tokens" in said

    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert summary["config"] == "genre_fusion:mm_imdb"
    assert summary["best_step"] == 2
    assert summary["params"] == {"total": 94_983_287, "trainable": 94_983_287}
    assert summary["rows"] == expected_rows(folder / "mmimdb", ids)
    assert sum(split["missing"] for split in summary["rows"].values()) == 5
    for split in ("val", "test"):
        assert 0 < summary[split]["loss"] < 2
    written = {path.name for path in (folder / "run").iterdir()}
    assert written >= {"config.json", "metrics.jsonl", "summary.json", "checkpoints", "model"}

    model = artifact.read(folder / "run" / "model")
    assert model.precision == "bfloat16"
    assert trees.size(model.params) == 94_983_287
    assert model.spec["encoders"]["poster"]["sizes"]["drop_path_rate"] == 0.1
    assert model.spec["encoders"]["plot"]["sizes"]["vocab_size"] == 30_522
    assert model.inputs["plot"].spec()["max_tokens"] == 256
    # Two small steps away from the checkpoints, which are stored as [out, in].
    for path, file, key in (
        (
            "plot/transformer/layer/5/ffn/lin1",
            "distilbert",
            "distilbert.transformer.layer.5.ffn.lin1",
        ),
        (
            "poster/encoder/stages/3/layers/2/pwconv1",
            "convnext",
            "convnext.encoder.stages.3.layers.2.pwconv1",
        ),
    ):
        before = load_file(folder / file / "model.safetensors")[f"{key}.weight"].T
        after = model.params[f"encoders/{path}/kernel"]
        assert 0 < np.abs(after - before).max() < 1e-3, path
