import inspect
import json

import pytest
import transformers

from jfusion.models.bert import Bert, DistilBert
from jfusion.models.convnext import ConvNeXt
from jfusion.models.efficientnet import EfficientNet
from jfusion.models.mobilenet_v2 import MobileNetV2
from jfusion.models.multimodal import NETWORKS
from jfusion.pretrained.hub import WeightsError
from jfusion.pretrained.networks import DEFAULTS, IMAGENET_MEAN, IMAGENET_STD, describe

CLASSES = {
    "bert": (Bert, transformers.BertConfig),
    "convnext": (ConvNeXt, transformers.ConvNextConfig),
    "distilbert": (DistilBert, transformers.DistilBertConfig),
    "efficientnet": (EfficientNet, transformers.EfficientNetConfig),
    "mobilenet_v2": (MobileNetV2, transformers.MobileNetV2Config),
}
# What Hugging Face's network is where our defaults are another or its config has no such number.
OTHERWISE = {
    "efficientnet": {
        "width_coefficient": 2.0,
        "depth_coefficient": 3.1,
        "hidden_dim": 2560,
        "padding": "even",
    },
}
# Numbers that only our networks have, or that mean something else there.
NOT_THEIRS = {
    "efficientnet": {"padding", "batch_norm_momentum"},
    "mobilenet_v2": {
        *("out_channels", "num_block_repeats", "strides", "hidden_dim", "padding"),
        "batch_norm_momentum",
    },
}
ONLY_THE_DATA_TELLS = {"features", "numbers", "categories"}
# What timm writes, shortened.
TIMM = {
    "architecture": "convnext_tiny",
    "num_classes": 1000,
    "pretrained_cfg": {
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "crop_mode": "center",
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
    },
}
# facebook/convnext-tiny-224 as it was published, before sizes became dictionaries.
PROCESSOR = {
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_resize": True,
    "image_mean": list(IMAGENET_MEAN),
    "image_std": list(IMAGENET_STD),
    "resample": 3,
    "size": 224,
}


def folder(path, config, processor=None):
    (path / "config.json").write_text(json.dumps(config))
    if processor is not None:
        (path / "preprocessor_config.json").write_text(json.dumps(processor))
    return path


def refused(path, config, text, processor=None):
    with pytest.raises(WeightsError, match=text) as error:
        describe(folder(path, config, processor))
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", CLASSES)
def test_defaults_are_those_of_the_reference(name):
    config = CLASSES[name][1]()
    for key, value in {**DEFAULTS[name], **OTHERWISE.get(name, {})}.items():
        if key in NOT_THEIRS.get(name, ()):
            continue
        theirs = getattr(config, key)
        assert (tuple(theirs) if isinstance(theirs, list) else theirs) == value, key


def test_every_network_has_its_defaults():
    assert NETWORKS.keys() == DEFAULTS.keys()
    for name, network in NETWORKS.items():
        arguments = inspect.signature(network.__init__).parameters.values()
        ours = {a.name: a.default for a in arguments if a.kind is a.POSITIONAL_OR_KEYWORD}
        del ours["self"]
        for key in ONLY_THE_DATA_TELLS & ours.keys():
            assert ours[key] in (inspect.Parameter.empty, ())
            ours[key] = DEFAULTS[name][key]
        assert ours == DEFAULTS[name]


@pytest.mark.parametrize("name", CLASSES)
def test_a_config_may_leave_out_what_equals_the_defaults(tmp_path, name):
    described = describe(folder(tmp_path, {"model_type": name}))
    assert described.network == name
    assert described.sizes == {**DEFAULTS[name], **OTHERWISE.get(name, {})}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("distilbert", dict(dim=64, n_layers=3, dropout=0.3)),
        ("bert", dict(hidden_size=384, num_hidden_layers=6, layer_norm_eps=1e-7)),
        ("convnext", dict(depths=(3, 3, 27, 3), hidden_sizes=(128, 256, 512, 1024))),
        ("efficientnet", dict(width_coefficient=1.0, depth_coefficient=1.1, hidden_dim=1280)),
        ("efficientnet", dict(depthwise_padding=(16,), drop_connect_rate=0.0)),
        ("mobilenet_v2", dict(depth_multiplier=1.4, layer_norm_eps=1e-5)),
    ],
)
def test_what_transformers_saves_is_read(tmp_path, name, changes):
    CLASSES[name][1](**changes).save_pretrained(tmp_path)
    described = describe(tmp_path)
    assert described.network == name
    assert described.sizes == {**DEFAULTS[name], **OTHERWISE.get(name, {}), **changes}


def test_text_networks_have_no_picture(tmp_path):
    described = describe(folder(tmp_path, {"model_type": "bert"}))
    assert (described.size, described.mean, described.std) == (0, (), ())


