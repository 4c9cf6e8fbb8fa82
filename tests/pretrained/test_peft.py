import json

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jfusion.pretrained import peft
from jfusion.pretrained.hub import WeightsError

RANK, ALPHA = 2, 6.0
QUERY = "encoder/layer/0/attention/self/query"
SHAPES = {
    f"{QUERY}/lora_a": (8, RANK),
    f"{QUERY}/lora_b": (RANK, 8),
    "encoder/layer/1/output/dense/lora_a": (12, RANK),
    "encoder/layer/1/output/dense/lora_b": (RANK, 8),
}
A_KEY = "base_model.model.encoder.layer.0.attention.self.query.lora_A.weight"


@pytest.fixture
def targets():
    return {path: jax.ShapeDtypeStruct(shape, np.float32) for path, shape in SHAPES.items()}


@pytest.fixture
def params():
    rng = np.random.default_rng(0)
    return {path: rng.normal(size=shape).astype(np.float32) for path, shape in SHAPES.items()}


@pytest.fixture
def folder(tmp_path, params):
    """A folder as PEFT writes it."""
    peft.save(tmp_path / "adapter", params, alpha=ALPHA, dropout=0.1)
    return tmp_path / "adapter"


def change_config(folder, **values):
    file = folder / peft.CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def change_tensors(folder, change):
    file = folder / peft.WEIGHTS
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def refused(folder, targets, *texts, alpha=ALPHA):
    """Loading fails with one error that contains all of `texts`."""
    with pytest.raises(WeightsError) as error:
        peft.load(folder, targets, alpha=alpha)
    for text in texts:
        assert text in str(error.value)
    return str(error.value)


def test_what_is_saved_is_loaded(folder, params, targets):
    loaded = peft.load(folder, targets, alpha=ALPHA)
    assert loaded.keys() == params.keys()
    for path, leaf in params.items():
        np.testing.assert_array_equal(loaded[path], leaf, err_msg=path)
        assert loaded[path].dtype == np.float32
    assert peft.describe(folder) == peft.Adapter(rank=RANK, alpha=ALPHA, dropout=0.1)


def test_the_layout_is_pefts(folder, params):
    tensors = load_file(folder / "adapter_model.safetensors")
    assert tensors.keys() == {
        f"base_model.model.{layer}.lora_{name}.weight"
        for layer in ("encoder.layer.0.attention.self.query", "encoder.layer.1.output.dense")
        for name in "AB"
    }
    np.testing.assert_array_equal(tensors[A_KEY], params[f"{QUERY}/lora_a"].T)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", RANK, ALPHA)
    assert config["target_modules"] == [
        "encoder.layer.0.attention.self.query",
        "encoder.layer.1.output.dense",
    ]


def test_adapters_alone_are_saved(tmp_path, params):
    others = {f"{QUERY}/kernel": np.zeros((8, 8)), "layernorm/scale": np.ones(8)}
    peft.save(tmp_path, {**params, **others}, alpha=ALPHA, dropout=0.0, base="some/network")
    assert len(load_file(tmp_path / peft.WEIGHTS)) == len(params)
    assert json.loads((tmp_path / peft.CONFIG).read_text())["base_model_name_or_path"] == (
        "some/network"
    )


def test_a_folder_has_one_rank(tmp_path, params):
    params[f"{QUERY}/lora_a"] = np.zeros((8, 3))
    with pytest.raises(ValueError, match=r"one rank can be saved, not of \[2, 3\]"):
        peft.save(tmp_path, params, alpha=ALPHA, dropout=0.0)
    with pytest.raises(ValueError, match="not of none"):
        peft.save(tmp_path, {"layernorm/scale": np.ones(8)}, alpha=ALPHA, dropout=0.0)


@pytest.mark.parametrize("network", ["bert", "distilbert", "convnext"])
def test_a_network_with_a_head_names_itself_first(folder, params, targets, network):
    def rename(tensors):
        for key in list(tensors):
            prefixed = key.replace("base_model.model.", f"base_model.model.{network}.")
            tensors[prefixed] = tensors.pop(key)

    change_tensors(folder, rename)
    loaded = peft.load(folder, targets, alpha=ALPHA)
    np.testing.assert_array_equal(loaded[f"{QUERY}/lora_b"], params[f"{QUERY}/lora_b"])


