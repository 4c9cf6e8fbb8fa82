"""Modalities that are attached to a trained model."""

import copy
import shutil

import jax
import numpy as np
import pytest

from jfusion import artifact, config_file, inference
from jfusion.training import evaluation, loop, run
from tests import buckets
from tests.training import runs

REVIEWS = {
    "kind": "tabular",
    "numbers": ["reviews"],
    "encoder": {"network": "tabular", "sizes": {"width": 4, "layers": 1}},
}


@pytest.fixture(scope="module", autouse=True)
def compiled_programs(tmp_path_factory):
    """Compiled programs are kept between the runs of this module, as `main` keeps them."""
    with runs.compiled_programs(tmp_path_factory.mktemp("xla")):
        yield


def a_config(inputs=("title", "picture"), target=None, fusion=None, more=None, **changes):
    """A config with some of the inputs, and `more` with their sections."""
    values = copy.deepcopy(runs.PRODUCTS_CONFIG) | changes
    values["inputs"] = {name: values["inputs"][name] for name in inputs} | (more or {})
    values["targets"]["code"] |= target or {}
    values["fusion"] |= fusion or {}
    return config_file.resolve(values)


def attached(model, inputs=("facts", "picture", "title"), rates=((".*", 1e-2),), **changes):
    """What is attached to a model folder, with the rates of its one epoch."""
    train = runs.PRODUCTS_CONFIG["train"] | {"phases": [{"epochs": 1, "rates": rates}]}
    return a_config(inputs, attach_to=str(model), **{"train": train, **changes})


ONLY_NEW = (("(attached|encoders)/facts/.*", 1e-2), (".*", 0.0))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run over title and picture, and of one that attached the facts to it."""
    folder = tmp_path_factory.mktemp("trained")
    loop.train(a_config(), folder / "old")
    loop.train(attached(folder / "old" / "model", rates=ONLY_NEW), folder / "new")
    return folder


def of_folder(model, prepared):
    """What `evaluate` gets from a model folder for the test split of a prepared run."""
    return inference.Model(artifact.read(model)).run(prepared.dataset.splits["test"])


def on_day_zero(prepared):
    """What the run's own evaluation gets for its test split before the first step."""
    state = prepared.first_state()
    batches = prepared.eval_batches(prepared.dataset.splits["test"])
    return evaluation.run(prepared.eval_step, state.evaluated, state.stats, batches, prepared.mesh)


def require_same(one, other):
    np.testing.assert_array_equal(one.rows, other.rows)
    for part in ("heads", "losses"):
        assert getattr(one, part).keys() == getattr(other, part).keys()
        for name, x in getattr(one, part).items():
            np.testing.assert_array_equal(x, getattr(other, part)[name])


def leaves(kept):
    return {**kept.params, **kept.stats}


def test_on_day_zero_the_outputs_are_the_old_models_to_the_last_bit(trained):
    model = trained / "old" / "model"
    before = run.prepare(a_config())
    prepared = run.prepare(attached(model))
    first = on_day_zero(prepared)
    require_same(first, of_folder(model, before))
    assert len(first.rows) == 12 and np.ptp(first.heads["code"]) > 0


def test_what_it_is_attached_to_may_lie_in_a_bucket(trained, url):
    model = trained / "old" / "model"
    buckets.fill(f"{url}/model", model)
    first = on_day_zero(run.prepare(attached(f"{url}/model")))
    require_same(first, of_folder(model, run.prepare(a_config())))


def test_the_model_folder_of_day_zero_gives_the_same(trained, tmp_path):
    prepared = run.prepare(attached(trained / "old" / "model"))
    artifact.write(tmp_path / "model", prepared.artifact(prepared.first_state(), {}))
    require_same(
        of_folder(tmp_path / "model", prepared),
        of_folder(trained / "old" / "model", run.prepare(a_config())),
    )


def test_only_what_is_new_trains(trained):
    old, new = (leaves(artifact.read(trained / name / "model")) for name in ("old", "new"))
    for path, leaf in old.items():
        np.testing.assert_array_equal(new[path], leaf, err_msg=path)
    more = new.keys() - old.keys()
    assert {path.split("/")[:2][1] for path in more} == {"facts"}
    assert np.any(new["attached/facts/gate"]), "the gate has opened"


def test_all_may_train(trained, tmp_path):
    loop.train(attached(trained / "old" / "model"), tmp_path / "run")
    old, new = leaves(artifact.read(trained / "old" / "model")), None
    new = leaves(artifact.read(tmp_path / "run" / "model"))
    assert not any(np.array_equal(new[path], x) for path, x in old.items() if "kernel" in path)
    assert not np.array_equal(new["dense/picture/norm/mean"], old["dense/picture/norm/mean"])


