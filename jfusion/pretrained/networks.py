"""Which network a folder of pretrained weights holds, and its numbers.

Read from the plain JSON files beside the weights, with the defaults of the reference's classes, so
that neither torch nor transformers' networks are needed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jfusion.pretrained import preprocessing
from jfusion.pretrained.config_json import number, read
from jfusion.pretrained.defaults import DEFAULTS
from jfusion.pretrained.hub import WeightsError
from jfusion.pretrained.preprocessing import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["DEFAULTS", "IMAGENET_MEAN", "IMAGENET_STD", "Network", "describe"]

# What a config.json may also say, if it says what jfusion's networks do.
_FIXED = {
    "distilbert": {"activation": "gelu"},
    "bert": {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False},
    "convnext": {"hidden_act": "gelu"},
    "mobilenet_v2": {
        "hidden_act": "relu6",
        "output_stride": 32,
        "first_layer_is_expansion": True,
        "finegrained_output": True,
    },
    "efficientnet": {"hidden_act": "swish", "pooling_type": "mean"},
}
# Numbers of ours that a config.json of Hugging Face never has: its networks have these.
_OURS = {
    "mobilenet_v2": {
        key: DEFAULTS["mobilenet_v2"][key]
        for key in (
            *("out_channels", "num_block_repeats", "strides", "hidden_dim", "padding"),
            "batch_norm_momentum",
        )
    },
    "efficientnet": {"padding": "even"},
}
# What a config.json stands for that leaves a number out, where that differs from our defaults.
_LEFT_OUT = {
    "efficientnet": {"width_coefficient": 2.0, "depth_coefficient": 3.1, "hidden_dim": 2560}
}
_PICTURE = {
    "convnext": preprocessing.convnext,
    "mobilenet_v2": preprocessing.mobilenet_v2,
    "efficientnet": preprocessing.efficientnet,
}

# timm's architectures: the network, and the numbers that are not our defaults. Others of a family
# (ConvNeXt's _hnf, _ols, _rms, _mlp, v2; MobileNetV2's 110d, 120d) are different networks.
_CONVNEXT = {
    "atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
    "femto": ((2, 2, 6, 2), (48, 96, 192, 384)),
    "pico": ((2, 2, 6, 2), (64, 128, 256, 512)),
    "nano": ((2, 2, 8, 2), (80, 160, 320, 640)),
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
    "xlarge": ((3, 3, 27, 3), (256, 512, 1024, 2048)),
}
_TIMM_MOBILENET = {"padding": "symmetric", "layer_norm_eps": 1e-5, "batch_norm_momentum": 0.1}
_TIMM_EFFICIENTNET = {"batch_norm_momentum": 0.1, "drop_connect_rate": 0.0}
_TIMM = {
    **{
        # timm's last normalisation has another epsilon than Hugging Face's.
        f"convnext_{name}": (
            "convnext",
            {"depths": depths, "hidden_sizes": widths, "layer_norm_eps": 1e-6},
        )
        for name, (depths, widths) in _CONVNEXT.items()
    },
    **{
        f"mobilenetv2_{name}": ("mobilenet_v2", {"depth_multiplier": width, **_TIMM_MOBILENET})
        for name, width in (("035", 0.35), ("050", 0.5), ("075", 0.75), ("100", 1.0), ("140", 1.4))
    },
    "efficientnet_b0": (
        "efficientnet",
        {"padding": "symmetric", "batch_norm_eps": 1e-5, **_TIMM_EFFICIENTNET},
    ),
    "tf_efficientnet_b0": (
        "efficientnet",
        {"padding": "same", "batch_norm_eps": 1e-3, **_TIMM_EFFICIENTNET},
    ),
}
# timm's constructor arguments and ours.
_TIMM_ARGUMENTS = {
    "convnext": {
        "depths": "depths",
        "dims": "hidden_sizes",
        "in_chans": "num_channels",
        "patch_size": "patch_size",
        "ls_init_value": "layer_scale_init_value",
        "drop_path_rate": "drop_path_rate",
    },
    "mobilenet_v2": {
        "in_chans": "num_channels",
        "bn_eps": "layer_norm_eps",
        "bn_momentum": "batch_norm_momentum",
    },
    "efficientnet": {
        "in_chans": "num_channels",
        "bn_eps": "batch_norm_eps",
        "bn_momentum": "batch_norm_momentum",
        "drop_path_rate": "drop_connect_rate",
    },
}
# Arguments that change no number of the encoder.
_TIMM_HARMLESS = {
    "convnext": {"num_classes", "global_pool", "drop_rate", "head_init_scale", "conv_mlp"},
    "mobilenet_v2": {"num_classes", "global_pool", "drop_rate"},
    "efficientnet": {"num_classes", "global_pool", "drop_rate"},
}
_TIMM_PADDING = {"": "symmetric", "same": "same"}


@dataclass(frozen=True)
class Network:
    """A network as its folder describes it.

    Attributes:
        network: Its name in jfusion, a key of `DEFAULTS`.
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
    config = read(file)
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
    defaults = {**DEFAULTS[kind], **_LEFT_OUT.get(kind, {})}
    ours = _OURS.get(kind, {})
    sizes = {
        key: ours[key] if key in ours else number(file, key, config.get(key, default), default)
        for key, default in defaults.items()
    }
    if kind == "mobilenet_v2" and not config.get("tf_padding", True):
        sizes["padding"] = "symmetric"
    if kind == "efficientnet":
        # The file has TensorFlow's decay (0.99) under the name of PyTorch's momentum. The share of
        # a new batch is the small one of the two.
        momentum = number(file, "batch_norm_momentum", config.get("batch_norm_momentum", 0.99), 0.1)
        sizes["batch_norm_momentum"] = round(min(momentum, 1 - momentum), 6)
    picture = _PICTURE.get(kind)
    return Network(kind, sizes, **(picture(file, config) if picture else {}))


def _timm(file: Path, config: Mapping[str, Any]) -> Network:
    name = str(config["architecture"]).partition(".")[0]
    if name not in _TIMM:
        raise WeightsError(f"{file}: architecture is {name!r}; jfusion reads {', '.join(_TIMM)}")
    kind, changes = _TIMM[name]
    sizes = {**DEFAULTS[kind], **changes}
    for key, value in (config.get("model_args") or {}).items():
        if key in _TIMM_ARGUMENTS[kind]:
            ours = _TIMM_ARGUMENTS[kind][key]
            # timm's None is no layer scale, which is 0 here.
            value = 0.0 if value is None else value
            sizes[ours] = number(file, key, value, DEFAULTS[kind][ours])
        elif key == "pad_type" and "padding" in sizes and value in _TIMM_PADDING:
            sizes["padding"] = _TIMM_PADDING[value]
        elif key not in _TIMM_HARMLESS[kind]:
            raise WeightsError(f"{file}: model_args has {key}={value!r}; jfusion's {kind} has not")
    return Network(kind, sizes, **preprocessing.timm(file, config))
