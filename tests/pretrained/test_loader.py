import json
import re

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from jfusion import trees
from jfusion.models.bert import DistilBert
from jfusion.pretrained import loader, networks
from jfusion.pretrained.hub import WeightsError
from jfusion.pretrained.rules import Rule
from tests.pretrained.checkpoints import CONFIG, distilbert, write, write_shards

Q_LIN = "distilbert.transformer.layer.1.attention.q_lin.weight"


@pytest.fixture(scope="module")
def targets():
    sizes = {key: value for key, value in CONFIG.items() if key != "model_type"}
    model = nnx.eval_shape(lambda: DistilBert(**sizes, rngs=nnx.Rngs(0)))
    return trees.flatten(nnx.to_pure_dict(nnx.state(model)))


def refused(folder, targets, *texts):
    """Loading fails with one error that contains all of `texts`."""
    with pytest.raises(WeightsError) as error:
        loader.load(folder, "distilbert", targets)
    for text in texts:
        assert text in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("prefix", ["", "distilbert."])
def test_a_folder_fills_every_parameter(tmp_path, targets, prefix):
    tensors = distilbert(prefix)
    loaded = loader.load(write(tmp_path, tensors), "distilbert", targets)

    assert {path: (leaf.shape, leaf.dtype) for path, leaf in loaded.items()} == {
        path: (leaf.shape, leaf.dtype) for path, leaf in targets.items()
    }
    source = f"{prefix}transformer.layer.1."
    for key, path in {
        f"{source}attention.q_lin.weight": "transformer/layer/1/attention/q_lin/kernel",
        f"{source}ffn.lin2.weight": "transformer/layer/1/ffn/lin2/kernel",
    }.items():
        np.testing.assert_array_equal(loaded[path], tensors[key].T)
    for key, path in {
        f"{prefix}embeddings.word_embeddings.weight": "embeddings/word_embeddings/embedding",
        f"{source}sa_layer_norm.weight": "transformer/layer/1/sa_layer_norm/scale",
        f"{source}attention.out_lin.bias": "transformer/layer/1/attention/out_lin/bias",
    }.items():
        np.testing.assert_array_equal(loaded[path], tensors[key])


def test_shards_are_one_checkpoint(tmp_path, targets):
    tensors = distilbert()
    whole = loader.load(write(tmp_path / "whole", tensors), "distilbert", targets)
    parts = loader.load(write_shards(tmp_path / "parts", tensors), "distilbert", targets)
    assert whole.keys() == parts.keys()
    for path in whole:
        np.testing.assert_array_equal(whole[path], parts[path])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floating_types_are_converted(tmp_path, targets, dtype):
    tensors = {key: value.astype(dtype) for key, value in distilbert().items()}
    loaded = loader.load(write(tmp_path, tensors), "distilbert", targets)
    kernel = loaded["transformer/layer/1/attention/q_lin/kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, tensors[Q_LIN].T.astype(np.float32))


def test_the_targets_type_is_kept(tmp_path, targets):
    half = {path: jax.ShapeDtypeStruct(t.shape, ml_dtypes.bfloat16) for path, t in targets.items()}
    loaded = loader.load(write(tmp_path, distilbert()), "distilbert", half)
    assert {leaf.dtype for leaf in loaded.values()} == {np.dtype(ml_dtypes.bfloat16)}


def test_heads_are_left_out_on_purpose(tmp_path, targets):
    tensors = distilbert()
    tensors["vocab_transform.weight"] = np.zeros((8, 8), np.float32)
    tensors["pre_classifier.bias"] = np.zeros(8, np.float32)
    assert loader.load(write(tmp_path, tensors), "distilbert", targets).keys() == targets.keys()


def test_a_tensor_that_no_rule_knows(tmp_path, targets):
    tensors = {**distilbert(), "distilbert.adapter.weight": np.zeros(3, np.float32)}
    message = refused(write(tmp_path, tensors), targets, "no rule knows (1)", str(tmp_path))
    assert "distilbert.adapter.weight" in message


def test_a_parameter_that_nothing_fills(tmp_path, targets):
    tensors = distilbert()
    del tensors[Q_LIN]
    message = refused(write(tmp_path, tensors), targets, "nothing fills (1)")
    assert "transformer/layer/1/attention/q_lin/kernel" in message


def test_a_tensor_for_a_parameter_that_the_network_has_not(tmp_path, targets):
    tensors = distilbert()
    tensors["distilbert.transformer.layer.2.ffn.lin1.bias"] = np.zeros(12, np.float32)
    refused(
        write(tmp_path, tensors),
        targets,
        "the network has not (1)",
        "distilbert.transformer.layer.2.ffn.lin1.bias (transformer/layer/2/ffn/lin1/bias)",
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.zeros((8, 9), np.float32), "shape (9, 8) instead of (8, 8)"),
        (np.zeros(8, np.float32), "shape (8,) instead of (8, 8)"),
        (np.zeros((8, 8, 3, 3), np.float32), "shape (8, 8, 3, 3) is of another kind of layer"),
        (np.zeros((8, 8), np.int8), "int8 instead of floating point"),
        (np.zeros((8, 8), bool), "bool instead of floating point"),
    ],
    ids=["size", "vector", "convolution", "quantised", "bool"],
)
def test_a_tensor_of_the_wrong_shape_or_type(tmp_path, targets, value, reason):
    folder = write(tmp_path, {**distilbert(), Q_LIN: value})
    refused(folder, targets, "wrong shape or type (1)", f"{Q_LIN} for", reason)


