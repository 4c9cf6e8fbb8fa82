"""jfusion's own steps, with the model, loss and optimizer that a config would give them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import CENTRE, CLIP, DECAY, MEAN, RATE, SPREAD, STD, Case, outputs
from jfusion import trees
from jfusion.config import Embedding, Phase, Regression, Target, Train
from jfusion.training import losses, optim, steps
from jfusion.training.state import Network, State


def train_step(case: Case) -> Callable[[], jax.Array]:
    """Builds the model of `case` and its step.

    Returns:
        A function that takes one optimizer step and returns its loss, still being computed.
    """
    state, take = build(case)
    rows = jax.device_put(batch(case))
    key = jax.random.key(1)

    def one_step() -> jax.Array:
        nonlocal state
        state, scalars = take(state, rows, key)
        return scalars["loss"]

    return one_step


def inference(case: Case) -> Callable[[], dict[str, jax.Array]]:
    """Builds the model of `case` and its evaluation step.

    Returns:
        A function that makes one pass and returns what the heads say, still being computed.
    """
    network = model(case)
    params, stats = network.init(jax.random.key(0))
    rows = jax.device_put(batch(case))
    take = steps.make_eval_step(network)
    return lambda: take(params, stats, rows)[0]


def build(case: Case) -> tuple[State, Callable]:
    """The first state and the jitted step, as `training.steps` makes it."""
    return first_state(case), step(case)


def first_state(case: Case) -> State:
    """The state at step 0, with random weights."""
    network = model(case)
    params, stats = network.init(jax.random.key(0))
    train, peak_rates, tx = _optimizer(case, network)
    params, frozen = trees.split(params, peak_rates)
    return State(jnp.int32(0), params, frozen, stats, steps.init_opt_state(train, tx, params))


def step(case: Case, placement: State | None = None) -> Callable:
    """The jitted step; see `steps.make_train_step` for `placement`."""
    network = model(case)
    train, _, tx = _optimizer(case, network)
    each = {name: losses.build(target) for name, target in case.targets.items()}
    return steps.make_train_step(network, each, train, tx, placement)


def _optimizer(case: Case, network: Network) -> tuple[Train, dict[str, float], Any]:
    phase = Phase(epochs=1, rates=rates(case), schedule="constant", warmup=0.0)
    train = Train(
        phases=(phase,),
        batch_size=case.batch,
        precision=case.dtype,
        weight_decay=DECAY,
        clip=CLIP,
    )
    peak_rates = optim.peak_rates(phase, network.params)
    return train, peak_rates, optim.adamw(train, peak_rates, optim.schedule(phase, 1))


def rates(case: Case) -> tuple[tuple[str, float], ...]:
    """The learning rates of `case`, as a config has them: with adapters, no network but those."""
    if case.lora:
        return ((".*/lora_[ab]", RATE), ("encoders/.*", 0.0), (".*", RATE))
    return ((".*", RATE),)


def model(case: Case) -> Network:
    """The model of `case`, with abstract parameters."""
    encoders: dict[str, dict[str, Any]] = {}
    if case.text:
        encoders["text"] = {"network": case.text_network, "sizes": case.text}
    if case.lora:
        lora = dict(case.lora)
        lora["patterns"] = [f".*/({'|'.join(lora.pop('layers'))})"]
        encoders["text"]["lora"] = lora
    if case.image:
        encoders["image"] = {
            "network": case.image_network,
            "sizes": case.image,
            "pixels": {"mean": MEAN, "std": STD, "flip": 0.0},
        }
    for name, features in case.frames.items():
        encoders[name] = {
            "network": "temporal_cnn" if case.cnn else "mean_pool",
            "sizes": {"features": features, **(case.cnn or {})},
        }
    fusion = dataclasses.asdict(case.fusion)
    spec = {
        "encoders": encoders,
        "modality_dropout": fusion.pop("modality_dropout"),
        "fusion": fusion,
        "heads": {name: _head(target) for name, target in case.targets.items()},
    }
    return Network(spec, jnp.dtype(case.dtype))


def _head(target: Target) -> dict[str, Any]:
    match target:
        case Regression():
            return {"kind": "value", "centre": CENTRE, "spread": SPREAD}
        case Embedding():
            return {"kind": "vectors", "outputs": target.width}
        case _:
            return {"kind": "logits", "outputs": outputs(target)}


def batch(case: Case) -> dict:
    """A batch of random rows, in host memory."""
    inputs = case.inputs()
    return {
        "inputs": inputs,
        "present": {name: np.ones(case.batch, bool) for name in inputs},
        "targets": case.truth(),
        "weight": np.ones(case.batch, np.float32),
    }
