"""From a config, the data and the pretrained checkpoints to a model's description and weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jfusion.config import Config, ConfigError, Image, Text
from jfusion.data.dataset import Dataset
from jfusion.pretrained import hub, loader, networks
from jfusion.training.state import Network

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}


def find_pretrained(config: Config) -> dict[str, Path]:
    """The folder of pretrained weights of each modality that names any."""
    return {
        name: hub.find(
            part.encoder.weights, part.encoder.revision, key=f"inputs.{name}.encoder.weights"
        )
        for name, part in config.inputs.items()
        if part.encoder.weights
    }


def model_spec(config: Config, dataset: Dataset, folders: Mapping[str, Path]) -> dict[str, Any]:
    """The plain description of the model, as `models.multimodal.build` takes it.

    Args:
        config: The experiment.
        dataset: Its data: vocabulary sizes and label names.
        folders: Folders of pretrained weights by modality; the others start from scratch.

    Raises:
        ConfigError: The config and a checkpoint disagree.
    """
    encoders = {}
    for name, part in config.inputs.items():
        described = networks.describe(folders[name]) if name in folders else None
        encoders[name] = _encoder_spec(name, part, described, dataset)
    fusion = config.fusion
    return {
        "encoders": encoders,
        "fusion": {
            "kind": fusion.kind,
            "hidden": list(fusion.hidden),
            "dropout": fusion.dropout,
        },
        "modality_dropout": fusion.modality_dropout if len(encoders) > 1 else 0.0,
        "heads": {name: len(dataset.labels[name]) for name in config.targets},
    }


def pretrained_weights(network: Network, folders: Mapping[str, Path]) -> dict[str, np.ndarray]:
    """Loads the weights of every pretrained encoder, by the paths of the whole model."""
    weights = {}
    for name, folder in folders.items():
        prefix = f"encoders/{name}/"
        targets = {
            path.removeprefix(prefix): leaf
            for path, leaf in {**network.params, **network.stats}.items()
            if path.startswith(prefix)
        }
        kind = network.spec["encoders"][name]["network"]
        loaded = loader.load(folder, kind, targets)
        weights |= {prefix + path: leaf for path, leaf in loaded.items()}
    return weights


def _encoder_spec(
    name: str, part: Text | Image, described: networks.Network | None, dataset: Dataset
) -> dict[str, Any]:
    key = f"config.inputs.{name}"
    kind = part.encoder.network
    if described is not None and described.network != kind:
        raise ConfigError(
            f"{key}.encoder.network: {kind!r}, but {part.encoder.weights!r} holds "
            f"{described.network!r}"
        )
    for size in part.encoder.sizes:
        if size not in networks.DEFAULTS[kind]:
            known = ", ".join(networks.DEFAULTS[kind])
            raise ConfigError(
                f"{key}.encoder.sizes.{size}: no such number of {kind}; known: {known}"
            )
    sizes = {**(described.sizes if described is not None else {}), **part.encoder.sizes}
    spec: dict[str, Any] = {"network": kind, "sizes": sizes}
    if isinstance(part, Image):
        spec["pixels"] = {
            "mean": list(part.mean or getattr(described, "mean", None) or networks.IMAGENET_MEAN),
            "std": list(part.std or getattr(described, "std", None) or networks.IMAGENET_STD),
            "flip": part.flip,
        }
        return spec
    words = dataset.inputs[name].vocab_size
    if described is None:
        sizes.setdefault("vocab_size", words)
    if words > sizes["vocab_size"]:
        raise ConfigError(
            f"{key}.tokenizer: it has {words} words, the network {sizes['vocab_size']}; take the "
            "tokenizer of the encoder's weights"
        )
    return spec
