"""jfusion's own train step, with the model, loss and optimizer that a config would give it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks.cases import CLIP, DECAY, HEAD_DROPOUT, LABELS, MEAN, RATE, STD, Case
from jfusion import trees
from jfusion.config import MultiLabel, Phase, Train
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
    loss = {"genres": losses.build(MultiLabel(column="genres"))}
    step = steps.make_train_step(network, loss, train, tx)
    return State(jnp.int32(0), params, frozen, stats, opt_state), step


def rates(case: Case) -> tuple[tuple[str, float], ...]:
    """The learning rates of `case`, as a config has them: with adapters, no network but those."""
    if case.lora:
        return ((".*/lora_[ab]", RATE), ("encoders/.*", 0.0), (".*", RATE))
    return ((".*", RATE),)


def model(case: Case) -> Network:
    """The model of `case`, with abstract parameters."""
    encoders = {}
    if case.text:
        encoders["plot"] = {"network": case.text_network, "sizes": case.text}
    if case.lora:
        lora = dict(case.lora)
        lora["patterns"] = [f".*/({'|'.join(lora.pop('layers'))})"]
        encoders["plot"]["lora"] = lora
    if case.image:
        encoders["poster"] = {
            "network": "convnext",
            "sizes": case.image,
            "pixels": {"mean": MEAN, "std": STD, "flip": 0.0},
        }
    spec = {
        "encoders": encoders,
        "fusion": {
            "kind": "concat",
            "hidden": [case.hidden] if case.hidden else [],
            "dropout": HEAD_DROPOUT,
        },
        "modality_dropout": 0.0,
        "heads": {"genres": {"kind": "logits", "outputs": LABELS}},
    }
    return Network(spec, jnp.dtype(case.dtype))


def _batch(case: Case) -> dict:
    arrays = case.arrays()
    inputs = {}
    if case.text:
        inputs["plot"] = {"ids": arrays["ids"], "length": arrays["length"]}
    if case.image:
        inputs["poster"] = {"pixels": arrays["pixels"]}
    return {
        "inputs": inputs,
        "present": {name: jnp.ones(case.batch, bool) for name in inputs},
        "targets": {"genres": arrays["labels"]},
        "weight": jnp.ones(case.batch, jnp.float32),
    }
