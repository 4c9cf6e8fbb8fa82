"""jfusion's own steps, with the model, loss and optimizer that a config would give them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

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
    state, step = build(case)
    batch = jax.device_put(_batch(case))
    key = jax.random.key(1)

    def one_step() -> jax.Array:
        nonlocal state
        state, scalars = step(state, batch, key)
        return scalars["loss"]

    return one_step


def inference(case: Case) -> Callable[[], dict[str, jax.Array]]:
    """Builds the model of `case` and its evaluation step.

    Returns:
        A function that makes one pass and returns what the heads say, still being computed.
    """
    network = model(case)
    params, stats = network.init(jax.random.key(0))
    batch = jax.device_put(_batch(case))
    step = steps.make_eval_step(network)
    return lambda: step(params, stats, batch)[0]


def build(case: Case) -> tuple[State, Callable]:
    """The first state and the jitted step, as `training.steps` makes it."""
    network = model(case)
    params, stats = network.init(jax.random.key(0))
    phase = Phase(epochs=1, rates=rates(case), schedule="constant", warmup=0.0)
    train = Train(
        phases=(phase,),
        batch_size=case.batch,
        precision=case.dtype,
        weight_decay=DECAY,
        clip=CLIP,
    )
    peak_rates = optim.peak_rates(phase, params)
    params, frozen = trees.split(params, peak_rates)
    tx = optim.adamw(train, peak_rates, optim.schedule(phase, 1))
    opt_state = steps.init_opt_state(train, tx, params)
    each = {name: losses.build(target) for name, target in case.targets.items()}
    step = steps.make_train_step(network, each, train, tx)
    return State(jnp.int32(0), params, frozen, stats, opt_state), step


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


def _batch(case: Case) -> dict:
    inputs = case.inputs()
    return {
        "inputs": inputs,
        "present": {name: jnp.ones(case.batch, bool) for name in inputs},
        "targets": case.truth(),
        "weight": jnp.ones(case.batch, jnp.float32),
    }
