"""MobileNetV2 and EfficientNet as their published folders describe them."""

import json

import numpy as np
import pytest

from jfusion.pretrained.hub import WeightsError
from jfusion.pretrained.networks import IMAGENET_MEAN, IMAGENET_STD, describe

HALF = (0.5, 0.5, 0.5)
MOBILENET_PROCESSOR = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_normalize": True,
    "image_mean": list(HALF),
    "image_std": list(HALF),
    "resample": 2,
    "size": {"shortest_edge": 256},
}
ROOTS = (0.47853944, 0.4732864, 0.47434163)  # of ImageNet's deviations
EFFICIENTNET = {
    "model_type": "efficientnet",
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "hidden_dim": 1280,
    "image_size": 224,
    "batch_norm_eps": 0.001,
    "batch_norm_momentum": 0.99,
    "depthwise_padding": [],
}
EFFICIENTNET_PROCESSOR = {
    "crop_size": {"height": 289, "width": 289},
    "do_center_crop": False,
    "do_normalize": True,
    "image_mean": list(IMAGENET_MEAN),
    "image_std": list(ROOTS),
    "include_top": True,
    "resample": 0,
    "rescale_factor": 0.00392156862745098,
    "rescale_offset": False,
    "size": {"height": 224, "width": 224},
}


def folder(path, config, processor=None):
    (path / "config.json").write_text(json.dumps(config))
    if processor is not None:
        (path / "preprocessor_config.json").write_text(json.dumps(processor))
    return path


def pictures(described):
    return described.size, described.crop, described.resample, described.mean, described.std


def timm(architecture, mean=IMAGENET_MEAN, std=IMAGENET_STD, crop=0.875, **rest):
    given = dict(input_size=[3, 224, 224], interpolation="bicubic", crop_pct=crop, mean=mean)
    return {"architecture": architecture, "pretrained_cfg": {**given, "std": std}, **rest}


@pytest.mark.parametrize("processor", [MOBILENET_PROCESSOR, None], ids=["published", "bare"])
def test_mobilenet_v2_of_hugging_face(tmp_path, processor):
    described = describe(folder(tmp_path, {"model_type": "mobilenet_v2"}, processor))
    assert described.sizes["padding"] == "same"
    assert described.sizes["layer_norm_eps"] == 1e-3
    assert described.sizes["batch_norm_momentum"] == 0.003
    assert pictures(described) == (224, 0.875, "bilinear", HALF, HALF)


def test_mobilenet_v2_of_hugging_face_otherwise(tmp_path):
    config = {"model_type": "mobilenet_v2", "tf_padding": False, "image_size": 96}
    described = describe(folder(tmp_path, config))
    assert described.sizes["padding"] == "symmetric"
    assert (described.size, round(described.crop, 2)) == (96, 0.87)
    uncropped = {**MOBILENET_PROCESSOR, "do_center_crop": False}
    described = describe(folder(tmp_path, config, uncropped))
    assert (described.size, described.crop) == (256, 1.0)


@pytest.mark.parametrize("processor", [EFFICIENTNET_PROCESSOR, None], ids=["published", "bare"])
def test_efficientnet_of_hugging_face(tmp_path, processor):
    described = describe(folder(tmp_path, EFFICIENTNET, processor))
    assert described.sizes["padding"] == "even"
    assert described.sizes["batch_norm_eps"] == 1e-3
    assert described.sizes["batch_norm_momentum"] == 0.01
    assert described.sizes["hidden_dim"] == 1280
    size, crop, resample, mean, std = pictures(described)
    assert (size, crop, resample, mean) == (224, 0.0, "nearest", IMAGENET_MEAN)
    # The published deviations divide twice, which are ImageNet's once.
    np.testing.assert_allclose(std, IMAGENET_STD, atol=1e-6)


