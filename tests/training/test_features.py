"""Phases on cached features are the same as phases on what the features are made of."""

import contextlib
import dataclasses
import os
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jfusion.data.split import Split
from jfusion.training import features
from jfusion.training.state import Network
from tests import tiny

ROWS = 20
CALM = tiny.without_dropout()
MOBILENET = {
    "network": "mobilenet_v2",
    "sizes": {
        "out_channels": [8, 8],
        "num_block_repeats": [1, 1],
        "strides": [1, 2],
        "hidden_dim": 16,
        "batch_norm_momentum": 0.1,
    },
    "pixels": tiny.SPEC["encoders"]["poster"]["pixels"],
    "dense": {"out_features": 8, "dropout": 0.3},
}
# With dropout, but not while all of it is frozen.
DROPPING = {**tiny.SPEC["encoders"]["plot"], "eval_when_frozen": True}
READER = types.SimpleNamespace(spec=lambda: {"kind": "any"})


def a_spec(**encoders):
    """Everything random that there is, but not within the encoders named."""
    return {**tiny.SPEC, "encoders": {**tiny.SPEC["encoders"], **encoders}}


def a_network(spec=None, dtype=jnp.float32, seed=0):
    network, rng = Network(spec or a_spec(), dtype), np.random.default_rng(seed)
    params = {p: rng.normal(0, 0.3, x.shape).astype(x.dtype) for p, x in network.params.items()}
    stats = {p: rng.uniform(0.5, 1, x.shape).astype(x.dtype) for p, x in network.stats.items()}
    return network, jax.device_put(params), jax.device_put(stats)


def a_split(seed=0, absent=()):
    batch = tiny.batch(ROWS, seed=seed)
    present = {name: np.ones(ROWS, bool) for name in batch["inputs"]}
    for flags in present.values():
        flags[list(absent)] = False
    rows = np.arange(ROWS)
    source = types.SimpleNamespace(fingerprint=str(seed))
    return Split("train", source, batch["inputs"], present, batch["targets"], rows, rows)


class Stopped(Exception):
    """What a watch raises."""


class Watch:
    """Counts the rows that are computed, and may stop after so many batches."""

    def __init__(self, batches=None):
        self.done, self.left = {}, batches

    @contextlib.contextmanager
    def __call__(self, what, total):
        self.done[what] = 0

        def advance(count):
            self.done[what] += count
            if self.left is not None:
                self.left -= 1
                if not self.left:
                    raise Stopped

        yield advance


def attach(folder, network, weights, name="poster", splits=None, watch=None, **more):
    splits, reader = splits or {"train": a_split()}, more.pop("reader", READER)
    more = {"batch_size": 8, "cache_dir": str(folder), "track": watch or Watch(), **more}
    return features.attach(network, weights, name, splits, reader, **more)


def entries(folder):
    return sorted(os.listdir(folder / "features"))


@pytest.mark.parametrize(
    ("spec", "name", "dtype"),
    [
        (a_spec(poster=MOBILENET), "poster", jnp.float32),
        (a_spec(), "poster", jnp.bfloat16),
        (a_spec(plot=CALM["encoders"]["plot"]), "plot", jnp.float32),
        (a_spec(plot=DROPPING), "plot", jnp.float32),
    ],
    ids=["flipped, normalised, dense", "flipped, bfloat16", "text", "text, eval_when_frozen"],
)
def test_features_say_what_their_encoder_would(tmp_path, spec, name, dtype):
    """In training too: flips, dropout and hidden modalities are drawn alike."""
    network, params, stats = a_network(spec, dtype)
    split = a_split(absent=(3, 4, 19))
    found = attach(tmp_path, network, {**params, **stats}, name, {"train": split})["train"]
    assert found.inputs[name]["features"].shape[:2] == (ROWS, 2 if name == "poster" else 1)
    frozen = frozenset(path for path in params if path.startswith(f"encoders/{name}/"))
    weight = np.ones(ROWS, np.float32)
    weight[-1] = 0

    @jax.jit
    def answers(inputs, present, key):
        batch = {"inputs": inputs, "present": present, "weight": weight}
        trained, after = network.apply(params, stats, batch, key, frozen)
        return trained.heads, after, network.apply(params, stats, batch)[0].heads

    present = {**split.present, "plot" if name == "poster" else "poster": np.ones(ROWS, bool)}
    key = jax.random.key(3)
    raw = answers(split.inputs, present, key)
    cached = answers(found.inputs, present, key)
    near = 1e-5 if dtype == jnp.float32 else 3e-2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, near, near), raw, cached)
    other = answers(found.inputs, present, jax.random.key(4))
    assert not np.allclose(raw[0]["genres"], other[0]["genres"], near, near)  # it is random


