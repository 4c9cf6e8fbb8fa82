"""Making and running modules in tests without compiling more than needed."""

import functools

import jax
import numpy as np
from flax import nnx


def drawn(make, seed=0):
    """The module that `make()` builds, in evaluation, with parameters drawn by NumPy.

    Values are of the size that the networks' own initialisation has; JAX would compile for seconds
    to draw them.
    """
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if str(path[-1]) in ("scale", "layer_scale_parameter", "var"):
            value = np.full(leaf.shape, 1.0)
        elif str(path[-1]) in ("bias", "mean"):
            value = np.zeros(leaf.shape)
        else:
            value = np.clip(rng.normal(size=leaf.shape), -2, 2) * 0.02
        return jax.numpy.asarray(value.astype(leaf.dtype))

    evaluation = dict(deterministic=True, use_running_average=True)
    # A module with nothing random, or without BatchNorm, has nothing to switch.
    model = nnx.view(nnx.eval_shape(make), raise_if_not_found=False, **evaluation)
    graph, state = nnx.split(model)
    return nnx.merge(graph, nnx.map_state(lambda path, leaf: leaf.replace(draw(path, leaf)), state))


def run(module, *args, seed=None):
    """Calls a module, compiled; modules of one kind and size share what was compiled.

    Args:
        module: The module; with a seed, it is called in training.
        *args: What it is called with.
        seed: Of the dropout.
    """
    if seed is None:
        return _evaluate(*nnx.split(module), args)
    # A module with nothing random has nothing to switch, which is no mistake.
    module = nnx.view(module, raise_if_not_found=False, deterministic=False)
    return _train(*nnx.split(module), args, jax.random.key(seed))


@functools.partial(jax.jit, static_argnums=0)
def _evaluate(graph, state, args):
    return nnx.merge(graph, state)(*args)


@functools.partial(jax.jit, static_argnums=0)
def _train(graph, state, args, key):
    return nnx.merge(graph, state)(*args, rngs=nnx.Rngs(dropout=key))
