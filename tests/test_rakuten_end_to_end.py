"""The full recipes on a stand-in of Rakuten's files, with full-size networks of random weights."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from jfusion import artifact, trees
from jfusion.data.builders.rakuten_archive import LABELS
from tests.full_size import jfusion, write_efficientnet, write_mobilenet_v2
from tests.standins import rakuten as standin

TOTALS = {"mobilenet_v2": 4_707_803, "efficientnet_b0": 6_491_479}
BACKBONES = {"mobilenet_v2": 2_223_872, "efficientnet_b0": 4_007_548}
STEPS = 3  # of an epoch of its 22 rows to train
# A layer and its normalisation: jfusion's paths, and the keys in the file.
LAYERS = {
    "mobilenet_v2": (
        ("layer/3/expand_1x1/convolution/kernel", "mobilenet_v2.layer.3.expand_1x1.convolution"),
        ("layer/3/expand_1x1/normalization", "mobilenet_v2.layer.3.expand_1x1.normalization"),
    ),
    "efficientnet_b0": (
        ("encoder/top_conv/kernel", "efficientnet.encoder.top_conv"),
        ("encoder/top_bn", "efficientnet.encoder.top_bn"),
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The data set, built, and the networks; it leaves nothing behind."""
    folder = tmp_path_factory.mktemp("rakuten")
    standin.write(folder / "files", products=30, size=40)
    write_mobilenet_v2(folder / "mobilenet_v2")
    write_efficientnet(folder / "efficientnet_b0")
    jfusion(folder, "prepare", "--dataset=rakuten", f"--source={folder}/files")
    yield folder
    shutil.rmtree(folder)


# A gradient of EfficientNet takes long to compile; tests/parity has it.
@pytest.mark.parametrize(("backbone", "phases"), [("mobilenet_v2", 2), ("efficientnet_b0", 1)])
def test_the_recipe_runs(folder, backbone, phases):
    run = folder / backbone / "run"
    said = jfusion(
        folder,
        "main",
        f"--config=configs/product_fusion.py:rakuten,backbone={backbone}",
        f"--workdir={run}",
        f"--config.inputs.image.encoder.weights={folder}/{backbone}",
        "--config.train.batch_size=8",
        "--config.train.phases.0.epochs=1",
        "--config.train.phases.1.epochs=1",
        f"--config.train.max_steps={phases * STEPS}",
    )
    total, frozen = TOTALS[backbone], BACKBONES[backbone]
    # The stand-in has fewer words than the 15,000 of the recipe's vocabulary.
    model = artifact.read(run / "model")
    words = model.spec["encoders"]["text"]["sizes"]["vocab_size"]
    total -= 128 * (15_001 - words)
    assert 50 < words < 1000 and trees.size(model.params) == total
    assert "phase 1: image: trains on cached features" in said
    assert f"phase 1: {total - frozen:,} of {total:,} parameters trained" in said
    assert f"phase 2: {total:,} of {total:,} parameters trained" in said

    summary = json.loads((run / "summary.json").read_text())
    rows = summary["rows"]
    assert sum(rows["train"].values()) > sum(rows["val"].values()) > 0
    assert sum(counts["missing"] for counts in rows.values()) >= 3
    assert {"macro_f1", "weighted_f1", "accuracy", "top5_accuracy"} <= set(summary["test"])
    assert set(summary["patterns"]) == {"image + text", "image", "text"}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    val = {line["step"]: line["values"] for line in lines if line["split"] == "val"}
    assert list(val) == [STEPS * (phase + 1) for phase in range(phases)]
    assert summary["val"]["macro_f1"] == max(values["macro_f1"] for values in val.values())
    first = summary["best_step"] == STEPS  # whether it is the first phase's
    assert summary["params"] == {"total": total, "trainable": total - first * frozen}
    assert (run / "confusion_code.png").is_file()
    (events,) = run.glob("events.out.*")
    assert b"test/code/confusion" in events.read_bytes()

    assert model.targets["code"]["labels"] == list(LABELS) and len(LABELS) == 27
    assert model.inputs["text"].spec()["max_tokens"] == 60
    assert model.inputs["image"].spec()["size"] == 224
    mean = [0.5] * 3 if backbone == "mobilenet_v2" else [0.485, 0.456, 0.406]
    assert model.spec["encoders"]["image"]["pixels"]["mean"] == mean
    before = load_file(folder / backbone / "model.safetensors")
    (kernel, key), (norm, norm_key) = LAYERS[backbone]
    pairs = (
        (model.params[f"encoders/image/{kernel}"], before[f"{key}.weight"][..., 0, 0].T),
        (model.stats[f"encoders/image/{norm}/mean"], before[f"{norm_key}.running_mean"]),
    )
    for after, published in pairs:
        assert after.shape == published.shape
        # Only the second phase trains the backbone.
        assert np.array_equal(after, published) == first
        assert np.abs(after - published).max() < 0.2
