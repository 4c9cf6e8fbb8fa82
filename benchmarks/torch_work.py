"""How much work a step is, counted on its PyTorch twin."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from benchmarks.cases import Case
from benchmarks.torch_twins import Twin, arrays

_SIZES = {"float32": 4, "bfloat16": 2}
# AdamW reads gradient, weight and two moments, and writes the latter three, in float32.
_OPTIMIZER = 7 * 4


class Work(NamedTuple):
    """The work of a step.

    Attributes:
        flops: Floating point operations of its products and convolutions.
        bytes: What these move at least: each reads what it takes once and writes what it gives
            once, and all else happens on the way. None where that is not counted.
    """

    flops: int
    bytes: int | None


def inference(case: Case) -> Work:
    """The work of a forward pass."""
    _, flops, moved = _forward(case)
    return Work(flops, moved * _SIZES[case.dtype])


def train_step(case: Case) -> Work:
    """The work of a training step.

    Each product has two gradients, which are products of two of its three arrays to the third, and
    makes three forward passes with them. A frozen layer has no gradient of its weights. (PyTorch's
    count of the backward pass takes the kernel gradient of a depthwise convolution for that of a
    full one.) Bytes are not counted for cases with frozen layers.
    """
    twin, flops, moved = _forward(case)
    frozen = sum(
        layer.weight.numel()
        for layer in twin.modules()
        if isinstance(layer, nn.Linear) and not layer.weight.requires_grad
    )
    flops = 3 * flops - 2 * case.batch * case.tokens * frozen
    if frozen:
        return Work(flops, None)
    trained = sum(p.numel() for p in twin.parameters())
    return Work(flops, 3 * moved * _SIZES[case.dtype] + _OPTIMIZER * trained)


class _Moved(TorchDispatchMode):
    """Counts the elements that products and convolutions take and give."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            leaves = tree_leaves((args, kwargs or {}, result))
            self.elements += sum(x.numel() for x in leaves if isinstance(x, torch.Tensor))
        return result


def _forward(case: Case) -> tuple[Twin, int, int]:
    """The twin without numbers, and the operations and elements of a pass."""
    with torch.device("meta"):
        twin = Twin(case).train(False)
    inputs, _ = arrays(case, "meta", torch.contiguous_format)
    with torch.no_grad(), FlopCounterMode(display=False) as counter, _Moved() as moved:
        twin(inputs)
    return twin, counter.get_total_flops(), moved.elements
