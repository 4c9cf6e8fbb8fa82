"""What a key table consists of: rules that lead from a checkpoint's keys to parameter paths."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Transform = Callable[[np.ndarray], np.ndarray]


class Rule(NamedTuple):
    r"""Where one kind of tensor goes.

    Attributes:
        source: Regular expression that matches the whole of a checkpoint's key.
        target: The parameter's path, with `\1` ... for the groups of `source`; None leaves the
            tensor out on purpose.
        transform: From PyTorch's layout of the tensor to ours.
    """

    source: str
    target: str | None
    transform: Transform | None = None


def norm(source: str, target: str) -> list[Rule]:
    """The two rules of a normalisation; `gamma` and `beta` come from TensorFlow's checkpoints."""
    return [
        Rule(rf"{source}\.(?:weight|gamma)", f"{target}/scale"),
        Rule(rf"{source}\.(?:bias|beta)", f"{target}/bias"),
    ]


def batch_norm(source: str, target: str) -> list[Rule]:
    """The rules of a BatchNorm: its parameters, its running statistics, and what no one needs."""
    return [
        *norm(source, target),
        Rule(rf"{source}\.running_mean", f"{target}/mean"),
        Rule(rf"{source}\.running_var", f"{target}/var"),
        Rule(rf"{source}\.num_batches_tracked", None),
    ]


def dense(source: str, target: str) -> list[Rule]:
    """The two rules of a fully connected layer, or of a 1 x 1 convolution that serves as one."""
    return [
        Rule(rf"{source}\.weight", f"{target}/kernel", _dense_kernel),
        Rule(rf"{source}\.bias", f"{target}/bias"),
    ]


def conv(source: str, target: str) -> list[Rule]:
    """The two rules of a convolution, depthwise or not."""
    return [
        Rule(rf"{source}\.weight", f"{target}/kernel", _conv_kernel),
        Rule(rf"{source}\.bias", f"{target}/bias"),
    ]


def _dense_kernel(weight: np.ndarray) -> np.ndarray:
    """[O, I] or [O, I, 1, 1] -> [I, O]."""
    return weight.reshape(weight.shape[:2]).T


def _conv_kernel(weight: np.ndarray) -> np.ndarray:
    """[O, I, kh, kw] -> [kh, kw, I, O]."""
    return weight.transpose(2, 3, 1, 0)
