"""A tiny fusion model and batches of random rows, for tests of what is around the model."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np

from jfusion import trees
from jfusion.config import MultiLabel, Phase, Train
from jfusion.training import assemble, losses, optim, steps
from jfusion.training.state import Network, State

LABELS = 5
SPEC = {
    "encoders": {
        "plot": {
            "network": "distilbert",
            "sizes": {
                "vocab_size": 50,
                "dim": 16,
                "n_layers": 1,
                "n_heads": 2,
                "hidden_dim": 32,
                "max_position_embeddings": 12,
            },
        },
        "poster": {
            "network": "convnext",
            "sizes": {"depths": [1], "hidden_sizes": [8], "layer_scale_init_value": 1.0},
            "pixels": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "flip": 0.5},
        },
    },
    "fusion": {"kind": "concat", "hidden": [16], "dropout": 0.1},
    "modality_dropout": 0.2,
    "heads": {"genres": {"kind": "logits", "outputs": LABELS}},
}


def without_dropout(spec=SPEC):
    """The same model with nothing random in training."""
    plot, poster = spec["encoders"]["plot"], spec["encoders"]["poster"]
    return {
        **spec,
        "encoders": {
            "plot": {**plot, "sizes": {**plot["sizes"], "dropout": 0.0, "attention_dropout": 0.0}},
            "poster": {**poster, "pixels": {**poster["pixels"], "flip": 0.0}},
        },
        "fusion": {**spec["fusion"], "dropout": 0.0},
        "modality_dropout": 0.0,
    }


def batch(rows=8, padding=0, seed=0):
    """A batch of random rows, the last `padding` of them empty."""
    rng = np.random.default_rng(seed)
    weight = np.ones(rows, np.float32)
    weight[rows - padding :] = 0
    return {
        "inputs": {
            "plot": {
                "ids": rng.integers(0, 50, (rows, 12)).astype(np.int32),
                "length": rng.integers(1, 13, rows).astype(np.int32),
            },
            "poster": {"pixels": rng.integers(0, 256, (rows, 16, 16, 3)).astype(np.uint8)},
        },
        "present": {"plot": np.ones(rows, bool), "poster": np.ones(rows, bool)},
        "targets": {"genres": rng.integers(0, 2, (rows, LABELS)).astype(np.float32)},
        "weight": weight,
    }


def setup(train=None, spec=SPEC, rates=((".*", 1e-3),)):
    """A network, its first state, and its train step (compiled once per test session)."""
    train = train or Train(phases=(Phase(epochs=1, rates=rates),))
    network, params, stats, tx, step = _setup(train, json.dumps(spec), rates)
    chosen = optim.peak_rates(Phase(epochs=1, rates=rates), network.params)
    trainable, frozen = trees.split(jax.tree.map(jnp.copy, params), chosen)
    opt_state = steps.init_opt_state(train, tx, trainable)
    return network, State(jnp.int32(0), trainable, frozen, stats, opt_state), step


@functools.lru_cache
def _setup(train, spec, rates):
    network = Network(json.loads(spec), assemble.DTYPES[train.precision])
    params, stats = network.init(jax.random.key(0, impl="rbg"))
    tx = optim.adamw(
        train, optim.peak_rates(Phase(epochs=1, rates=rates), params), lambda step: 1.0
    )
    loss = {"genres": losses.build(MultiLabel(column="genres"))}
    return network, params, stats, tx, steps.make_train_step(network, loss, train, tx)
