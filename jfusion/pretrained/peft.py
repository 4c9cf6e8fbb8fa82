"""Adapters in the layout of PEFT: adapter_config.json and adapter_model.safetensors.

jfusion's paths are the reference's, so that a key is a path with dots:
`base_model.model.encoder.layer.0.attention.self.query.lora_A.weight` [r, I] is `lora_a` [I, r] of
`encoder/layer/0/attention/self/query`, and `lora_B` [O, r] is its `lora_b` [r, O].
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from jax.typing import ArrayLike
from safetensors.numpy import load_file, save_file

from jfusion.pretrained import config_json
from jfusion.pretrained.hub import WeightsError

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."
# The network's name stands before its layers where it was adapted with a head on it.
_KEY = re.compile(
    rf"{re.escape(_PREFIX)}(?:(?:bert|convnext|distilbert)\.)?(.+)\.lora_([AB])\.weight"
)

# What an adapter_config.json may say in any way: what the tensors themselves tell, what was
# decided before training, and notes.
_HARMLESS = {
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision"),
    *("exclude_modules", "layers_pattern", "layers_to_transform", "target_modules", "task_type"),
    *("corda_config", "eva_config", "loftq_config", "lora_ga_config"),
    *("megatron_core", "qalora_group_size", "runtime_config"),
    *("lora_alpha", "lora_dropout", "r"),
}
# What else it may say; of all other keys only None, False and empty. The other ways to begin
# (`pissa`, `olora` ...) change the network's own weights.
_ALLOWED = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
}
_SHOWN = 20  # failures that a message lists


@dataclass(frozen=True)
class Adapter:
    """An adapter as its folder describes it; the numbers are those of `models.lora.add`."""

    rank: int
    alpha: float
    dropout: float


def describe(folder: Path) -> Adapter:
    """Reads what kind of adapter a folder holds.

    Args:
        folder: A folder with the adapter_config.json that PEFT wrote.

    Raises:
        WeightsError: There is none, or it describes adapters of a kind that jfusion has not.
    """
    file = Path(folder) / CONFIG
    config = config_json.read(file, "what kind of adapter it is")
    others = [
        f"{key}={value!r}"
        for key, value in config.items()
        if key not in _HARMLESS and (value not in _ALLOWED[key] if key in _ALLOWED else value)
    ]
    if others:
        raise WeightsError(f"{file}: jfusion's adapters know no {', '.join(others)}")
    # PEFT's own defaults.
    rank, alpha = config.get("r", 8), config.get("lora_alpha", 8)
    dropout = config.get("lora_dropout", 0.0)
    if not isinstance(rank, int) or rank < 1:
        raise WeightsError(f"{file}: r is {rank!r}, expected a whole number above 0")
    for key, value in {"lora_alpha": alpha, "lora_dropout": dropout}.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise WeightsError(f"{file}: {key} is {value!r}, expected a number")
    return Adapter(rank, float(alpha), float(dropout))


def load(folder: Path, targets: Mapping[str, Any], *, alpha: float) -> dict[str, np.ndarray]:
    """Reads trained adapters.

    Args:
        folder: Holds adapter_model.safetensors and adapter_config.json.
        targets: The adapters by path within the encoder, for their shapes and dtypes: no more is
            read of them.
        alpha: Scale of the adapters that are to be filled; another one in the folder would give
            other answers.

    Returns:
        An array for every path in `targets`, of its shape and dtype.

    Raises:
        WeightsError: Something does not fit; the message lists every failure.
    """
    folder = Path(folder)
    found = describe(folder)
    failures = []
    if found.alpha != alpha:
        failures.append(f"lora_alpha is {found.alpha:g}, but the model's alpha is {alpha:g}")
    ranks = {_rank(path, leaf) for path, leaf in targets.items()}
    if ranks and ranks != {found.rank}:
        failures.append(f"r is {found.rank}, but the model's rank is {', '.join(map(str, ranks))}")
    loaded, sources = {}, {}
    for key, value in _tensors(folder).items():
        match = _KEY.fullmatch(key)
        path = f"{match[1].replace('.', '/')}/lora_{match[2].lower()}" if match else key
        if path not in targets:
            failures.append(f"{key}: the model has no such adapter")
        elif path in sources:
            failures.append(f"{key}: {sources[path]} is the same adapter")
        elif value.dtype.kind in "biu":  # quantised; bfloat16 is of kind "V"
            failures.append(f"{key}: {value.dtype} instead of floating point")
        elif value.T.shape != tuple(targets[path].shape):
            expected = tuple(targets[path].shape)[::-1]
            failures.append(f"{key}: shape {value.shape} instead of {expected}")
        else:
            loaded[path] = np.ascontiguousarray(value.T, dtype=targets[path].dtype)
        sources.setdefault(path, key)
    failures += [f"{path}: nothing fills it" for path in targets if path not in sources]
    if failures:
        lines = [f"{folder} does not fit the model's adapters:", *failures[:_SHOWN]]
        if len(failures) > _SHOWN:
            lines.append(f"... and {len(failures) - _SHOWN} more")
        raise WeightsError("\n  ".join(lines))
    return loaded


def save(
    folder: Path, params: Mapping[str, ArrayLike], *, alpha: float, dropout: float, base: str = ""
) -> None:
    """Writes the adapters of a network, for PEFT's `PeftModel.from_pretrained(network, folder)`.

    Args:
        folder: Where the two files go.
        params: Parameters by path within the encoder; only the adapters are written.
        alpha: As the adapters were made with.
        dropout: Likewise.
        base: Folder or hub id of the network that was adapted.

    Raises:
        ValueError: There are no adapters, or they have several ranks.
    """
    adapters = {p: np.asarray(x) for p, x in params.items() if p.endswith(("/lora_a", "/lora_b"))}
    ranks = {_rank(path, leaf) for path, leaf in adapters.items()}
    if len(ranks) != 1:
        raise ValueError(f"adapters of one rank can be saved, not of {sorted(ranks) or 'none'}")
    tensors = {}
    for path, leaf in adapters.items():
        layer, _, name = path.rpartition("/")
        key = f"{_PREFIX}{layer.replace('/', '.')}.lora_{name[-1].upper()}.weight"
        tensors[key] = np.ascontiguousarray(leaf.T)
    layers = sorted({path.rpartition("/")[0].replace("/", ".") for path in adapters})
    config = {
        "base_model_name_or_path": base or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": ranks.pop(),
        "target_modules": layers,
        "task_type": "FEATURE_EXTRACTION",
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _rank(path: str, leaf: Any) -> int:
    return leaf.shape[1 if path.endswith("/lora_a") else 0]


def _tensors(folder: Path) -> dict[str, np.ndarray]:
    file = folder / WEIGHTS
    if not file.exists():
        reason = f"{folder} holds no {WEIGHTS}"
        if (folder / "adapter_model.bin").exists():
            reason += "; its adapter_model.bin is a pickle, which can run code when it is opened"
        raise WeightsError(reason)
    try:
        return load_file(file)
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{file} is no readable safetensors file: {error}") from error
