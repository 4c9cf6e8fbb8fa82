"""One optimizer step and one evaluation step, as pure jitted functions."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jfusion.config import Train
from jfusion.training import sharding
from jfusion.training.losses import Batch, Loss
from jfusion.training.state import Network, State, Tree

# Dynamic loss scaling (arXiv 1710.03740, section 3.2, with the constants of common practice).
INITIAL_SCALE = 2.0**15
GROW_EVERY = 2000


def init_opt_state(train: Train, tx: optax.GradientTransformation, params: Tree) -> dict[str, Any]:
    """The optimizer's state over the trainable parameters."""
    scale = {"value": jnp.float32(INITIAL_SCALE), "good_steps": jnp.int32(0)}
    return {
        "adam": tx.init(params),
        # A copy: the step donates the parameters' own buffers.
        "average": jax.tree.map(jnp.copy, params) if train.ema else {},
        "scale": scale if train.precision == "float16" else {},
    }


def make_train_step(
    network: Network,
    losses: Mapping[str, Loss],
    train: Train,
    tx: optax.GradientTransformation,
    placement: State | None = None,
) -> Callable[[State, Batch, jax.Array], tuple[State, dict[str, jax.Array]]]:
    """Builds the jitted optimizer step, which donates the state it is given.

    The loss is the mean over the rows of the whole batch by their weights, whatever the number of
    parts that the batch is cut into.

    Args:
        network: The model.
        losses: The loss of each target.
        train: Accumulation, average and precision.
        tx: The optimizer over the trainable parameters.
        placement: The place of every leaf of the state, which stays there; None leaves it to the
            compiler.

    Returns:
        `(state, batch, key) -> (state, scalars)`, where `key` is the run's key and the scalars are
        `loss`, `gradient_norm`, with several targets `loss/<target>`, and with float16
        `loss_scale`.
    """

    def loss_fn(params, frozen, stats, part, key, rows, scale):
        if placement is not None:
            params = sharding.gather(params, placement.params)
            frozen = sharding.gather(frozen, placement.frozen)
        outputs, stats = network.apply({**params, **frozen}, stats, part, key, frozen)
        part = {**part, "present": outputs.present}  # without those that were hidden
        each = {}
        for name, loss in losses.items():
            of_rows = loss.rows(outputs.heads[name], part["targets"][name], part)
            each[name] = loss.finish(jnp.sum(of_rows * part["weight"]) / rows)
        total = sum(loss.weight * each[name] for name, loss in losses.items())
        return total * scale, (total, each, stats)

    gradient = jax.grad(loss_fn, has_aux=True)

    def gradients(state, batch, key, scale):
        rows = jnp.maximum(jnp.sum(batch["weight"]), 1.0)
        if train.accumulate == 1:
            return gradient(state.params, state.frozen, state.stats, batch, key, rows, scale)

        def add_part(carry, part_and_key):
            sums, stats = carry
            part, part_key = part_and_key
            grads, (total, each, stats) = gradient(
                state.params, state.frozen, stats, part, part_key, rows, scale
            )
            return (jax.tree.map(jnp.add, sums, (grads, total, each)), stats), None

        parts = jax.tree.map(lambda x: _cut(x, train.accumulate), batch)
        keys = jax.random.split(key, train.accumulate)
        zeros = (
            jax.tree.map(jnp.zeros_like, state.params),
            jnp.float32(0),
            {name: jnp.float32(0) for name in losses},
        )
        carry, _ = jax.lax.scan(add_part, (zeros, state.stats), (parts, keys))
        (grads, total, each), stats = carry
        return grads, (total, each, stats)

    def train_step(state: State, batch: Batch, key: jax.Array):
        opt_state = dict(state.opt_state)
        scale = opt_state["scale"]["value"] if opt_state["scale"] else 1.0
        step_key = jax.random.fold_in(key, state.step)
        grads, (total, each, stats) = gradients(state, batch, step_key, scale)
        grads = jax.tree.map(lambda g: g / scale, grads) if opt_state["scale"] else grads
        norm = optax.tree.norm(grads)
        updates, adam = tx.update(grads, opt_state["adam"], state.params)
        params = optax.apply_updates(state.params, updates)
        scalars = {"loss": total, "gradient_norm": norm}
        if len(each) > 1:
            scalars |= {f"loss/{name}": value for name, value in each.items()}
        if opt_state["scale"]:
            # An overflow skips the update, as if the batch had not been.
            finite = jnp.isfinite(norm)
            params, adam, stats = optax.tree.where(
                finite, (params, adam, stats), (state.params, opt_state["adam"], state.stats)
            )
            opt_state["scale"] = _adjust(opt_state["scale"], finite)
            scalars["loss_scale"] = scale
        opt_state["adam"] = adam
        if train.ema:
            opt_state["average"] = _average(opt_state["average"], params, state.step, train.ema)
        return State(state.step + 1, params, state.frozen, stats, opt_state), scalars

    return jax.jit(train_step, donate_argnums=0, out_shardings=(placement, None))


def make_eval_step(
    network: Network, losses: Mapping[str, Loss] | None = None, mesh: Mesh | None = None
) -> Callable[[Tree, Tree, Batch], tuple[dict[str, jax.Array], ...]]:
    """Builds the jitted evaluation step.

    Args:
        network: The model.
        losses: As in `make_train_step`; without them (prediction) no targets are read.
        mesh: Where parameters may be split; None if they are not.

    Returns:
        `(params, stats, batch) -> ({head: [B, ...]}, {head: loss [B]}, {modality: share [B]})`.
    """

    @jax.jit
    def eval_step(params: Tree, stats: Tree, batch: Batch):
        params = params if mesh is None else sharding.whole(params, mesh)
        outputs, _ = network.apply(params, stats, batch)
        batch = {**batch, "present": outputs.present}  # what the heads know of, see `Answers`
        each = {
            name: loss.rows(outputs.heads[name], batch["targets"][name], batch)
            for name, loss in (losses or {}).items()
        }
        return outputs.heads, each, outputs.shares

    return eval_step


def _cut(x: jax.Array, parts: int) -> jax.Array:
    """`[B, ...]` to `[parts, B / parts, ...]`, each part with rows of every device."""
    return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)


def _adjust(scale: dict[str, jax.Array], finite: jax.Array) -> dict[str, jax.Array]:
    good = jnp.where(finite, scale["good_steps"] + 1, 0)
    grown = jnp.where(good >= GROW_EVERY, scale["value"] * 2, scale["value"])
    return {
        "value": jnp.where(finite, grown, jnp.maximum(scale["value"] / 2, 1.0)),
        "good_steps": jnp.where(good >= GROW_EVERY, 0, good),
    }


def _average(average: Tree, params: Tree, step: jax.Array, decay: float) -> Tree:
    """Moves the average; young averages move faster, so that they forget the initial weights."""
    decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)