def test_the_published_preprocessing(tmp_path):
    described = describe(folder(tmp_path, {"model_type": "convnext"}, PROCESSOR))
    assert (described.size, described.crop, described.resample) == (224, 0.875, "bicubic")
    assert (described.mean, described.std) == (IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"size": {"shortest_edge": 256}, "crop_pct": 0.95}, {"size": 256, "crop": 0.95}),
        ({"size": {"shortest_edge": 384}}, {"size": 384, "crop": 0.0}),  # warped, not cropped
        ({"resample": 2}, {"resample": "bilinear"}),
        ({"image_mean": [0.5, 0.4, 0.3]}, {"mean": (0.5, 0.4, 0.3)}),
        ({"do_normalize": False}, {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}),
    ],
    ids=["size", "384", "resample", "mean", "unnormalised"],
)
def test_other_preprocessing(tmp_path, changes, expected):
    described = describe(folder(tmp_path, {"model_type": "convnext"}, {**PROCESSOR, **changes}))
    assert {key: getattr(described, key) for key in expected} == expected


def test_preprocessing_left_out_of_its_file_is_the_references(tmp_path):
    described = describe(folder(tmp_path, {"model_type": "convnext"}, {}))
    # The defaults of ConvNextImageProcessor, which are not what its checkpoints were trained with.
    assert (described.size, described.crop, described.resample) == (384, 0.0, "bicubic")
    assert described.mean == described.std == (0.5, 0.5, 0.5)


def test_without_a_file_preprocessing_is_imagenets(tmp_path):
    described = describe(folder(tmp_path, {"model_type": "convnext"}))
    assert (described.size, described.crop) == (224, 0.875)
    assert (described.mean, described.std) == (IMAGENET_MEAN, IMAGENET_STD)


def test_timm(tmp_path):
    described = describe(folder(tmp_path, TIMM))
    assert described.network == "convnext"
    # timm's last normalisation has another epsilon than Hugging Face's.
    assert described.sizes == {**DEFAULTS["convnext"], "layer_norm_eps": 1e-6}
    assert (described.size, described.crop, described.resample) == (224, 0.875, "bicubic")
    assert (described.mean, described.std) == (IMAGENET_MEAN, IMAGENET_STD)


def test_timm_of_another_size_with_arguments(tmp_path):
    config = TIMM | {"architecture": "convnext_base.fb_in22k"}
    config["model_args"] = {"drop_path_rate": 0.1, "ls_init_value": None, "num_classes": 5}
    sizes = describe(folder(tmp_path, config)).sizes
    assert sizes["depths"] == (3, 3, 27, 3) and sizes["hidden_sizes"] == (128, 256, 512, 1024)
    assert sizes["drop_path_rate"] == 0.1 and sizes["layer_scale_init_value"] == 0.0


def test_timm_that_squashes_and_an_older_flat_file(tmp_path):
    given = {**TIMM["pretrained_cfg"], "input_size": [3, 384, 384], "crop_mode": "squash"}
    described = describe(folder(tmp_path, {"architecture": "convnext_tiny", **given}))
    assert (described.size, described.crop) == (384, 0.0)


@pytest.mark.parametrize(
    "architecture",
    ["convnext_tiny_hnf", "convnext_nano_ols", "convnext_large_mlp", "convnextv2_tiny", "resnet50"],
)
def test_other_architectures_of_timm_are_refused(tmp_path, architecture):
    refused(tmp_path, {"architecture": architecture}, f"'{architecture}'.*convnext_tiny")


@pytest.mark.parametrize("argument", ["act_layer", "norm_eps", "use_grn", "kernel_sizes"])
def test_arguments_of_timm_that_change_the_network_are_refused(tmp_path, argument):
    refused(tmp_path, {**TIMM, "model_args": {argument: 1}}, f"{argument}=1")


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"model_type": "roberta"}, "'roberta'; jfusion reads distilbert, bert, convnext"),
        ({"model_type": "mean_pool"}, "'mean_pool'; jfusion reads distilbert, bert, convnext"),
        ({"model_type": "bert", "hidden_act": "relu"}, "hidden_act is 'relu'.*'gelu'"),
        ({"model_type": "bert", "is_decoder": True}, "is_decoder"),
        ({"model_type": "distilbert", "activation": "gelu_new"}, "activation is 'gelu_new'"),
        ({"model_type": "convnext", "depths": 3}, "depths is 3, expected a list"),
        ({"model_type": "convnext", "depths": [3, "x"]}, "depths is 'x', expected an integer"),
        ({"model_type": "bert", "hidden_size": "big"}, "hidden_size is 'big'"),
        ({"model_type": "bert", "hidden_size": 1.5}, "hidden_size is 1.5, expected an integer"),
        ({"model_type": "bert", "hidden_dropout_prob": True}, "True, expected a number"),
        ({"hidden_size": 3}, "neither model_type"),
        ([1], "holds list"),
    ],
)
def test_what_jfusion_does_not_have_is_refused(tmp_path, config, text):
    refused(tmp_path, config, text)


def test_broken_files_are_named(tmp_path):
    with pytest.raises(WeightsError, match=r"holds no config\.json"):
        describe(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json is not JSON"):
        describe(tmp_path)
    refused(tmp_path, {"model_type": "convnext"}, "resample is 'cubic'", {"resample": "cubic"})
