"""From a config, the data and the pretrained checkpoints to a model's description and weights."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np

from jfusion import trees
from jfusion.config import (
    Classes,
    Config,
    ConfigError,
    Embedding,
    Encoder,
    Frames,
    Image,
    MultiLabel,
    Regression,
    Tabular,
    Target,
    Text,
)
from jfusion.data.dataset import Dataset
from jfusion.data.split import Split
from jfusion.models.lora import is_adapter
from jfusion.pretrained import hub, loader, networks, peft
from jfusion.training import losses
from jfusion.training.state import Network

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}

# Numbers of networks that no weights depend on.
RATES = (
    *("dropout", "attention_dropout"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob"),
    *("drop_path_rate", "drop_connect_rate", "batch_norm_momentum"),
)


def find_pretrained(config: Config, taken: Collection[str] = ()) -> dict[str, Path]:
    """The folder of pretrained weights of each modality that names any; without those `taken`."""
    return {
        name: hub.find(
            part.encoder.weights, part.encoder.revision, key=f"inputs.{name}.encoder.weights"
        )
        for name, part in config.inputs.items()
        if part.encoder.weights and name not in taken
    }


def encoder_specs(
    config: Config,
    folders: Mapping[str, Path],
    taken: Mapping[str, dict[str, Any]] = MappingProxyType({}),
) -> dict[str, dict[str, Any]]:
    """The description of every encoder, without the vocabulary sizes that only the data tells.

    Args:
        config: The experiment.
        folders: Folders of pretrained weights by modality; the others start from scratch.
        taken: The descriptions of encoders that are trained already, see `earlier.find`.

    Raises:
        ConfigError: The config and a network or a checkpoint disagree.
    """
    return {
        name: taken[name]
        if name in taken
        else _encoder_spec(
            f"config.inputs.{name}",
            part,
            networks.describe(folders[name]) if name in folders else None,
        )
        for name, part in config.inputs.items()
    }


def statistics(
    targets: Mapping[str, Target], labels: Mapping[str, Sequence[str]], train: Split
) -> dict[str, dict[str, Any]]:
    """What losses, heads and reports need to know of the training split, JSON-ready.

    Args:
        targets: The targets' sections.
        labels: Names of labels or classes by target.
        train: The training split.

    Returns:
        By target: `pos_weight` of labels and `class_weight` of classes that are to be weighed;
        `mean`, `median` and `spread` (standard deviation, 1 for a constant) of a regression.
    """
    found = {}
    for name, target in targets.items():
        values = train.targets[name][train.keep]
        found[name] = {}
        if isinstance(target, MultiLabel) and target.pos_weight:
            found[name] = {"pos_weight": losses.positive_weights(values).tolist()}
        if isinstance(target, Classes) and target.class_weight:
            weights = losses.class_weights(values, len(labels[name]))
            found[name] = {"class_weight": weights.tolist()}
        if isinstance(target, Regression):
            found[name] = {
                "mean": float(values.mean(dtype=np.float64)),
                "median": float(np.median(values)),
                "spread": float(values.std(dtype=np.float64)) or 1.0,
            }
    return found


def model_spec(
    config: Config,
    dataset: Dataset,
    folders: Mapping[str, Path],
    statistics: Mapping[str, Mapping[str, Any]],
    taken: Mapping[str, dict[str, Any]] = MappingProxyType({}),
) -> dict[str, Any]:
    """The plain description of the model, as `models.multimodal.build` takes it.

    Args:
        config: The experiment.
        dataset: Its data: vocabulary sizes, widths of sequences and tables, and label names.
        folders: As for `encoder_specs`.
        statistics: See `statistics`.
        taken: As for `encoder_specs`.

    Raises:
        ConfigError: The config, the data and a checkpoint disagree.
    """
    encoders = encoder_specs(config, folders, taken)
    for name, part in config.inputs.items():
        if name in taken:
            continue  # it has its sizes
        if isinstance(part, Text):
            _fit_vocabulary(
                f"config.inputs.{name}",
                encoders[name]["sizes"],
                dataset.inputs[name].vocab_size,
                pretrained=name in folders,
            )
        if isinstance(part, Frames):
            features = {"features": dataset.inputs[name].width}
            _fit_sizes(f"config.inputs.{name}", encoders[name]["sizes"], features)
        if isinstance(part, Tabular):
            _fit_sizes(f"config.inputs.{name}", encoders[name]["sizes"], dataset.inputs[name].sizes)
    fusion = asdict(config.fusion)
    modality_dropout = fusion.pop("modality_dropout")
    return {
        "encoders": encoders,
        "fusion": fusion,
        "modality_dropout": modality_dropout if len(encoders) > 1 else 0.0,
        "heads": {
            name: _head_spec(target, len(dataset.labels[name]), statistics[name])
            for name, target in config.targets.items()
        },
    }


def pretrained_weights(
    config: Config, network: Network, folders: Mapping[str, Path]
) -> dict[str, np.ndarray]:
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
        adapters, targets = trees.split(targets, {path: is_adapter(path) for path in targets})
        weights |= {prefix + path: x for path, x in loader.load(folder, kind, targets).items()}
        lora = config.inputs[name].encoder.lora
        if lora.weights:
            loaded = peft.load(Path(lora.weights), adapters, alpha=lora.alpha)
            weights |= {prefix + path: x for path, x in loaded.items()}
    return weights


def _encoder_spec(
    key: str, part: Text | Image | Frames | Tabular, described: networks.Network | None
) -> dict[str, Any]:
    kind = part.encoder.network
    if described is not None and described.network != kind:
        raise ConfigError(
            f"{key}.encoder.network: {kind!r}, but {part.encoder.weights!r} holds "
            f"{described.network!r}"
        )
    check_sizes(f"{key}.encoder.sizes", part.encoder, described)
    sizes = {**(described.sizes if described is not None else {}), **part.encoder.sizes}
    numbers = {**networks.DEFAULTS[kind], **sizes}
    spec: dict[str, Any] = {"network": kind, "sizes": sizes}
    if part.encoder.lora.rank:
        numbers_of = asdict(part.encoder.lora)
        del numbers_of["weights"]
        spec["lora"] = numbers_of
    if part.encoder.eval_when_frozen:
        spec["eval_when_frozen"] = True
    if part.encoder.dense:
        dropout = part.encoder.dense_dropout
        spec["dense"] = {"out_features": part.encoder.dense, "dropout": dropout}
    if isinstance(part, Frames):
        # As many learnt positions as there are steps; others would never be trained.
        if "max_steps" in numbers and sizes.setdefault("max_steps", part.steps) < part.steps:
            raise ConfigError(
                f"{key}.steps: {part.steps}, but the network has {sizes['max_steps']} positions "
                f"({key}.encoder.sizes.max_steps)"
            )
        return spec
    if isinstance(part, Tabular):
        return spec
    if isinstance(part, Text):
        positions = numbers.get("max_position_embeddings", part.max_tokens)
        if part.max_tokens > positions:
            raise ConfigError(
                f"{key}.max_tokens: {part.max_tokens}, but the network has {positions} positions"
            )
        return spec
    least = 1  # networks that pad take any size
    if "depths" in numbers:
        least = numbers["patch_size"] * 2 ** (len(numbers["depths"]) - 1)
    if part.size < least:
        raise ConfigError(f"{key}.size: {part.size} pixels, but the network needs {least}")
    spec["pixels"] = {
        "mean": list(part.mean or getattr(described, "mean", None) or networks.IMAGENET_MEAN),
        "std": list(part.std or getattr(described, "std", None) or networks.IMAGENET_STD),
        "flip": part.flip,
    }
    return spec


def _head_spec(target: Target, outputs: int, statistics: Mapping[str, Any]) -> dict[str, Any]:
    match target:
        case MultiLabel() | Classes():
            return {"kind": "logits", "outputs": outputs}
        case Regression():
            centre, spread = statistics["mean"], statistics["spread"]
            return {"kind": "value", "centre": centre, "spread": spread}
        case Embedding():
            return {"kind": "vectors", "outputs": target.width}


def _fit_sizes(key: str, sizes: dict[str, Any], found: Mapping[str, Any]) -> None:
    """Sets what the data tell; raises `ConfigError` where the config has something else."""
    for name, size in found.items():
        if sizes.setdefault(name, size) != size:
            raise ConfigError(
                f"{key}.encoder.sizes.{name}: {sizes[name]}, but the data have {size}; leave it out"
            )


def _fit_vocabulary(key: str, sizes: dict[str, Any], words: int, pretrained: bool) -> None:
    """Sets the vocabulary size where it is free; raises `ConfigError` where it is too small."""
    if not pretrained:
        sizes.setdefault("vocab_size", words)
    if words > sizes["vocab_size"]:
        advice = (
            "take the tokenizer of the encoder's weights"
            if pretrained
            else f"leave out {key}.encoder.sizes.vocab_size"
        )
        raise ConfigError(
            f"{key}.tokenizer: it has {words} words, the network {sizes['vocab_size']}; {advice}"
        )


def check_sizes(key: str, encoder: Encoder, described: networks.Network | None) -> None:
    """Raises `ConfigError` at a number that the network has not, or that its weights fix."""
    known = networks.DEFAULTS[encoder.network]
    for name, value in encoder.sizes.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"{key}.{name}: no such number of {encoder.network}; {hint}")
        if not _is_like(value, known[name]):
            raise ConfigError(f"{key}.{name}: {value!r}, expected a value like {known[name]!r}")
        if described is not None and name not in RATES and value != described.sizes[name]:
            raise ConfigError(
                f"{key}.{name}: {value!r}, but the weights are of a network with "
                f"{described.sizes[name]!r}; only {', '.join(r for r in RATES if r in known)} "
                "may differ"
            )


def _is_like(value: Any, like: Any) -> bool:
    """Whether a value has the type of another; a whole number is a float, too."""
    if isinstance(like, tuple):
        item_like = like[0] if like else 0  # lists that are empty by default hold whole numbers
        return isinstance(value, tuple) and all(_is_like(item, item_like) for item in value)
    if isinstance(value, bool):
        return False
    return isinstance(value, int | float if isinstance(like, float) else type(like))
