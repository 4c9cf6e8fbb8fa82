"""Fits a checkpoint's tensors to a network's parameters, checked from both sides."""

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from jfusion.pretrained.bert import BERT, DISTILBERT
from jfusion.pretrained.convnext import CONVNEXT
from jfusion.pretrained.efficientnet import EFFICIENTNET
from jfusion.pretrained.hub import WeightsError, weight_files
from jfusion.pretrained.mobilenet_v2 import MOBILENET_V2
from jfusion.pretrained.rules import Rule

TABLES = {
    "bert": BERT,
    "convnext": CONVNEXT,
    "distilbert": DISTILBERT,
    "efficientnet": EFFICIENTNET,
    "mobilenet_v2": MOBILENET_V2,
}
_SHOWN = 20  # failures of one kind that a message lists


def load(folder: Path, network: str, targets: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Reads the weights of a network.

    Args:
        folder: Holds model.safetensors, or its shards and their index.
        network: Whose key table to use: a key of `TABLES`.
        targets: The network's parameters and statistics by path, for their shapes and dtypes: no
            more is read of them.

    Returns:
        An array for every path in `targets`, of its shape and dtype.

    Raises:
        WeightsError: Something does not fit. The message lists every failure: tensors that no rule
            knows or that go nowhere, parameters that nothing fills, and wrong shapes and types.
    """
    folder = Path(folder)
    rules = [(re.compile(rule.source), rule) for rule in TABLES[network]]
    problems = _Problems()
    loaded, sources = {}, {}
    for key, read in _tensors(folder):
        path, rule = _place(key, rules, targets, problems)
        if path is None:
            continue
        if path in sources:
            problems.add("two tensors for one parameter", f"{sources[path]}, {key}")
            continue
        sources[path] = key
        value = _fit(read(), rule, targets[path])
        if isinstance(value, str):
            problems.add("wrong shape or type", f"{key} for {path}: {value}")
        else:
            loaded[path] = value
    for path in targets:
        if path not in sources:
            problems.add("parameters that nothing fills", path)
    problems.throw(f"{folder} does not fit the network {network!r}")
    return loaded


def _tensors(folder: Path) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """Every key of a checkpoint, with what reads its tensor."""
    for file in weight_files(folder):
        try:
            with safetensors.safe_open(file, framework="numpy") as tensors:
                for key in tensors.keys():
                    yield key, functools.partial(tensors.get_tensor, key)
        except safetensors.SafetensorError as error:
            raise WeightsError(f"{file} is no readable safetensors file: {error}") from error


def _place(
    key: str,
    rules: Sequence[tuple[re.Pattern, Rule]],
    targets: Mapping[str, Any],
    problems: "_Problems",
) -> tuple[str | None, Rule | None]:
    """Finds a key's path and rule; no path where the key is ignored or does not fit."""
    hits = [(match, rule) for regex, rule in rules if (match := regex.fullmatch(key))]
    if len(hits) != 1:
        kind = "several rules claim" if hits else "no rule knows"
        problems.add(f"tensors that {kind}", key)
        return None, None
    match, rule = hits[0]
    if rule.target is None:
        return None, rule
    path = match.expand(rule.target)
    if path not in targets:
        problems.add("tensors for parameters that the network has not", f"{key} ({path})")
        return None, rule
    return path, rule


def _fit(value: np.ndarray, rule: Rule, target: Any) -> np.ndarray | str:
    """The tensor in the target's layout and dtype, or what is wrong with it."""
    if value.dtype.kind in "biu":  # quantised; bfloat16 is of kind "V", so ask what it is not
        return f"{value.dtype} instead of floating point"
    shape = value.shape
    if rule.transform is not None:
        try:
            value = rule.transform(value)
        except (ValueError, IndexError):
            return f"shape {shape} is of another kind of layer"
    if value.shape != tuple(target.shape):
        return f"shape {value.shape} instead of {tuple(target.shape)}"
    return np.ascontiguousarray(value, dtype=target.dtype)


class _Problems:
    """Failures by kind, so that one error can tell all of them."""

    def __init__(self):
        self._kinds: dict[str, list[str]] = {}

    def add(self, kind: str, what: str) -> None:
        self._kinds.setdefault(kind, []).append(what)

    def throw(self, headline: str) -> None:
        """Raises if there was any failure."""
        if not self._kinds:
            return
        lines = [f"{headline}:"]
        for kind, items in self._kinds.items():
            lines.append(f"  {kind} ({len(items)}):")
            lines += [f"    {item}" for item in items[:_SHOWN]]
            if len(items) > _SHOWN:
                lines.append(f"    ... and {len(items) - _SHOWN} more")
        raise WeightsError("\n".join(lines))
