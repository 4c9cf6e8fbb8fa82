"""How the pictures were prepared that a checkpoint was trained on.

Each function returns the fields of `networks.Network` about pictures: size, crop, mean, std and
resample.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jfusion.pretrained.config_json import number, read
from jfusion.pretrained.hub import WeightsError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


def convnext(file: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Preprocessing as `ConvNextImageProcessor` does it, with that class's defaults.

    Args:
        file: The config.json; preprocessor_config.json stands beside it.
        config: Its content.
    """
    processor, given = _processor(file)
    if given is None:  # a bare `save_pretrained`; every published ConvNeXt is like this
        size = _side(file, "image_size", config.get("image_size", 224))
        given = {"size": size, "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
    size = _side(processor, "size", given.get("size", 384))
    # The reference crops below 384 pixels and warps from there on.
    crop = number(processor, "crop_pct", given.get("crop_pct") or 224 / 256, 0.875)
    mean, std = _normalisation(processor, given, HALF, HALF)
    return {
        "size": size,
        "crop": crop if size < 384 else 0.0,
        "mean": mean,
        "std": std,
        "resample": _resample(processor, given, 3),
    }


def mobilenet_v2(file: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Preprocessing as `MobileNetV2ImageProcessor` does it, with that class's defaults."""
    processor, given = _processor(file)
    if given is None:
        crop = _side(file, "image_size", config.get("image_size", 224))
        given = {"size": round(crop * 256 / 224), "crop_size": crop}
    short = _side(processor, "size", given.get("size", 256))
    cropped = given.get("do_center_crop", True)
    size = _side(processor, "crop_size", given.get("crop_size", 224)) if cropped else short
    mean, std = _normalisation(processor, given, HALF, HALF)
    return {
        "size": size,
        "crop": size / short,
        "mean": mean,
        "std": std,
        "resample": _resample(processor, given, 2),
    }


def efficientnet(file: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Preprocessing as `EfficientNetImageProcessor` does it, with that class's defaults.

    It may divide by the deviation twice (`include_top`). The published deviations are the square
    roots of ImageNet's, so that twice is once.
    """
    processor, given = _processor(file)
    if given is None:  # as published, but for the size
        given = {
            "size": _side(file, "image_size", config.get("image_size", 600)),
            "image_mean": IMAGENET_MEAN,
            "image_std": IMAGENET_STD,
            "include_top": False,
            "resample": 0,
        }
    if given.get("do_center_crop", False):
        raise WeightsError(
            f"{processor}: do_center_crop is true after resizing to a square, which jfusion does "
            "not do; resize to crop_size without it"
        )
    mean, std = _normalisation(processor, given, HALF, HALF)
    if given.get("include_top", True):
        again = number(processor, "image_std", given.get("image_std", HALF), HALF)
        std = tuple(a * b for a, b in zip(std, again, strict=True))
    factor = number(processor, "rescale_factor", given.get("rescale_factor", 1 / 255), 1.0)
    factor, offset = 255 * factor, 1.0 if given.get("rescale_offset", False) else 0.0
    if abs(factor - 1) > 1e-6 or offset:  # pictures from 0 to `factor`, less `offset`
        mean = tuple((m + offset) / factor for m in mean)
        std = tuple(s / factor for s in std)
    return {
        "size": _side(processor, "size", given.get("size", 346)),
        "crop": 0.0,
        "mean": mean,
        "std": std,
        "resample": _resample(processor, given, 3),
    }


def timm(file: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Preprocessing as timm's `pretrained_cfg` describes it."""
    # Older files have its entries at the top level.
    given = {**config, **(config.get("pretrained_cfg") or {})}
    squash = given.get("crop_mode", "center") == "squash"
    return {
        "size": number(file, "input_size", given.get("input_size", (3, 224, 224)), (3, 224))[-1],
        "crop": 0.0 if squash else number(file, "crop_pct", given.get("crop_pct", 0.875), 0.875),
        "mean": number(file, "mean", given.get("mean", IMAGENET_MEAN), IMAGENET_MEAN),
        "std": number(file, "std", given.get("std", IMAGENET_STD), IMAGENET_STD),
        "resample": str(given.get("interpolation", "bicubic")),
    }


def _processor(file: Path) -> tuple[Path, dict[str, Any] | None]:
    """The file beside config.json, and what it says, if there is one."""
    processor = file.with_name("preprocessor_config.json")
    return (processor, read(processor)) if processor.exists() else (file, None)


def _side(file: Path, key: str, size: Any) -> int:
    if isinstance(size, Mapping):
        size = size.get("shortest_edge", size.get("height"))
    elif isinstance(size, list | tuple) and size:
        size = size[0]
    return number(file, key, size, 224)


def _normalisation(
    file: Path, given: Mapping[str, Any], mean: tuple, std: tuple
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation; those given here stand for what the file leaves out."""
    if not given.get("do_normalize", True):
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return (
        number(file, "image_mean", given.get("image_mean", mean), IMAGENET_MEAN),
        number(file, "image_std", given.get("image_std", std), IMAGENET_STD),
    )


def _resample(file: Path, given: Mapping[str, Any], default: int) -> str:
    resample = number(file, "resample", given.get("resample", default), 3)
    if resample not in _RESAMPLE:
        raise WeightsError(f"{file}: resample is {resample!r}, expected 0 to 5")
    return _RESAMPLE[resample]
