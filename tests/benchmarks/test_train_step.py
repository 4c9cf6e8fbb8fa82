import dataclasses
import functools
import json

import jax.numpy as jnp
import numpy as np
import pytest
import rich.console

pytest.importorskip("torch")
pytest.importorskip("peft")

import torch

from benchmarks import (
    compare,
    inference,
    jfusion_step,
    timing,
    torch_losses,
    torch_twins,
    torch_work,
    train_step,
)
from benchmarks.cases import BERT, CONFIGS, EFFICIENTNET, IMAGE, LORA, MODELS, TEXT, Case
from jfusion import config_file, trees
from jfusion.config import ConcatFusion
from jfusion.training.contrastive import info_nce

SMALL_TEXT = TEXT | dict(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
SMALL_BERT = BERT | dict(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
)
SMALL_MOBILENET = dict(depth_multiplier=0.25)
SMALL_EFFICIENTNET = EFFICIENTNET | dict(
    kernel_sizes=(3, 5),
    in_channels=(32, 8),
    out_channels=(8, 16),
    strides=(1, 2),
    num_block_repeats=(1, 1),
    expand_ratios=(1, 2),
)
SMALL_IMAGE = IMAGE | dict(hidden_sizes=(8, 16), depths=(1, 1))


def small(text, image, dtype="float32"):
    return Case(
        "small",
        text=SMALL_TEXT if text else None,
        image=SMALL_IMAGE if image else None,
        batch=2,
        dtype=dtype,
        tokens=6,
        pixels=16,
    )


def small_image(network):
    sizes = {"mobilenet_v2": SMALL_MOBILENET, "efficientnet": SMALL_EFFICIENTNET}[network]
    return Case("small", image=sizes, image_network=network, batch=2, pixels=16)


def small_bert(lora):
    fusion = ConcatFusion(hidden=())
    return Case(
        "small", SMALL_BERT, text_network="bert", lora=lora, fusion=fusion, batch=2, tokens=6
    )


def small_phq8(name):
    """The case `name`, of its kind in all but the sizes."""
    full = Case("small", **MODELS[name], batch=3, tokens=6, steps=5)
    if full.cnn is None:
        fusion = dataclasses.replace(full.fusion, project=8, hidden=(12,))
        return dataclasses.replace(full, text=SMALL_BERT, fusion=fusion)
    cnn = {**full.cnn, "width": 8, "dilations": (1,)}
    fusion = dataclasses.replace(full.fusion, width=8, layers=1, heads=2, feed_forward=12)
    return dataclasses.replace(full, text=SMALL_TEXT, cnn=cnn, fusion=fusion)


PHQ8 = ("phq8_lora", "phq8_lora_norm", "phq8_attention")


@pytest.mark.parametrize(
    ("step", "case"),
    [
        (train_step.STEP, small_phq8("phq8_lora_norm")),
        (train_step.STEP, small_phq8("phq8_attention")),
        (inference.STEP, small_image("efficientnet")),
    ],
    ids=["phq8_lora_norm", "phq8_attention", "efficientnet-inference"],
)
def test_a_row_tells_both_rates_and_their_ratio(step, case, monkeypatch):
    monkeypatch.setattr(timing, "peak_flops", functools.partial(timing.peak_flops, size=256))
    monkeypatch.setattr(timing, "bandwidth", functools.partial(timing.bandwidth, size=2**16))
    row = compare.measure(step, case, steps=1, rounds=1, compiled=False)
    assert row["name"] == "small" and row["dtype"] == case.dtype
    assert row["jfusion"] > 0 and row["torch"] > 0
    assert row["ratio"] == pytest.approx(row["jfusion"] / row["torch"])
    assert 0 < row["share"] < 1
    assert (row["byte_share"] is None) == (row["bytes"] is None) == bool(case.lora)
    assert case.lora or row["byte_share"] > 0
    assert json.loads(json.dumps(row)) == row
    console = rich.console.Console(width=200)
    with console.capture() as text:
        console.print(compare.table(step.title, [row]))
    assert f"{row['ratio']:.2f}" in text.get() and step.title in text.get()


@pytest.mark.parametrize(
    "case",
    [
        small(True, True),
        small_image("mobilenet_v2"),
        small_image("efficientnet"),
        small_bert(None),
        small_bert(LORA),
        *map(small_phq8, PHQ8),
    ],
    ids=["fusion", "mobilenet_v2", "efficientnet", "full", "lora", *PHQ8],
)
def test_both_sides_train_the_same_number_of_parameters(case):
    ours = jfusion_step.model(case).params
    rates = trees.first_match(jfusion_step.rates(case), ours)
    trained, frozen = trees.split(ours, rates)
    twin = torch_twins.Twin(case)
    # jfusion has a learnt vector for each absent modality besides, where none can be absent, too.
    extra = sum(leaf.size for path, leaf in ours.items() if path.startswith("fusion/missing/"))
    extra = 0 if case.fusion.modality_dropout else extra
    expected = {train: 0 for train in (True, False)}
    for p in twin.parameters():
        expected[p.requires_grad] += p.numel()
    assert trees.size(trained) - extra == expected[True]
    assert trees.size(frozen) == expected[False]


def test_the_work_is_three_forward_passes():
    text = small(True, False)
    D, hidden, N, rows = 16, 32, 6, 2
    layer = 2 * rows * N * (4 * D * D + 2 * D * hidden) + 4 * rows * N * N * D
    head = 2 * rows * (D * 512 + 512 * 23)
    assert torch_work.train_step(text).flops == 3 * (layer + head)
    doubled = dataclasses.replace(text, batch=4)
    assert torch_work.train_step(doubled).flops == 2 * torch_work.train_step(text).flops


@pytest.mark.parametrize("network", ["mobilenet_v2", "efficientnet"])
def test_every_product_moves_its_three_arrays(network):
    case = small_image(network)
    twin, moved = torch_twins.Twin(case).eval(), 0

    def count(layer, inputs, output):
        nonlocal moved
        arrays = (*inputs, output, *layer.parameters())
        moved += sum(array.numel() for array in arrays)

    for layer in twin.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            layer.register_forward_hook(count)
    inputs, _ = torch_twins.arrays(case, "cpu", torch.contiguous_format)
    with torch.no_grad():
        twin(inputs)
    parameters = sum(p.numel() for p in twin.parameters())

    forward, training = torch_work.inference(case), torch_work.train_step(case)
    # Pictures are padded for the first convolution where the twin pads like TensorFlow.
    assert forward.bytes == pytest.approx(4 * moved, rel=0.05)
    assert training == (3 * forward.flops, 3 * forward.bytes + 28 * parameters)
    half = torch_work.inference(dataclasses.replace(case, dtype="bfloat16"))
    assert half == (forward.flops, forward.bytes / 2)


def test_both_sides_answer_in_evaluation_mode():
    """Dropout and the statistics of a batch would make two passes differ, or the rows depend."""
    case = small_image("efficientnet")
    ours = jfusion_step.inference(case)
    first, again = ours()["genres"], ours()["genres"]
    np.testing.assert_array_equal(first, again)
    theirs = torch_twins.inference(case, torch.contiguous_format, compiled=False)
    assert torch.equal(theirs(), theirs()) and not theirs().requires_grad
    assert first.shape == tuple(theirs().shape) == (2, 23)


def test_frozen_layers_have_no_gradient_of_their_weights():
    D, hidden, N, rows, layers = 16, 32, 6, 2, 2
    frozen = 2 * rows * N * (4 * D * D + 2 * D * hidden) * layers
    adapters = 2 * rows * N * 2 * (2 * D * LORA["rank"]) * layers
    full, lora = (torch_work.train_step(small_bert(lora)).flops for lora in (None, LORA))
    assert lora == full - frozen + 3 * adapters


def test_the_work_of_attention_between_modalities():
    """One layer more: 4 projections, 2 products of each pair, and 2 fully connected layers."""
    case = small_phq8("phq8_attention")
    fusion = dataclasses.replace(case.fusion, layers=case.fusion.layers + 1)
    more = (
        torch_work.train_step(dataclasses.replace(case, fusion=fusion)).flops
        - torch_work.train_step(case).flops
    )
    D, hidden, rows, lengths = 8, 12, 3, {"text": 6, "audio": 5, "video": 5}
    pairs = [(lengths[a], lengths[b]) for a in lengths for b in lengths if a != b]
    attention = sum(2 * D * D * 2 * (T + S) + 4 * T * S * D for T, S in pairs)
    feed_forward = sum(4 * T * D * hidden for T in lengths.values())
    assert more == 3 * rows * (attention + feed_forward)


@pytest.mark.parametrize("name", PHQ8)
def test_the_networks_are_those_of_the_config(name):
    config = config_file.load(f"{CONFIGS / name}.py:daic_woz")
    case = Case(name, **MODELS[name])
    text, video = config.inputs["transcript"], config.inputs["video"]
    assert text.encoder.network == case.text_network and text.max_tokens == case.tokens
    lora = case.lora or {"rank": 0}
    assert {key: getattr(text.encoder.lora, key) for key in lora if key != "layers"} == {
        key: number for key, number in lora.items() if key != "layers"
    }
    assert case.frames == {"audio": 74, "video": len(video.features)}
    assert video.encoder.network == ("temporal_cnn" if case.cnn else "mean_pool")
    assert video.encoder.sizes.items() <= (case.cnn or {}).items()


def test_both_sides_have_the_same_contrast():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5, 4, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    targets = np.stack([np.full(5, -1), [0, 1, 2, 2, 3]], axis=1).astype(np.int32)
    present = rng.random((5, 3)) < 0.7
    batch = {"present": dict(zip("abc", present.T, strict=True)), "weight": jnp.ones(5)}
    ours = info_nce(jnp.asarray(vectors), targets, batch, temperature=0.5, positives="modalities")
    twins = torch_losses.info_nce(
        torch.from_numpy(vectors[:, 1:]),
        torch.from_numpy(targets[:, 1]),
        torch.from_numpy(present),
        0.5,
    )
    assert twins.item() == pytest.approx(float(ours.mean()), abs=1e-5) and twins.item() > 0.1


def test_training_hides_modalities_but_never_all_of_a_row():
    case = dataclasses.replace(small_phq8("phq8_lora"), batch=200)
    twin = torch_twins.Twin(case)
    inputs, _ = torch_twins.arrays(case, "cpu", torch.contiguous_format)
    _, present = twin.train()(inputs)
    assert 0.05 < 1 - present.float().mean() < 0.15 and present.any(dim=1).all()
    _, present = twin.eval()(inputs)
    assert present.all()


def test_full_and_lora_differ_in_the_adapters_alone():
    assert MODELS["lora_bert"] == {**MODELS["full_bert"], "lora": LORA}


def test_turns_alternate_and_the_median_counts(monkeypatch):
    now, order = [0.0], []
    # The first step of each turn waits long, and does not count.
    costs = {"a": iter([9, 1, 9, 5, 9, 2]), "b": iter([9, 4, 9, 4, 9, 4])}
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def side(name):
        def start():
            order.append(name)
            return name

        def finish(result):
            now[0] += next(costs[result])

        return start, finish

    seconds = timing.interleaved({"a": side("a"), "b": side("b")}, steps=2, rounds=3)
    assert seconds == {"a": 1.0, "b": 2.0}
    assert order == ["a", "a", "a", "b", "b", "b"] * 3
