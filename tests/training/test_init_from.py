"""Encoders that come from earlier runs."""

import copy
import json
import shutil

import jax
import numpy as np
import pytest

from jfusion import artifact, config_file
from jfusion.config import ConfigError
from jfusion.training import loop, run
from tests import buckets
from tests.training import runs


@pytest.fixture(scope="module", autouse=True)
def compiled_programs(tmp_path_factory):
    """Compiled programs are kept between the runs of this module, as `main` keeps them."""
    with runs.compiled_programs(tmp_path_factory.mktemp("xla")):
        yield


def a_config(*inputs, data=None, **changes):
    """A config with some of the inputs; `inputs__title__column` changes that key of it."""
    values = copy.deepcopy(runs.PRODUCTS_CONFIG)
    values["inputs"] = {name: values["inputs"][name] for name in inputs}
    values["data"] |= data or {}
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = values
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = value
    return config_file.resolve(values)


def joined(folder, *inputs, **changes):
    """Both encoders from earlier runs, over other rows."""
    found = {"title": folder / "title" / "model", "picture": folder / "picture" / "model"}
    for name in inputs or found:
        changes.setdefault(f"inputs__{name}__encoder__init_from", str(found[name]))
    return a_config("picture", "title", data={"rows": 80}, **changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of the title alone, and one of the picture alone."""
    folder = tmp_path_factory.mktemp("trained")
    for name in ("title", "picture"):
        loop.train(a_config(name, fusion__norm="none"), folder / name)
    return folder


def test_the_joined_model_begins_with_what_the_earlier_runs_learnt(trained):
    prepared = run.prepare(joined(trained))
    state = jax.device_get(prepared.first_state())
    leaves = {**state.params, **state.frozen, **state.stats}
    taken = set()
    for name in ("title", "picture"):
        kept = artifact.read(trained / name / "model")
        for path, leaf in {**kept.params, **kept.stats}.items():
            if path.startswith((f"encoders/{name}/", f"dense/{name}/")):
                np.testing.assert_array_equal(leaves[path], leaf, err_msg=path)
                taken.add(path)
        assert prepared.network.spec["encoders"][name] == kept.spec["encoders"][name]
    new = leaves.keys() - taken
    assert {path.split("/")[0] for path in new} == {"fusion", "heads"}
    assert {p for p in taken if p in state.stats} == {
        *(f"dense/picture/norm/{x}" for x in ("mean", "var")),
        *(p for p in prepared.network.stats if p.startswith("encoders/title/")),
    }
    assert not np.array_equal(leaves["dense/picture/norm/mean"], np.zeros(8)), "it was trained"


def test_vocabulary_and_pictures_are_read_as_they_were_there(trained):
    prepared = run.prepare(joined(trained))
    for name in ("title", "picture"):
        kept = artifact.read(trained / name / "model").inputs[name]
        assert prepared.dataset.inputs[name].spec() == kept.spec()
    own = run.prepare(joined(trained, "picture")).dataset.inputs["title"]
    assert own.spec() != prepared.dataset.inputs["title"].spec(), "other rows have other words"


def test_models_in_a_bucket_are_the_same(trained, url, tmp_path):
    buckets.fill(url, trained)
    names = {f"inputs__{x}__encoder__init_from": f"{url}/{x}/model" for x in ("title", "picture")}
    here, there = joined(trained), joined(trained, data__cache_dir=str(tmp_path), **names)
    one, other = (jax.device_get(run.prepare(config).first_state()) for config in (here, there))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_joined_run_leaves_a_model_of_its_own(trained, tmp_path):
    for name in ("title", "picture"):
        shutil.copytree(trained / name / "model", tmp_path / name / "model")
    loop.train(joined(tmp_path, train__max_steps=2), tmp_path / "run")
    shutil.rmtree(tmp_path / "title")
    shutil.rmtree(tmp_path / "picture")
    kept = artifact.read(tmp_path / "run" / "model")
    assert set(kept.inputs) == {"title", "picture"}
    assert (tmp_path / "run" / "model" / "tokenizer-title.json").is_file()


def test_a_modality_may_have_another_name_and_column(trained):
    values = copy.deepcopy(runs.PRODUCTS_CONFIG)
    text = values["inputs"]["title"] | {"column": "condition"}
    text["encoder"] = text["encoder"] | {"init_from": f"{trained / 'title' / 'model'}:title"}
    values["inputs"] = {"words": text}
    prepared = run.prepare(config_file.resolve(values))
    kept = artifact.read(trained / "title" / "model")
    reader = prepared.dataset.inputs["words"]
    assert reader.spec() == kept.inputs["title"].spec() | {"column": "condition"}
    state = jax.device_get(prepared.first_state())
    mine = {p.removeprefix("encoders/words/"): x for p, x in state.params.items() if "words/" in p}
    for path, leaf in kept.params.items():
        if path.startswith("encoders/title/"):
            np.testing.assert_array_equal(mine[path.removeprefix("encoders/title/")], leaf)


def test_rates_are_the_configs(trained):
    config = joined(
        trained,
        inputs__title__encoder__sizes={"dropout": 0.7},
        inputs__title__encoder__eval_when_frozen=True,
        inputs__picture__encoder__dense_dropout=0.6,
        inputs__picture__flip=0.0,
    )
    encoders = run.prepare(config).network.spec["encoders"]
    assert encoders["title"]["sizes"]["dropout"] == 0.7
    assert encoders["title"]["sizes"]["width"] == 8
    assert encoders["title"]["eval_when_frozen"] and "eval_when_frozen" not in encoders["picture"]
    assert encoders["picture"]["dense"] == {"out_features": 8, "dropout": 0.6}
    assert encoders["picture"]["pixels"]["flip"] == 0.0


def test_adapters_may_be_added(trained):
    config = joined(trained, inputs__picture__encoder__lora={"rank": 2, "patterns": [".*/pwconv1"]})
    prepared = run.prepare(config)
    adapters = [p for p in prepared.network.params if p.endswith("/lora_b")]
    assert adapters and not any(np.any(prepared.first_state().params[p]) for p in adapters)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"inputs__title__encoder__init_from": "nowhere/model"},
            "config.inputs.title.encoder.init_from: nowhere/model holds no model.json",
        ),
        (
            {"inputs__title__encoder__init_from": "{title}:subject"},
            "config.inputs.title.encoder.init_from: {title} has no input 'subject', it has title",
        ),
        (
            {"inputs__title__encoder__init_from": "{picture}:picture"},
            "config.inputs.title.encoder.network: 'text_cnn', but {picture} holds 'convnext'",
        ),
        (
            {"inputs__title__encoder__sizes": {"filters": 16}},
            "config.inputs.title.encoder.sizes.filters: 16, but the weights are of a network with",
        ),
        (
            {"inputs__picture__encoder__dense": 16},
            "config.inputs.picture.encoder.dense: 16, but {picture} has 8",
        ),
        (
            {"inputs__title__max_tokens": 13},
            "config.inputs.title.max_tokens: 13, but {title} has 12",
        ),
        ({"inputs__title__ids": True}, "config.inputs.title.ids: 'tokens', but {title} has 'text'"),
        ({"inputs__picture__size": 32}, "config.inputs.picture.size: 32, but {picture} has 16"),
        (
            {"inputs__picture__mean": [0.5, 0.5, 0.5]},
            "config.inputs.picture.mean: [0.5, 0.5, 0.5], but {picture} has [0.485, 0.456, 0.406]",
        ),
    ],
)
def test_what_is_not_there_is_named_with_its_key(trained, changes, expected):
    places = {name: str(trained / name / "model") for name in ("title", "picture")}
    changes = {k: x.format(**places) if isinstance(x, str) else x for k, x in changes.items()}
    with pytest.raises(ValueError) as caught:
        run.prepare(joined(trained, **changes))
    assert str(caught.value).startswith(expected.format(**places))


def test_a_damaged_folder_is_refused(trained, tmp_path):
    shutil.copytree(trained / "title" / "model", tmp_path / "title" / "model")
    shutil.copytree(trained / "picture" / "model", tmp_path / "picture" / "model")
    path = tmp_path / "title" / "model" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(artifact.ArtifactError, match=r"title\.encoder\.init_from: .* is not"):
        run.prepare(joined(tmp_path))


def test_weights_that_the_description_does_not_fit_are_refused(trained, tmp_path):
    shutil.copytree(trained / "title" / "model", tmp_path / "title" / "model")
    path = tmp_path / "title" / "model" / "model.json"
    description = json.loads(path.read_text())
    description["model"]["encoders"]["title"]["sizes"]["filters"] = 4
    path.write_text(json.dumps(description))
    config = a_config(
        "title",
        inputs__title__encoder__sizes={},
        inputs__title__encoder__init_from=str(tmp_path / "title" / "model"),
    )
    with pytest.raises(artifact.ArtifactError, match="the model needs"):
        run.prepare(config).first_state()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"inputs__title__encoder__weights": "bert"},
            "title.encoder.init_from: expected none",
        ),
        ({"inputs__title__tokenizer": "bert"}, "title.tokenizer: expected none with encoder.init_"),
    ],
)
def test_what_would_say_the_same_twice_is_refused(changes, expected, tmp_path):
    with pytest.raises(ConfigError) as caught:
        joined(tmp_path, **changes)
    assert str(caught.value).startswith(f"config.inputs.{expected}")