def test_the_second_feature_is_that_of_the_mirror_image(tmp_path):
    network, params, _ = a_network()
    split = a_split()
    mirrored = {"pixels": np.ascontiguousarray(split.inputs["poster"]["pixels"][:, :, ::-1])}
    turned = dataclasses.replace(split, inputs={**split.inputs, "poster": mirrored})
    one, other = (
        attach(tmp_path / kind, network, params, splits={"train": x})["train"].inputs["poster"]
        for kind, x in (("plain", split), ("turned", turned))
    )
    np.testing.assert_array_equal(one["features"][:, 1], other["features"][:, 0])
    assert not np.allclose(one["features"][:, 0], one["features"][:, 1])


def test_absent_rows_are_zero_and_neither_computed_nor_read(tmp_path):
    network, params, stats = a_network(CALM)
    absent = [0, 1, 12, 18, 19]
    split, watch = a_split(absent=absent), Watch()
    found = attach(tmp_path, network, params, splits={"train": split}, watch=watch)["train"]
    assert watch.done == {"poster: features of train": ROWS - 5}
    kept = found.inputs["poster"]["features"]
    assert not kept[absent].any()
    assert np.all(np.any(kept[split.present["poster"]] != 0, axis=(1, 2)))

    @jax.jit
    def answers(inputs, present):
        return network.apply(params, stats, {"inputs": inputs, "present": present})[0].heads

    present = {"plot": np.ones(ROWS, bool), "poster": split.present["poster"]}
    spoilt = np.where(present["poster"][:, None, None], kept, np.nan)
    whole = answers(found.inputs, present)
    again = answers({**found.inputs, "poster": {"features": spoilt}}, present)
    np.testing.assert_array_equal(whole["genres"], again["genres"])


def test_features_are_found_again(tmp_path):
    network, params, _ = a_network()
    splits = {"train": a_split(0), "val": a_split(1)}
    first, again = Watch(), Watch()
    one = attach(tmp_path, network, params, splits=splits, watch=first)
    other = attach(tmp_path, network, params, splits=splits, watch=again)
    names = "poster: features of train", "poster: features of val"
    assert first.done == dict.fromkeys(names, ROWS)
    assert again.done == {}
    assert isinstance(other["train"].inputs["poster"]["features"], np.memmap)
    for name in splits:
        np.testing.assert_array_equal(
            one[name].inputs["poster"]["features"], other[name].inputs["poster"]["features"]
        )
    assert len(entries(tmp_path)) == 2


def test_other_features_are_not_taken_for_them(tmp_path, monkeypatch):
    def zeros(self, arrays, present, advance):
        yield np.zeros((ROWS, 2, 8), np.float32)

    monkeypatch.setattr(features._Compute, "__call__", zeros)
    network, params, _ = a_network()
    kernel = "encoders/poster/embeddings/patch_embeddings/kernel"
    moved = {**params, kernel: params[kernel] * 1.001}
    head = {**params, "heads/genres/bias": params["heads/genres/bias"] + 1}
    pixels = {**tiny.SPEC["encoders"]["poster"]["pixels"], "mean": [0.4, 0.5, 0.5]}
    shifted = Network(a_spec(poster={**tiny.SPEC["encoders"]["poster"], "pixels": pixels}))
    reader = types.SimpleNamespace(spec=lambda: {"kind": "any", "size": 17})
    for count, (model, weights, options) in enumerate(
        [
            (network, params, {}),
            (network, head, {}),  # no part of the encoder
            (network, moved, {}),
            (shifted, params, {}),
            (Network(a_spec(), jnp.bfloat16), params, {}),
            (network, params, {"reader": reader}),
            (network, params, {"batch_size": 4}),
            (network, params, {"splits": {"train": a_split(2)}}),
            (network, params, {"splits": {"train": a_split(0, absent=(5,))}}),
        ]
    ):
        attach(tmp_path, model, weights, **options)
        assert len(entries(tmp_path)) == max(count, 1)


def test_an_interrupted_pass_leaves_nothing(tmp_path):
    network, params, _ = a_network()
    with pytest.raises(Stopped):
        attach(tmp_path, network, params, watch=Watch(batches=2))
    assert entries(tmp_path) == []
    watch = Watch()
    attach(tmp_path, network, params, watch=watch)
    assert watch.done == {"poster: features of train": ROWS}


