"""EfficientNet against transformers and timm."""

import jax
import pytest

from jfusion.models.efficientnet import EfficientNet
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

# Of one width all paddings are alike in what they reach, of the other they differ.
SIZES = (64, 51)
B0 = dict(width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280, drop_connect_rate=0.0)
# One block of each kind: without expansion, with a step and a kernel of 5, with a residual.
SMALL = dict(
    kernel_sizes=(3, 5, 3),
    in_channels=(32, 8, 16),
    out_channels=(8, 16, 24),
    strides=(1, 2, 2),
    num_block_repeats=(1, 2, 1),
    expand_ratios=(1, 6, 4),
    hidden_dim=1280,
    width_coefficient=1.0,
    depth_coefficient=1.0,
    drop_connect_rate=0.0,
)


def of_transformers(folder, theirs="EfficientNetModel", **config):
    config = transformers.EfficientNetConfig(**config)
    model = randomise_statistics(randomise(getattr(transformers, theirs)(config)))
    model.save_pretrained(folder)
    return model, getattr(model, "efficientnet", model)


def of_timm(timm, folder, architecture):
    model = randomise_statistics(randomise(timm.create_model(architecture, num_classes=3)))
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    return model


def our_stages(model):
    """The embeddings, every block, and what comes after them."""
    encoder = model.encoder

    def top(x):
        return jax.nn.silu(encoder.top_bn(encoder.top_conv(x)))

    return [model.embeddings, *encoder.blocks, top]


def test_transformers(tmp_path):
    trunk = of_transformers(tmp_path, **B0)[1]
    port, pixels = Port(EfficientNet, tmp_path), pictures(*SIZES)
    encoder = trunk.encoder

    def top(x):
        return encoder.top_activation(encoder.top_bn(encoder.top_conv(x)))

    theirs = [trunk.embeddings, *encoder.blocks, top]
    assert_stages_near(our_stages(port.module()), theirs, pixels)
    with torch.no_grad():
        output = trunk(pixels)
    compare_outputs(port, pixels, output.last_hidden_state, output.pooler_output)


@pytest.mark.parametrize("architecture", ["efficientnet_b0.ra_in1k", "tf_efficientnet_b0.in1k"])
def test_timm(tmp_path, timm, architecture):
    model = of_timm(timm, tmp_path, architecture)
    port, pixels = Port(EfficientNet, tmp_path), pictures(*SIZES)
    if architecture.startswith("tf_"):  # whose blocks differ from the other's by padding only
        blocks = [block for stage in model.blocks for block in stage]
        assert_stages_near(
            our_stages(port.module()),
            [
                lambda x: model.bn1(model.conv_stem(x)),
                *blocks,
                lambda x: model.bn2(model.conv_head(x)),
            ],
            pixels,
        )
    with torch.no_grad():
        tokens = model.forward_features(pixels)
        pooled = model.forward_head(tokens, pre_logits=True)
    compare_outputs(port, pixels, tokens, pooled)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_gradients_and_statistics_of_transformers(tmp_path, training):
    def outputs(model, pixels):
        output = model.efficientnet(pixels)
        return output.last_hidden_state, output.pooler_output

    # The middle block of a step pads symmetrically, as some do in sizes other than B0.
    model = of_transformers(
        tmp_path, "EfficientNetForImageClassification", depthwise_padding=[1], **SMALL
    )[0]
    set_momentum(model, 0.2)
    port = Port(EfficientNet, tmp_path, batch_norm_momentum=0.2)
    compare_a_pass(port, model, outputs, pictures(*SIZES, rows=6), training, tmp_path)


def test_gradients_and_statistics_of_timm(tmp_path, timm):
    def outputs(model, pixels):
        tokens = model.forward_features(pixels)
        return tokens, model.forward_head(tokens, pre_logits=True)

    model = of_timm(timm, tmp_path, "efficientnet_b0")
    set_momentum(model, 0.2)
    port = Port(EfficientNet, tmp_path, batch_norm_momentum=0.2)
    compare_a_pass(port, model, outputs, pictures(*SIZES, rows=4), True, tmp_path)


def test_other_sizes_of_transformers_fit(tmp_path):
    b1 = dict(width_coefficient=1.0, depth_coefficient=1.1, hidden_dim=1280)
    transformers.EfficientNetModel(transformers.EfficientNetConfig(**b1)).save_pretrained(tmp_path)
    port = Port(EfficientNet, tmp_path)  # loading checks every shape
    assert len(port.module().encoder.blocks) == 23
