"""MobileNetV2 against transformers and timm."""

import pytest

from jfusion.models.mobilenet_v2 import MobileNetV2
from tests.parity.batch_norm import (
    Port,
    assert_stages_near,
    compare_a_pass,
    compare_outputs,
    pictures,
    randomise_statistics,
    set_momentum,
)
from tests.parity.conftest import randomise

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

# Of one width the paddings of both sides are alike, of the other TensorFlow's differ.
SIZES = (64, 51)


def of_transformers(folder, theirs="MobileNetV2Model", **config):
    config = transformers.MobileNetV2Config(**config)
    model = randomise_statistics(randomise(getattr(transformers, theirs)(config)))
    model.save_pretrained(folder)
    return model, getattr(model, "mobilenet_v2", model)


def of_timm(timm, folder, architecture, **arguments):
    model = timm.create_model(architecture, num_classes=3, **arguments)
    model = randomise_statistics(randomise(model))
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    return model


def test_transformers(tmp_path):
    trunk = of_transformers(tmp_path)[1]
    port, pixels = Port(MobileNetV2, tmp_path), pictures(*SIZES)
    ours = port.module()
    assert_stages_near(
        [ours.conv_stem, *ours.layer, ours.conv_1x1],
        [trunk.conv_stem, *trunk.layer, trunk.conv_1x1],
        pixels,
    )
    with torch.no_grad():
        output = trunk(pixels)
    compare_outputs(port, pixels, output.last_hidden_state, output.pooler_output)


def test_timm(tmp_path, timm):
    model = of_timm(timm, tmp_path, "mobilenetv2_100.ra_in1k")
    port, pixels = Port(MobileNetV2, tmp_path), pictures(*SIZES)
    ours = port.module()

    def stem(x):
        return model.blocks[0](model.bn1(model.conv_stem(x)))

    blocks = [block for stage in list(model.blocks)[1:] for block in stage]
    assert_stages_near(
        [ours.conv_stem, *ours.layer, ours.conv_1x1],
        [stem, *blocks, lambda x: model.bn2(model.conv_head(x))],
        pixels,
    )
    with torch.no_grad():
        tokens = model.forward_features(pixels)
        pooled = model.forward_head(tokens, pre_logits=True)
    compare_outputs(port, pixels, tokens, pooled)


def test_gradients_and_statistics_of_transformers(tmp_path):
    def outputs(model, pixels):
        output = model.mobilenet_v2(pixels)
        return output.last_hidden_state, output.pooler_output

    # A third of the width: what a pass does is the same.
    model = of_transformers(tmp_path, "MobileNetV2ForImageClassification", depth_multiplier=0.35)[0]
    set_momentum(model, 0.2)
    port = Port(MobileNetV2, tmp_path, batch_norm_momentum=0.2)
    compare_a_pass(port, model, outputs, pictures(*SIZES, rows=6), True, tmp_path)


def test_gradients_and_statistics_of_timm(tmp_path, timm):
    def outputs(model, pixels):
        tokens = model.forward_features(pixels)
        return tokens, model.forward_head(tokens, pre_logits=True)

    model = of_timm(timm, tmp_path, "mobilenetv2_035")
    set_momentum(model, 0.2)
    port = Port(MobileNetV2, tmp_path, batch_norm_momentum=0.2)
    compare_a_pass(port, model, outputs, pictures(*SIZES, rows=6), True, tmp_path)


@pytest.mark.parametrize("architecture", ["mobilenetv2_050", "mobilenetv2_075", "mobilenetv2_140"])
def test_other_widths_of_timm_fit(tmp_path, timm, architecture):
    model = timm.create_model(architecture)
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    Port(MobileNetV2, tmp_path)  # loading checks every shape
