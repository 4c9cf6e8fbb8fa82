import json
import shutil

import numpy as np
import pytest

from jfusion import artifact
from jfusion.data.image import ImageInput
from jfusion.data.text import TextInput, Vocabulary


@pytest.fixture
def model():
    words = Vocabulary.fit(["a tall ship", "a small boat"], 20)
    return artifact.Artifact(
        spec={"encoders": {}, "heads": {"genres": 2}},
        inputs={
            "plot": TextInput("plot", words, max_tokens=8),
            "poster": ImageInput("poster", size=16, crop=0.875),
        },
        targets={"genres": {"kind": "multilabel", "labels": ["Drama", "War"], "threshold": 0.5}},
        precision="float32",
        batch_size=4,
        origin={"config": "x", "seed": 0, "data": {}, "versions": artifact.versions()},
        params={"heads/genres/kernel": np.arange(6, dtype=np.float32).reshape(3, 2)},
        stats={"encoders/poster/bn/mean": np.ones(3, np.float32)},
    )


def test_round_trip_elsewhere(model, tmp_path):
    artifact.write(tmp_path / "run" / "model", model)
    shutil.copytree(tmp_path / "run" / "model", tmp_path / "copy")
    shutil.rmtree(tmp_path / "run")
    back = artifact.read(tmp_path / "copy")
    assert (back.spec, back.targets, back.origin) == (model.spec, model.targets, model.origin)
    assert (back.precision, back.batch_size) == ("float32", 4)
    for ours, theirs in ((back.params, model.params), (back.stats, model.stats)):
        assert ours.keys() == theirs.keys()
        for path, leaf in theirs.items():
            np.testing.assert_array_equal(ours[path], leaf)
    assert {n: r.spec() for n, r in back.inputs.items()} == {
        n: r.spec() for n, r in model.inputs.items()
    }
    text = ["a small ship"]
    np.testing.assert_array_equal(
        back.inputs["plot"].encode(text).arrays["ids"],
        model.inputs["plot"].encode(text).arrays["ids"],
    )


def test_nothing_in_it_is_a_pickle_and_all_can_read_it(model, tmp_path):
    artifact.write(tmp_path / "model", model)
    names = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert names == ["model.json", "tokenizer-plot.json", "weights.safetensors"]
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (tmp_path / "model").iterdir())


def test_writing_again_replaces(model, tmp_path):
    artifact.write(tmp_path / "model", model)
    (tmp_path / "model" / "stray").write_text("old")
    (tmp_path / ".model-killed").mkdir()
    artifact.write(tmp_path / "model", model)
    assert not (tmp_path / "model" / "stray").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["weights.safetensors", "tokenizer-plot.json"])
def test_a_changed_or_missing_file_is_named(model, tmp_path, name):
    artifact.write(tmp_path / "model", model)
    path = tmp_path / "model" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(artifact.ArtifactError, match=rf"{name} is not the file"):
        artifact.read(tmp_path / "model")
    path.unlink()
    with pytest.raises(artifact.ArtifactError, match=rf"{name} is missing"):
        artifact.read(tmp_path / "model")


def test_not_a_model_folder(model, tmp_path):
    with pytest.raises(artifact.ArtifactError, match=r"RUN/model"):
        artifact.read(tmp_path)
    artifact.write(tmp_path / "model", model)
    description = tmp_path / "model" / "model.json"
    newer = json.loads(description.read_text()) | {"format": 99}
    description.write_text(json.dumps(newer))
    with pytest.raises(artifact.ArtifactError, match="format 99"):
        artifact.read(tmp_path / "model")
    description.write_text("{")
    with pytest.raises(artifact.ArtifactError, match="damaged"):
        artifact.read(tmp_path / "model")