def test_the_new_model_stands_alone(trained, tmp_path):
    shutil.copytree(trained / "new" / "model", tmp_path / "model")
    prepared = run.prepare(attached(trained / "old" / "model"))
    found = of_folder(tmp_path / "model", prepared)
    before = of_folder(trained / "old" / "model", run.prepare(a_config()))
    has = prepared.dataset.splits["test"].present["facts"][found.rows]
    changed = (found.heads["code"] != before.heads["code"]).any(axis=1)
    np.testing.assert_array_equal(changed, has)
    kept = artifact.read(tmp_path / "model")
    assert set(kept.inputs) == {"facts", "picture", "title"}
    assert kept.spec["attached"] == ["facts"]


def test_what_was_learnt_about_the_data_is_kept(trained):
    """Other rows would have other words, other class weights and other numbers."""
    old = artifact.read(trained / "old" / "model")
    data = runs.PRODUCTS_CONFIG["data"] | {"rows": 80}
    prepared = run.prepare(attached(trained / "old" / "model", data=data))
    assert prepared.statistics == {"code": old.targets["code"]["statistics"]}
    assert prepared.dataset.labels == {"code": tuple(old.targets["code"]["labels"])}
    for name in ("title", "picture"):
        assert prepared.dataset.inputs[name].spec() == old.inputs[name].spec()
    fresh = run.prepare(a_config(data=data))
    assert fresh.statistics != prepared.statistics
    assert fresh.dataset.inputs["title"].spec() != old.inputs["title"].spec()


def test_one_more_is_attached_to_that(trained):
    model = trained / "new" / "model"
    before = run.prepare(attached(trained / "old" / "model"))
    inputs = ("facts", "picture", "title")
    prepared = run.prepare(attached(model, inputs, more={"another": REVIEWS}))
    assert prepared.network.spec["attached"] == ["another", "facts"]
    require_same(on_day_zero(prepared), of_folder(model, before))
    state = jax.device_get(prepared.first_state())
    assert np.any(state.params["attached/facts/gate"])
    assert not np.any(state.params["attached/another/gate"])


def test_a_row_with_nothing_but_the_new_modality_is_answered(trained):
    prepared = run.prepare(attached(trained / "old" / "model"))
    model = inference.Model(artifact.read(trained / "new" / "model"))
    given = model.run(prepared.dataset.splits["test"], ["facts"])
    assert len(given.rows) > 8 and np.isfinite(given.heads["code"]).all()
    assert len(np.unique(given.heads["code"], axis=0)) > 4


def test_an_encoder_that_is_attached_may_be_trained_already(trained, tmp_path):
    loop.train(a_config(["facts"], fusion={"norm": "none"}), tmp_path / "facts")
    model, facts = trained / "old" / "model", tmp_path / "facts" / "model"
    section = copy.deepcopy(runs.PRODUCTS_CONFIG["inputs"]["facts"])
    section["encoder"]["init_from"] = str(facts)
    prepared = run.prepare(attached(model, ("picture", "title"), more={"facts": section}))
    require_same(on_day_zero(prepared), of_folder(model, run.prepare(a_config())))
    params = jax.device_get(prepared.first_state().params)
    for path, leaf in artifact.read(facts).params.items():
        if path.startswith("encoders/"):
            np.testing.assert_array_equal(params[path], leaf)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"inputs": ["facts", "title"]}, "config.inputs.picture: missing; "),
        ({"inputs": ["title", "picture"]}, "config.attach_to: the config has no input that "),
        ({"attach_to": "nowhere"}, "config.attach_to: nowhere holds no model.json"),
        (
            {"targets": {"shown": {"kind": "classes", "column": "code"}}},
            "config.targets: shown, but ",
        ),
        ({"target": {"class_weight": False}}, "config.targets.code.class_weight: False, but "),
        ({"target": {"labels": ["a", "b"]}}, "config.targets.code.labels: ('a', 'b'), but "),
        ({"fusion": {"hidden": [8]}}, "config.fusion.hidden: [8], but "),
        ({"fusion": {"kind": "concat", "norm": "layer"}}, "config.fusion.norm: 'layer', but "),
    ],
)
def test_a_config_of_another_model_is_refused(trained, changes, expected):
    if "targets" in changes:
        values = copy.deepcopy(runs.PRODUCTS_CONFIG) | changes
        config = config_file.resolve(values | {"attach_to": str(trained / "old" / "model")})
    else:
        config = attached(**{"model": trained / "old" / "model", **_folder(changes)})
    with pytest.raises(ValueError) as caught:
        run.prepare(config)
    assert str(caught.value).startswith(expected)


def _folder(changes):
    return {"model" if key == "attach_to" else key: value for key, value in changes.items()}