def test_a_momentum_in_pytorchs_sense_is_kept(tmp_path):
    described = describe(folder(tmp_path, {**EFFICIENTNET, "batch_norm_momentum": 0.1}))
    assert described.sizes["batch_norm_momentum"] == 0.1


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("top", [True, False])
@pytest.mark.parametrize("offset", [True, False])
def test_what_efficientnets_processor_computes(tmp_path, normalised, top, offset):
    changes = {"include_top": top, "rescale_offset": offset, "do_normalize": normalised}
    factor = 1 / 127.5 if offset else 1 / 255
    processor = {**EFFICIENTNET_PROCESSOR, **changes, "rescale_factor": factor}
    described = describe(folder(tmp_path, EFFICIENTNET, processor))
    bytes_ = np.array([0.0, 100.0, 255.0])
    expected = bytes_ * factor - (1 if offset else 0)
    if normalised:
        expected = (expected - IMAGENET_MEAN) / ROOTS
    if top:
        expected = expected / ROOTS
    ours = (bytes_ / 255 - described.mean) / described.std
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_a_crop_out_of_a_square_is_refused(tmp_path):
    processor = {**EFFICIENTNET_PROCESSOR, "do_center_crop": True}
    with pytest.raises(WeightsError, match="do_center_crop is true"):
        describe(folder(tmp_path, EFFICIENTNET, processor))


@pytest.mark.parametrize(
    ("architecture", "network", "padding", "epsilon"),
    [
        ("mobilenetv2_100.ra_in1k", "mobilenet_v2", "symmetric", 1e-5),
        ("efficientnet_b0.ra_in1k", "efficientnet", "symmetric", 1e-5),
        ("tf_efficientnet_b0.ns_jft_in1k", "efficientnet", "same", 1e-3),
    ],
)
def test_timm(tmp_path, architecture, network, padding, epsilon):
    described = describe(folder(tmp_path, timm(architecture)))
    assert described.network == network
    assert described.sizes["padding"] == padding
    name = "layer_norm_eps" if network == "mobilenet_v2" else "batch_norm_eps"
    assert described.sizes[name] == epsilon
    assert described.sizes["batch_norm_momentum"] == 0.1
    assert pictures(described) == (224, 0.875, "bicubic", IMAGENET_MEAN, IMAGENET_STD)


def test_timms_other_preprocessing(tmp_path):
    config = timm("efficientnet_b0.ra4_e3600_r224_in1k", mean=HALF, std=HALF, crop=0.9)
    assert pictures(describe(folder(tmp_path, config))) == (224, 0.9, "bicubic", HALF, HALF)


def test_timms_arguments(tmp_path):
    arguments = {"bn_eps": 1e-4, "bn_momentum": 0.02, "drop_path_rate": 0.2, "pad_type": "same"}
    sizes = describe(
        folder(tmp_path, timm("efficientnet_b0", model_args={**arguments, "num_classes": 3}))
    ).sizes
    assert sizes["batch_norm_eps"] == 1e-4 and sizes["batch_norm_momentum"] == 0.02
    assert sizes["drop_connect_rate"] == 0.2 and sizes["padding"] == "same"


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"model_type": "mobilenet_v2", "output_stride": 8}, "output_stride is 8"),
        ({"model_type": "mobilenet_v2", "hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({**EFFICIENTNET, "pooling_type": "max"}, "pooling_type is 'max'"),
        ({**EFFICIENTNET, "depthwise_padding": ["x"]}, "depthwise_padding is 'x'"),
        (timm("efficientnet_b1"), "'efficientnet_b1'"),
        (timm("mobilenetv2_110d"), "'mobilenetv2_110d'"),
        (timm("efficientnet_b0", model_args={"act_layer": "relu"}), "act_layer='relu'"),
        (timm("efficientnet_b0", model_args={"pad_type": "valid"}), "pad_type='valid'"),
        (timm("mobilenetv2_100", model_args={"drop_path_rate": 0.1}), "drop_path_rate=0.1"),
    ],
)
def test_what_jfusion_does_not_have_is_refused(tmp_path, config, text):
    with pytest.raises(WeightsError, match=text) as error:
        describe(folder(tmp_path, config))
    assert str(tmp_path) in str(error.value)
