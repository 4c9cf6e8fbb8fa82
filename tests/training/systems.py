"""Tiny forms of the three systems, and what a few of their steps give on some devices."""

import contextlib
import copy
import functools
import itertools
import json
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp

from jfusion import config_file, processes
from jfusion.training import evaluation, sharding
from jfusion.training.checkpoint import Progress
from jfusion.training.run import prepare
from tests.training import runs

GENRES = copy.deepcopy(runs.CONFIG)
GENRES["train"] = {
    "batch_size": 16,
    "accumulate": 2,
    "ema": 0.9,
    "phases": [{"epochs": 1, "rates": [["encoders/poster/.*", 0.0], [".*", 1e-2]]}],
}

FRAMES = {"network": "temporal_cnn", "sizes": {"width": 16}}
INTERVIEWS = {
    "data": {"source": "interviews", "group_column": "participant"},
    "inputs": {
        "transcript": GENRES["inputs"]["plot"] | {"column": "transcript"},
        "audio": {"kind": "sequence", "column": "audio", "steps": 8, "encoder": FRAMES},
        "video": {"kind": "sequence", "column": "video", "steps": 8, "encoder": FRAMES},
    },
    "targets": {
        "phq8": {"kind": "regression", "column": "phq8", "limits": [0.0, 24.0], "cut": [10.0]},
        "depressed": {"kind": "classes", "column": "phq8", "cut": [10.0], "weight": 0.2},
        "likeness": {
            "kind": "embedding",
            "positives": "modalities",
            "width": 8,
            "subject_column": "participant",
            "weight": 0.3,
        },
    },
    "fusion": {
        "kind": "cross_attention",
        "gate": "learned",
        "width": 16,
        "layers": 1,
        "heads": 2,
        "feed_forward": 32,
        "dropout": 0.1,
        "modality_dropout": 0.1,
    },
    "train": {"batch_size": 16, "monitor": "phq8/rmse", "phases": [{"epochs": 1}]},
}

# BatchNorm in the picture's network and the fusion, first frozen and from features. A bias before
# a BatchNorm has a gradient of nothing but rounding, of which Adam makes a whole step: small ones.
PRODUCTS = {
    "data": {"source": "products", "rows": 60, "on_error": "missing"},
    "inputs": {
        "text": {
            "kind": "text",
            "column": "designation",
            "max_tokens": 12,
            "vocabulary": 60,
            "encoder": {"network": "text_cnn", "sizes": {"width": 8, "filters": 8, "hidden": 8}},
        },
        "image": {
            "kind": "image",
            "column": "image",
            "size": 16,
            "encoder": {
                "network": "mobilenet_v2",
                "sizes": {
                    "out_channels": [8, 16],
                    "num_block_repeats": [1, 1],
                    "strides": [1, 2],
                    "hidden_dim": 16,
                    "batch_norm_momentum": 0.1,
                },
                "dense": 8,
            },
        },
    },
    "targets": {"code": {"kind": "classes", "column": "code"}},
    "fusion": {"kind": "concat", "norm": "batch", "hidden": [16], "modality_dropout": 0.1},
    "train": {
        "batch_size": 16,
        "phases": [
            {"epochs": 1, "rates": [["encoders/image/.*", 0.0], [".*", 1e-5]]},
            {"epochs": 1, "rates": [[".*", 1e-5]]},
        ],
    },
}

SYSTEMS = {"genres": GENRES, "interviews": INTERVIEWS, "products": PRODUCTS}


@contextlib.contextmanager
def untracked(what, rows):
    """Shows nothing, see `features.Track`."""
    yield lambda count: None


def run_on(system, devices, fsdp):
    """A prepared run of a system on the first of the devices, `fsdp` of them to a copy."""
    mesh = {"fsdp": fsdp, "min_size": 16}
    config = config_file.resolve(SYSTEMS[system] | {"mesh": mesh, "name": system})
    some = functools.partial(sharding.make_mesh, devices=jax.devices()[:devices])
    with mock.patch.object(sharding, "make_mesh", some):
        return prepare(config)


def drawn(system):
    """The first parameters and statistics of a system."""
    return run_on(system, jax.device_count(), 1).network.init(jax.random.key(0, impl="rbg"))


def write(file, system, devices, fsdp):
    """Has the first of several processes write the numbers of a system on all their devices."""
    assert jax.device_count() == devices
    found = numbers(system, devices, fsdp, *drawn(system))
    if processes.is_first():
        Path(file).write_text(json.dumps(found))


def numbers(system, devices, fsdp, params, stats, steps=2):
    """What some steps of every phase give, and the scores of the validation split after them.

    Returns:
        Lists of numbers by name.
    """
    run, found = run_on(system, devices, fsdp), {}
    # Copies: the steps give away the memory of what they are given.
    params, stats = jax.tree.map(jnp.array, (params, stats))
    step = jnp.int32(0)
    for phase, plan in enumerate(run.plans):
        state = run.phase_state(phase, params, stats, step)
        splits = run.phase_splits(phase, state, lambda line: None, untracked)
        with contextlib.closing(run.train_batches(Progress(phase), splits["train"])) as batches:
            for batch, _ in itertools.islice(batches, steps):
                state, scalars = plan.train_step(state, batch, run.key)
                for name, value in scalars.items():
                    found.setdefault(f"{name} of phase {phase}", []).append(float(value))
        params, stats, step = state.evaluated, state.stats, state.step
    places = jax.tree.map(lambda x, place: x.sharding == place, state, run.plans[-1].placement)
    assert all(jax.tree.leaves(places))
    batches = run.eval_batches(splits["val"])
    outputs = evaluation.run(run.eval_step, state.evaluated, state.stats, batches, run.mesh)
    scores = evaluation.score(outputs, splits["val"].targets, run.config.targets, run.losses)
    found |= {name: [value] for name, value in scores.items() if value is not None}
    return found | {"rows": outputs.rows.tolist()}