def test_a_damaged_entry_is_made_again(tmp_path, capsys):
    network, params, _ = a_network()
    whole = np.array(attach(tmp_path, network, params)["train"].inputs["poster"]["features"])
    (entry,) = (tmp_path / "features").iterdir()
    os.truncate(entry, entry.stat().st_size - 4)
    again = attach(tmp_path, network, params)["train"].inputs["poster"]["features"]
    np.testing.assert_array_equal(whole, again)
    assert "is damaged" in capsys.readouterr().err


def planned(spec, frozen="encoders/"):
    network = Network(spec)
    rates = {path: 0.0 if path.startswith(frozen) else 1e-3 for path in network.params}
    return features.plan(network, rates, {"train": a_split()})


ADVICE = "within the encoder (inputs.plot.encoder.eval_when_frozen leaves it out)"


def changed(name, **values):
    part = CALM["encoders"][name]
    sizes = {**part["sizes"], **values.pop("sizes", {})}
    return {**CALM, "encoders": {**CALM["encoders"], name: {**part, "sizes": sizes, **values}}}


def test_nothing_is_refused_without_a_reason():
    assert planned(CALM) == {"plot": "", "poster": ""}
    assert planned(a_spec(poster=MOBILENET))["poster"] == ""
    assert planned(CALM, frozen="encoders/poster/") == {"poster": ""}
    assert planned(CALM, frozen="encoders/poster/embeddings/") == {}  # a part is not frozen
    assert planned(CALM, frozen="heads/") == {}
    assert planned(a_spec(plot=DROPPING))["plot"] == ""


@pytest.mark.parametrize(
    ("spec", "name", "why"),
    [
        (tiny.SPEC, "plot", f"dropout 0.1, attention_dropout 0.1 {ADVICE}"),
        (changed("plot", sizes={"dropout": 0.25}), "plot", f"dropout 0.25 {ADVICE}"),
        (
            changed("poster", sizes={"depths": [2], "drop_path_rate": 0.2}),
            "poster",
            f"drop_path_rate 0.2 {ADVICE.replace('plot', 'poster')}",
        ),
        (
            changed("plot", lora=dict(patterns=[".*/q_lin"], rank=2, alpha=4.0, dropout=0.1)),
            "plot",
            f"lora.dropout 0.1 {ADVICE}",
        ),
        (
            {**CALM, "fusion": {"kind": "cross_attention", "width": 8, "layers": 1, "heads": 2}},
            "poster",
            "cross_attention reads all of its tokens",
        ),
    ],
)
def test_what_is_refused(spec, name, why):
    assert planned(spec)[name] == why


@pytest.mark.parametrize("name", ["plot", "poster"])
def test_only_an_encoder_that_is_all_frozen_runs_as_in_evaluation(name):
    """Of adapters that train, and of a network of which a part trains, the dropout stays."""
    one_stage = {"in_channels": [8], "out_channels": [8], "strides": [1], "kernel_sizes": [3]}
    repeated = {"num_block_repeats": [2], "expand_ratios": [2], "drop_connect_rate": 0.9}
    poster = {
        "network": "efficientnet",
        "sizes": {**one_stage, **repeated, "hidden_dim": 16},
        "pixels": CALM["encoders"]["poster"]["pixels"],
        "eval_when_frozen": True,
    }
    chosen = {"plot": DROPPING, "poster": poster}
    other = "poster" if name == "plot" else "plot"
    encoders = {name: chosen[name], other: CALM["encoders"][other]}
    network, params, stats = a_network({**CALM, "encoders": encoders})
    own = frozenset(path for path in params if path.startswith(f"encoders/{name}/"))
    part = own - {min(own)}

    def drawn(frozen):
        """Whether two keys give two answers."""
        answers = jax.jit(
            lambda key: network.apply(params, stats, tiny.batch(), key, frozen)[0].heads["genres"]
        )
        return not np.array_equal(answers(jax.random.key(1)), answers(jax.random.key(2)))

    assert not drawn(own)
    assert drawn(part)
    assert drawn(frozenset())


def test_an_encoder_that_draws_is_refused_whatever_its_numbers_are_called(monkeypatch):
    monkeypatch.setattr(features, "_DROPS", ())
    found = planned(tiny.SPEC)
    assert found["plot"].startswith("in training, ")
    assert found["poster"] == ""


def test_an_encoder_without_parameters_is_left_as_it_is():
    rates = {"encoders/text/kernel": 0.0, "heads/score/kernel": 1e-3}
    assert features.is_frozen("text", rates)
    assert not features.is_frozen("audio", rates)