def test_other_floating_types_are_converted(folder, params, targets):
    def halve(tensors):
        tensors.update({key: x.astype(ml_dtypes.bfloat16) for key, x in tensors.items()})

    change_tensors(folder, halve)
    loaded = peft.load(folder, targets, alpha=ALPHA)
    assert {leaf.dtype for leaf in loaded.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(loaded[f"{QUERY}/lora_a"], params[f"{QUERY}/lora_a"], rtol=0.01)


def test_all_failures_come_at_once(folder, targets):
    def damage(tensors):
        tensors["base_model.model.classifier.weight"] = np.zeros((2, 8), np.float32)
        tensors["base_model.model.encoder.layer.7.output.dense.lora_A.weight"] = np.zeros((2, 8))
        tensors[A_KEY] = np.zeros((RANK, 9), np.float32)
        twice = "base_model.model.bert.encoder.layer.1.output.dense.lora_A.weight"
        tensors[twice] = np.zeros((RANK, 12))
        tensors[A_KEY.replace("lora_A", "lora_B")] = np.zeros((8, RANK), np.int8)
        del tensors["base_model.model.encoder.layer.1.output.dense.lora_B.weight"]

    change_tensors(folder, damage)
    message = refused(
        folder,
        targets,
        f"{folder} does not fit the model's adapters",
        "base_model.model.classifier.weight: the model has no such adapter",
        "layer.7.output.dense.lora_A.weight: the model has no such adapter",
        f"{A_KEY}: shape (2, 9) instead of (2, 8)",
        "is the same adapter",
        "query.lora_B.weight: int8 instead of floating point",
        "encoder/layer/1/output/dense/lora_b: nothing fills it",
        "lora_alpha is 6, but the model's alpha is 16",
        alpha=16.0,
    )
    assert len(message.splitlines()) == 8


def test_another_rank_is_named(folder, targets):
    wider = {
        path: jax.ShapeDtypeStruct(tuple(4 if n == RANK else n for n in leaf.shape), leaf.dtype)
        for path, leaf in targets.items()
    }
    refused(folder, wider, "r is 2, but the model's rank is 4")


def test_a_long_list_is_cut_and_counted(folder, targets):
    def add(tensors):
        tensors.update({f"extra.{i:02}": np.zeros(1, np.float32) for i in range(30)})

    change_tensors(folder, add)
    message = refused(folder, targets, "extra.19", "... and 10 more")
    assert "extra.20" not in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "LOHA"),
        ("bias", "all"),
        ("use_dora", True),
        ("use_rslora", True),
        ("rank_pattern", {"query": 4}),
        ("alpha_pattern", {"query": 4}),
        ("modules_to_save", ["classifier"]),
        ("fan_in_fan_out", True),
        ("init_lora_weights", "pissa"),
        ("lora_bias", True),
        ("something_yet_to_come", True),
    ],
)
def test_other_kinds_of_adapters_are_refused_by_name(folder, targets, key, value):
    change_config(folder, **{key: value})
    refused(folder, targets, peft.CONFIG, f"{key}={value!r}")


def test_all_that_is_refused_is_named_at_once(folder, targets):
    change_config(folder, use_dora=True, bias="all", megatron_core="x", inference_mode=True)
    message = refused(folder, targets, "use_dora=True", "bias='all'")
    assert "megatron_core" not in message and "inference_mode" not in message


@pytest.mark.parametrize(
    ("key", "value"),
    [("r", 0), ("r", "8"), ("r", 2.0), ("lora_alpha", None), ("lora_dropout", "x")],
)
def test_numbers_that_are_none_are_refused(folder, targets, key, value):
    change_config(folder, **{key: value})
    refused(folder, targets, f"{key} is {value!r}")


@pytest.mark.parametrize(
    ("content", "reason"), [("not json", "is not JSON"), ("[]", "holds list, expected an object")]
)
def test_a_damaged_config_is_named(folder, targets, content, reason):
    (folder / peft.CONFIG).write_text(content)
    refused(folder, targets, f"{folder / peft.CONFIG} {reason}")


def test_missing_files_are_named(folder, targets):
    (folder / peft.WEIGHTS).unlink()
    refused(folder, targets, f"{folder} holds no adapter_model.safetensors")
    (folder / "adapter_model.bin").write_bytes(b"cos\nsystem\n")
    refused(folder, targets, "adapter_model.bin is a pickle")
    (folder / peft.CONFIG).unlink()
    refused(folder, targets, f"{folder} holds no adapter_config.json")


@pytest.mark.parametrize("keep", [0, 7, 100])
def test_damaged_weights_are_named(folder, targets, keep):
    file = folder / peft.WEIGHTS
    file.write_bytes(file.read_bytes()[:keep])
    refused(folder, targets, f"{file} is no readable safetensors file")