def test_two_tensors_for_one_parameter(tmp_path, targets):
    tensors = distilbert()
    twice = Q_LIN.removeprefix("distilbert.")
    tensors[twice] = tensors[Q_LIN]
    message = refused(write(tmp_path, tensors), targets, "two tensors for one parameter (1)")
    assert Q_LIN in message and f" {twice}" in message


def test_two_rules_for_one_tensor(tmp_path, targets, monkeypatch):
    rules = [*loader.TABLES["distilbert"], Rule(re.escape(Q_LIN), None)]
    monkeypatch.setitem(loader.TABLES, "distilbert", rules)
    refused(write(tmp_path, distilbert()), targets, "several rules claim (1)", Q_LIN)


def test_all_failures_come_at_once(tmp_path, targets):
    tensors = distilbert()
    del tensors["distilbert.embeddings.LayerNorm.bias"]
    tensors["surprise"] = np.zeros(1, np.float32)
    tensors[Q_LIN] = np.zeros((8, 9), np.float32)
    refused(
        write(tmp_path, tensors), targets, "surprise", "embeddings/LayerNorm/bias", "(9, 8)", Q_LIN
    )


def test_a_long_list_is_cut_and_counted(tmp_path, targets):
    tensors = distilbert() | {f"extra.{i:02}": np.zeros(1, np.float32) for i in range(30)}
    message = refused(write(tmp_path, tensors), targets, "no rule knows (30)", "and 10 more")
    assert "extra.19" in message and "extra.20" not in message


def test_the_weights_of_another_network(tmp_path, targets):
    tensors = {"bert.encoder.layer.0.output.dense.weight": np.zeros((8, 12), np.float32)}
    refused(write(tmp_path, tensors), targets, "no rule knows (1)", f"fills ({len(targets)})")


def test_pickles_are_not_read(tmp_path, targets):
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    refused(tmp_path, targets, "pytorch_model.bin but no model.safetensors", "save_pretrained")


def test_an_empty_folder(tmp_path, targets):
    refused(tmp_path, targets, f"{tmp_path} holds no model.safetensors")


@pytest.mark.parametrize("keep", [0, 7, 100, 2000])
def test_a_damaged_file_is_named(tmp_path, targets, keep):
    file = write(tmp_path, distilbert()) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refused(tmp_path, targets, f"{file} is no readable safetensors file")


def test_a_missing_shard_is_named(tmp_path, targets):
    write_shards(tmp_path, distilbert())
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    refused(tmp_path, targets, "lacks model-00002-of-00002.safetensors")


@pytest.mark.parametrize(
    "index", ["not json", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}']
)
def test_a_damaged_index_is_named(tmp_path, targets, index):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    refused(tmp_path, targets, "model.safetensors.index.json is no index")


def test_an_index_cannot_lead_out_of_its_folder(tmp_path, targets):
    write(tmp_path / "other", distilbert())
    folder = tmp_path / "folder"
    folder.mkdir()
    index = {"weight_map": {Q_LIN: "../other/model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, targets, f"{folder} lacks model.safetensors")


def test_layer_norm_alone_has_two_spellings(tmp_path):
    # A timm ConvNeXt has a `gamma` that is a layer scale and no LayerNorm's weight.
    gamma = np.arange(4, dtype=np.float32)
    target = "encoder/stages/0/layers/1/layer_scale_parameter"
    folder = write(tmp_path, {"stages.0.blocks.1.gamma": gamma})
    wanted = {target: jax.ShapeDtypeStruct((4,), np.float32)}
    np.testing.assert_array_equal(loader.load(folder, "convnext", wanted)[target], gamma)


def test_every_network_has_a_table_but_those_without_published_weights():
    own = {"mean_pool", "temporal_cnn", "frame_transformer", "text_cnn", "tabular"}
    assert loader.TABLES.keys() == networks.DEFAULTS.keys() - own
