"""The optimizer of a phase: AdamW with a rate of its own per parameter pattern."""

from collections.abc import Callable, Iterable, Mapping

import jax.numpy as jnp
import optax

from jfusion import trees
from jfusion.config import ConfigError, Phase, Train


def peak_rates(phase: Phase, paths: Iterable[str], index: int = 0) -> dict[str, float]:
    """The peak learning rate of every parameter; 0 freezes it.

    Args:
        phase: The phase.
        paths: The paths of all parameters.
        index: Which of the config's phases it is, for messages.

    Raises:
        ConfigError: The patterns leave a parameter uncovered, or one matches nothing, or nothing
            is left to train.
    """
    key = f"config.train.phases.{index}.rates"
    try:
        rates = trees.first_match(phase.rates, paths)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None
    if not any(rates.values()):
        raise ConfigError(f"{key}: every parameter is frozen")
    return rates


def schedule(phase: Phase, steps: int) -> Callable[[int], jnp.ndarray]:
    """The share of the peak rate at each step of a phase: warm-up from 0, then the phase's shape.

    Args:
        phase: The phase.
        steps: How many steps it has at most.

    Returns:
        Step of the phase -> factor in [0, 1].
    """
    warmup = round(phase.warmup * steps)
    rest = max(steps - warmup, 1)
    decay = {
        "constant": optax.constant_schedule(1.0),
        "linear": optax.linear_schedule(1.0, 0.0, rest),
        "cosine": optax.cosine_decay_schedule(1.0, rest),
    }[phase.schedule]
    if not warmup:
        return decay
    # The first step has rate 1 / warmup and not 0, which would waste its batch.
    rise = optax.linear_schedule(1 / warmup, 1.0, warmup - 1) if warmup > 1 else decay
    return optax.join_schedules([rise, decay], [warmup])


def adamw(
    train: Train, rates: Mapping[str, float], shape: Callable[[int], jnp.ndarray]
) -> optax.GradientTransformation:
    """AdamW (arXiv 1711.05101) with global-norm clipping and per-parameter peak rates.

    Decay acts on matrices and kernels (two dimensions or more), not on biases, norms and vectors.

    Args:
        train: Decay, clipping and the moments' decays.
        rates: Peak rate of each trainable parameter, by path.
        shape: Factor on all rates by step, see `schedule`.

    Returns:
        The transformation over flat dicts of the trainable parameters.
    """

    def scale(updates, params):
        del params
        return {path: -rates[path] * update for path, update in updates.items()}

    return optax.chain(
        optax.clip_by_global_norm(train.clip) if train.clip else optax.identity(),
        optax.scale_by_adam(train.b1, train.b2),
        optax.add_decayed_weights(
            train.weight_decay,
            lambda params: {path: leaf.ndim >= 2 for path, leaf in params.items()},
        ),
        optax.scale_by_schedule(shape),
        optax.stateless(scale),
    )
