"""ConvNeXt against transformers and timm."""

import numpy as np
import pytest

from jfusion.models.convnext import ConvNeXt
from jfusion.models.layers import LayerNorm
from tests.modules import run
from tests.parity.conftest import (
    Port,
    assert_gradients_near,
    assert_near,
    assert_norm_near,
    randomise,
    save_gradients,
)

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

DEPTHS, WIDTHS = (1, 1, 2, 1), (8, 12, 16, 24)


@pytest.mark.parametrize("theirs", ["ConvNextModel", "ConvNextForImageClassification"])
def test_every_module_and_gradient_of_transformers(tmp_path, theirs):
    # The epsilon of timm, so that the compiled network serves both; the full size has the default.
    config = transformers.ConvNextConfig(depths=DEPTHS, hidden_sizes=WIDTHS, layer_norm_eps=1e-6)
    model = randomise(getattr(transformers, theirs)(config))
    model.save_pretrained(tmp_path)
    trunk = getattr(model, "convnext", model)
    # No side is a multiple of the 32 pixels that one position of the last map sees.
    pixels = pictures(70, 100)

    port = Port(ConvNeXt, tmp_path)

    compare_modules(port, transformers_modules(trunk), pixels)
    output = trunk(pixels)
    compare_outputs(port, pixels, output.last_hidden_state, output.pooler_output)
    compare_gradients(
        port, model, pixels, output.last_hidden_state, output.pooler_output, tmp_path / "gradients"
    )


# timm writes the fully connected layers of its smallest architectures as 1 x 1 convolutions.
@pytest.mark.parametrize("architecture", ["convnext_tiny", "convnext_atto"])
def test_every_module_and_gradient_of_timm(tmp_path, timm, architecture):
    model = randomise(timm.create_model(architecture, depths=DEPTHS, dims=WIDTHS, num_classes=5))
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    pixels = pictures(70, 100)

    port = Port(ConvNeXt, tmp_path)

    compare_modules(port, timm_modules(model), pixels)
    tokens = model.forward_features(pixels)
    pooled = model.forward_head(tokens, pre_logits=True)
    compare_outputs(port, pixels, tokens, pooled)
    compare_gradients(port, model, pixels, tokens, pooled, tmp_path / "gradients")


def test_full_size_of_transformers(tmp_path):
    model = randomise(transformers.ConvNextModel(transformers.ConvNextConfig()))
    model.save_pretrained(tmp_path)
    pixels = pictures(64, 96)

    port = Port(ConvNeXt, tmp_path)

    compare_modules(port, transformers_modules(model), pixels)
    with torch.no_grad():
        output = model(pixels)
    compare_outputs(port, pixels, output.last_hidden_state, output.pooler_output)


def test_full_size_of_timm(tmp_path, timm):
    model = randomise(timm.create_model("convnext_tiny.fb_in1k"))
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    pixels = pictures(64, 96)

    port = Port(ConvNeXt, tmp_path)

    with torch.no_grad():
        tokens = model.forward_features(pixels)
        pooled = model.forward_head(tokens, pre_logits=True)
    compare_outputs(port, pixels, tokens, pooled)


def pictures(height, width):
    return torch.tensor(
        np.random.default_rng(0).normal(size=(2, 3, height, width)), dtype=torch.float32
    )


def transformers_modules(trunk):
    """The reference's modules in the order of `our_modules`."""
    modules = [trunk.embeddings]
    for stage in trunk.encoder.stages:
        modules += [*stage.downsampling_layer, *stage.layers]
    return [*modules, trunk.layernorm]


def timm_modules(model):
    modules = [model.stem]
    for stage in model.stages:
        downsample = [] if isinstance(stage.downsample, torch.nn.Identity) else stage.downsample
        modules += [*downsample, *stage.blocks]
    return [*modules, model.head.norm]


def our_modules(model):
    modules = [model.embeddings]
    for stage in model.encoder.stages:
        modules += [*stage.downsampling_layer, *stage.layers]
    return [*modules, model.layernorm]


def compare_modules(port, theirs, pixels):
    """Each module on the reference's own input, to 1e-5."""
    *ours, last = our_modules(port.module())
    *theirs, their_last = theirs
    x = pixels
    for i, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        with torch.no_grad():
            y = their(x)
        assert_near(run(our, nhwc(x)), nhwc(y), 1e-5, f"module {i}, {type(our).__name__}")
        if isinstance(our, LayerNorm):
            assert_norm_near(our, their)
        x = y
    assert_norm_near(last, their_last)


def compare_outputs(port, pixels, tokens, pooled):
    encoded = run(port.module(), {"pixels": nhwc(pixels)})
    tokens = nhwc(tokens)
    assert_near(encoded.tokens, tokens.reshape(2, -1, tokens.shape[-1]), 1e-4, "tokens")
    assert_near(encoded.pooled, pooled, 1e-4, "pooled")
    assert encoded.mask.all() and encoded.mask.shape == encoded.tokens.shape[:2]


def compare_gradients(port, model, pixels, tokens, pooled, folder):
    rng = np.random.default_rng(1)
    on_tokens = rng.normal(size=nhwc(tokens).shape).astype(np.float32)
    on_pooled = rng.normal(size=pooled.shape).astype(np.float32)

    loss = (tokens.permute(0, 2, 3, 1) * torch.tensor(on_tokens)).sum()
    (loss + (pooled * torch.tensor(on_pooled)).sum()).backward()
    reference = port.load(save_gradients(model, folder))

    on_tokens = on_tokens.reshape(2, -1, on_tokens.shape[-1])
    ours = port.gradients(weighted_sum, {"pixels": nhwc(pixels)}, on_tokens, on_pooled)
    assert_gradients_near(ours, reference)


def weighted_sum(model, inputs, on_tokens, on_pooled):
    encoded = model(inputs)
    return (encoded.tokens * on_tokens).sum() + (encoded.pooled * on_pooled).sum()


def nhwc(x):
    return x.detach().permute(0, 2, 3, 1).numpy()
