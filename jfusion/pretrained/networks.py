"""Which network a folder of pretrained weights holds, and its numbers.

Read from the plain JSON files beside the weights, with the defaults of the reference's classes, so
that neither torch nor transformers' networks are needed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jfusion.pretrained.hub import WeightsError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Constructor numbers by network. Those with published weights are named by their `model_type` of
# Hugging Face, with the defaults of its config classes: a config.json may leave out what equals
# them.
DEFAULTS = {
    "distilbert": {
        "vocab_size": 30522,
        "dim": 768,
        "n_layers": 6,
        "n_heads": 12,
        "hidden_dim": 3072,
        "max_position_embeddings": 512,
        "dropout": 0.1,
        "attention_dropout": 0.1,
    },
    "bert": {
        "vocab_size": 30522,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
    },
    "convnext": {
        "num_channels": 3,
        "patch_size": 4,
        "hidden_sizes": (96, 192, 384, 768),
        "depths": (3, 3, 9, 3),
        "drop_path_rate": 0.0,
        "layer_scale_init_value": 1e-6,
        "layer_norm_eps": 1e-12,
    },
    # The readers of sequences have no published weights; their `features` come from the data.
    "mean_pool": {"features": 0},
    "temporal_cnn": {
        "features": 0,
        "width": 512,
        "kernel_size": 3,
        "dilations": (1, 2, 4),
        "dropout": 0.15,
    },
    "frame_transformer": {
        "features": 0,
        "width": 256,
        "layers": 2,
        "heads": 4,
        "hidden": 512,
        "dropout": 0.1,
        "max_steps": 1000,
    },
}
# What a config.json may also say, if it says what jfusion's networks do.
_FIXED = {
    "distilbert": {"activation": "gelu"},
    "bert": {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False},
    "convnext": {"hidden_act": "gelu"},
}

# Depths and widths of timm's ConvNeXt architectures. Others of its family (_hnf, _ols, _rms, _mlp,
# v2) are different networks.
_TIMM = {
    "convnext_atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
    "convnext_femto": ((2, 2, 6, 2), (48, 96, 192, 384)),
    "convnext_pico": ((2, 2, 6, 2), (64, 128, 256, 512)),
    "convnext_nano": ((2, 2, 8, 2), (80, 160, 320, 640)),
    "convnext_tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnext_small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "convnext_base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "convnext_large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
    "convnext_xlarge": ((3, 3, 27, 3), (256, 512, 1024, 2048)),
}
# timm's constructor arguments and ours; the second group changes no number of the encoder.
_TIMM_ARGUMENTS = {
    "depths": "depths",
    "dims": "hidden_sizes",
    "in_chans": "num_channels",
    "patch_size": "patch_size",
    "ls_init_value": "layer_scale_init_value",
    "drop_path_rate": "drop_path_rate",
}
_TIMM_HARMLESS = {"num_classes", "global_pool", "drop_rate", "head_init_scale", "conv_mlp"}

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


@dataclass(frozen=True)
class Network:
    """A network as its folder describes it.

    Attributes:
        network: Its name in jfusion: `distilbert`, `bert` or `convnext`.
        sizes: The arguments of its constructor.
        size: Side of the square picture it was trained on; 0 for a text network, like all below.
        crop: Share of the shorter side that the centre crop keeps; 0 resizes straight to the
            square.
        mean: Channel means of pictures scaled to [0, 1].
        std: Channel standard deviations, likewise.
        resample: How pictures were resized: `bicubic`, `bilinear` ...
    """

    network: str
    sizes: dict[str, Any] = field(default_factory=dict)
    size: int = 0
    crop: float = 0.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resample: str = ""


def describe(folder: Path) -> Network:
    """Reads which network a folder holds.

    Args:
        folder: A folder with the config.json of Hugging Face (`model_type`) or of timm
            (`architecture`).

    Raises:
        WeightsError: There is no config.json, or it describes a network that jfusion has not.
    """
    file = Path(folder) / "config.json"
    config = _read(file)
    if "model_type" in config:
        return _hugging_face(file, config)
    if "architecture" in config:
        return _timm(file, config)
    raise WeightsError(f"{file} has neither model_type (Hugging Face) nor architecture (timm)")


def _hugging_face(file: Path, config: Mapping[str, Any]) -> Network:
    kind = config["model_type"]
    if kind not in _FIXED:
        raise WeightsError(f"{file}: model_type is {kind!r}; jfusion reads {', '.join(_FIXED)}")
    for key, only in _FIXED[kind].items():
        if config.get(key, only) != only:
            raise WeightsError(f"{file}: {key} is {config[key]!r}; jfusion's {kind} has {only!r}")
    sizes = {
        key: _number(file, key, config.get(key, default), default)
        for key, default in DEFAULTS[kind].items()
    }
    if kind != "convnext":
        return Network(kind, sizes)
    return Network(kind, sizes, **_hugging_face_picture(file, config))


def _hugging_face_picture(file: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Preprocessing as `ConvNextImageProcessor` does it, with that class's defaults."""
    processor = file.with_name("preprocessor_config.json")
    if not processor.exists():  # a bare `save_pretrained`; every published ConvNeXt is like this
        size = _number(file, "image_size", config.get("image_size", 224), 224)
        given = {"size": size, "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
    else:
        given = _read(processor)
    size = given.get("size", 384)
    if isinstance(size, Mapping):
        size = size.get("shortest_edge", size.get("height"))
    size = _number(processor, "size", size, 224)
    # The reference crops below 384 pixels and warps from there on.
    crop = _number(processor, "crop_pct", given.get("crop_pct") or 224 / 256, 0.875)
    normalised = given.get("do_normalize", True)
    mean = given.get("image_mean", (0.5, 0.5, 0.5)) if normalised else (0.0, 0.0, 0.0)
    std = given.get("image_std", (0.5, 0.5, 0.5)) if normalised else (1.0, 1.0, 1.0)
    resample = _number(processor, "resample", given.get("resample", 3), 3)
    if resample not in _RESAMPLE:
        raise WeightsError(f"{processor}: resample is {resample!r}, expected 0 to 5")
    return {
        "size": size,
        "crop": crop if size < 384 else 0.0,
        "mean": _number(processor, "image_mean", mean, IMAGENET_MEAN),
        "std": _number(processor, "image_std", std, IMAGENET_STD),
        "resample": _RESAMPLE[resample],
    }


def _timm(file: Path, config: Mapping[str, Any]) -> Network:
    name = str(config["architecture"]).partition(".")[0]
    if name not in _TIMM:
        raise WeightsError(f"{file}: architecture is {name!r}; jfusion reads {', '.join(_TIMM)}")
    depths, widths = _TIMM[name]
    sizes = {**DEFAULTS["convnext"], "depths": depths, "hidden_sizes": widths}
    sizes["layer_norm_eps"] = 1e-6  # timm's last normalisation, unlike Hugging Face's
    for key, value in (config.get("model_args") or {}).items():
        if key in _TIMM_ARGUMENTS:
            ours = _TIMM_ARGUMENTS[key]
            default = DEFAULTS["convnext"][ours]
            # timm's None is no layer scale, which is 0 here.
            sizes[ours] = _number(file, key, 0.0 if value is None else value, default)
        elif key not in _TIMM_HARMLESS:
            raise WeightsError(
                f"{file}: model_args has {key}={value!r}; jfusion's convnext has not"
            )
    # Older files have the entries of pretrained_cfg at the top level.
    given = {**config, **(config.get("pretrained_cfg") or {})}
    squash = given.get("crop_mode", "center") == "squash"
    return Network(
        "convnext",
        sizes,
        size=_number(file, "input_size", given.get("input_size", (3, 224, 224)), (3, 224, 224))[-1],
        crop=0.0 if squash else _number(file, "crop_pct", given.get("crop_pct", 0.875), 0.875),
        mean=_number(file, "mean", given.get("mean", IMAGENET_MEAN), IMAGENET_MEAN),
        std=_number(file, "std", given.get("std", IMAGENET_STD), IMAGENET_STD),
        resample=str(given.get("interpolation", "bicubic")),
    )


def _number(file: Path, key: str, value: Any, like: Any) -> Any:
    """`value` if it is of the kind of `like`: an int, a float, or a tuple of one of them."""
    if isinstance(like, tuple):
        if isinstance(value, list | tuple) and value:
            return tuple(_number(file, key, item, like[0]) for item in value)
        raise WeightsError(f"{file}: {key} is {value!r}, expected a list of numbers")
    kinds, name = (int, "an integer") if isinstance(like, int) else (int | float, "a number")
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise WeightsError(f"{file}: {key} is {value!r}, expected {name}")
    return type(like)(value)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(
            f"{file.parent} holds no {file.name}, which says what network the weights are of"
        ) from None
    except ValueError as error:
        raise WeightsError(f"{file} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{file} holds {type(content).__name__}, expected an object")
    return content
