"""Every config: it loads, its full-size network is what it says, and shrunk it trains."""

import ast
import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jfusion import config_file, trees
from jfusion.config import ConfigError, Frames, Text
from jfusion.data.builders import mm_imdb, rakuten
from jfusion.data.samples import interviews, movies, products
from jfusion.data.text import Vocabulary
from jfusion.training import assemble, optim, run
from jfusion.training.checkpoint import Progress
from jfusion.training.state import Network

FILES = {path.stem: path for path in sorted((Path(__file__).parents[1] / "configs").glob("*.py"))}

# The words of the samples' texts, and those of BERT and DistilBERT.
SAMPLE_WORDS = {"movies": 5_773, "interviews": 226, "products": 522, "rakuten": 15_001}
BERT_WORDS = 30_522
# What has the same columns.
SAMPLES = {"mm_imdb": "movies", "daic_woz": "interviews", "rakuten": "products"}
WIDTHS = {"audio": 74, "video": 10}

# Parameters of the whole network at full size.
TOTALS = {
    "genre_fusion": 865_539,
    "genre_fusion:mm_imdb": 94_983_287,
    "genre_image": 416_643,
    "genre_image:mm_imdb": 28_226_423,
    "genre_text": 450_443,
    "genre_text:mm_imdb": 66_769_175,
    "phq8_attention": 483_334,
    "phq8_attention:daic_woz": 127_426_182,
    "phq8_lora": 958_869,
    "phq8_lora:daic_woz": 110_412_629,
    "phq8_lora_norm": 962_965,
    "phq8_lora_norm:daic_woz": 110_416_725,
    "product_fusion": 113_452,
    "product_fusion:rakuten": 4_707_803,
    "product_fusion:rakuten,backbone=mobilenet_v2": 4_707_803,
    "product_fusion:rakuten,backbone=efficientnet_b0": 6_491_479,
    "product_image": 55_692,
    "product_image:rakuten": 2_559_515,
    "product_image:rakuten,backbone=mobilenet_v2": 2_559_515,
    "product_image:rakuten,backbone=efficientnet_b0": 4_343_191,
    "product_text": 33_388,
    "product_text:rakuten": 2_023_003,
}
# Those that are trained, where it is not all.
TRAINABLE = {
    "phq8_lora": 869_013,
    "phq8_lora:daic_woz": 1_520_981,
    "phq8_lora_norm": 873_109,
    "phq8_lora_norm:daic_woz": 1_525_077,
}
# Those of its published parts, of Hugging Face's networks without their heads.
PARTS = {
    "genre_fusion:mm_imdb": {"encoders/plot/": 66_362_880, "encoders/poster/": 27_820_128},
    "genre_image:mm_imdb": {"encoders/poster/": 27_820_128},
    "genre_text:mm_imdb": {"encoders/plot/": 66_362_880},
    "phq8_attention:daic_woz": {"encoders/transcript/": 66_362_880},
    # 108,891,648 of BERT without its pooler, and an A and a B for query and value of 12 layers.
    "phq8_lora:daic_woz": {"encoders/transcript/": 108_891_648 + 12 * 2 * 2 * 768 * 8},
    "phq8_lora_norm:daic_woz": {"encoders/transcript/": 108_891_648 + 12 * 2 * 2 * 768 * 8},
    **{
        f"{config}:rakuten{backbone}": {"encoders/image/": count}
        for config in ("product_fusion", "product_image")
        for backbone, count in (
            ("", 2_223_872),
            (",backbone=mobilenet_v2", 2_223_872),
            (",backbone=efficientnet_b0", 4_007_548),
        )
    },
}

# Numbers that make a network tiny and leave everything else as the config has it.
TINY = {
    "distilbert": {"dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 16},
    "bert": {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    },
    "convnext": {"depths": (1, 1), "hidden_sizes": (4, 8)},
    "mobilenet_v2": {
        "out_channels": (8, 8),
        "num_block_repeats": (1, 1),
        "strides": (1, 2),
        "hidden_dim": 8,
    },
    "efficientnet": {
        "kernel_sizes": (3, 5),
        "in_channels": (32, 8),
        "out_channels": (8, 8),
        "strides": (1, 2),
        "num_block_repeats": (1, 1),
        "expand_ratios": (1, 2),
        "hidden_dim": 16,
    },
    "text_cnn": {"width": 8, "filters": 4, "hidden": 8},
    "mean_pool": {},
    "temporal_cnn": {"width": 8},
}


# What config.json says of the published networks; what it leaves out is as in their classes.
PUBLISHED = {
    "bert": {"model_type": "bert"},
    "distilbert": {"model_type": "distilbert"},
    "convnext": {"model_type": "convnext"},
    "mobilenet_v2": {"model_type": "mobilenet_v2"},
    "efficientnet": {
        "model_type": "efficientnet",
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "hidden_dim": 1280,
    },
}


def variants(path):
    """The names that a config file compares its argument `variant` with, and the empty one."""
    compared = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare) and getattr(node.left, "id", "") == "variant"
    ]
    constants = [n for node in compared for side in node.comparators for n in ast.walk(side)]
    return ["", *(n.value for n in constants if isinstance(n, ast.Constant) and n.value)]


NAMES = [
    f"{stem}:{variant}" if variant else stem
    for stem, path in FILES.items()
    for variant in variants(path)
]
every_config = pytest.mark.parametrize("name", NAMES)


def load(name, *overrides):
    stem, colon, variant = name.partition(":")
    return config_file.load(f"{FILES[stem]}{colon}{variant}", overrides)


def full_size(config, folder):
    """The network of a config on its own data, with weights as `save_pretrained` leaves them."""
    folders = {}
    for name, part in config.inputs.items():
        if part.encoder.weights:  # sizes not in config.json are those of the published networks
            folders[name] = folder / part.encoder.network
            folders[name].mkdir(exist_ok=True)
            (folders[name] / "config.json").write_text(json.dumps(PUBLISHED[part.encoder.network]))
    words = SAMPLE_WORDS.get(config.data.source)
    dataset = SimpleNamespace(
        inputs={
            name: SimpleNamespace(
                vocab_size=BERT_WORDS if name in folders else words, width=WIDTHS.get(name)
            )
            for name in config.inputs
        },
        labels={name: labels(config, target) for name, target in config.targets.items()},
    )
    statistics = {name: {"mean": 7.0, "spread": 5.0} for name in config.targets}
    spec = assemble.model_spec(config, dataset, folders, statistics)
    return Network(spec, assemble.DTYPES[config.train.precision])


def labels(config, target):
    if target.kind == "classes":
        coded = {"products": products, "rakuten": rakuten}.get(config.data.source)
        return coded.LABELS if coded else ("no", "yes")
    if target.kind == "multilabel":
        return {"movies": movies, "mm_imdb": mm_imdb}[config.data.source].LABELS
    return ()


def shrunk(config):
    """Overrides that make a config quick, on the embedded sample without weights."""
    overrides = [
        f"data.source={SAMPLES.get(config.data.source, config.data.source)}",
        *(f"inputs.{name}.column=designation" for name in config.inputs if name == "text"),
        "data.path=''",
        "data.rows=30",
        f"train.batch_size={2 * config.train.accumulate}",
    ]
    for name, part in config.inputs.items():
        rates = {k: v for k, v in part.encoder.sizes.items() if k in assemble.RATES}
        overrides += [
            f"inputs.{name}.encoder.weights=''",
            f"inputs.{name}.encoder.sizes={TINY[part.encoder.network] | rates}",
            {
                "text": f"inputs.{name}.max_tokens=12",
                "image": f"inputs.{name}.size=16",
                "sequence": f"inputs.{name}.steps=12",
            }[part.kind],
        ]
        if isinstance(part, Frames):
            overrides.append(f"inputs.{name}.features=()")
    if config.fusion.kind == "cross_attention":
        sizes = dict(width=8, heads=2, feed_forward=16, layers=2)
        overrides += [f"fusion.{key}={size}" for key, size in sizes.items()]
    return overrides


def test_promotion_of_ranks_is_an_error_in_every_test():
    assert jax.config.jax_numpy_rank_promotion == "raise"
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((2, 3)) + jnp.ones(3)


def test_every_config_has_its_count_pinned():
    assert sorted(TOTALS) == sorted(NAMES)
    pretrained = {n for n in NAMES if any(p.encoder.weights for p in load(n).inputs.values())}
    assert set(PARTS) == pretrained


@every_config
def test_the_docstring_has_the_command(name):
    stem, _, variant = name.partition(":")
    docstring = ast.get_docstring(ast.parse(FILES[stem].read_text()))
    assert re.search(rf"python -m jfusion\.main --config configs/{name}$", _spelt(docstring), re.M)
    if variant:
        assert f"--dataset {load(name).data.source}" in docstring


def _spelt(docstring):
    """`configs/x.py:variant` as the names here."""
    return re.sub(r"(configs/\w+)\.py", r"\1", docstring)


@pytest.mark.parametrize("stem", FILES)
def test_an_unknown_variant_is_told_the_known_ones(stem):
    with pytest.raises(ConfigError) as caught:
        load(f"{stem}:nonsense")
    for variant in variants(FILES[stem]):
        assert variant in str(caught.value)


def test_the_words_of_the_sample(monkeypatch):
    monkeypatch.setattr(movies, "_draw", lambda *_: b"")  # posters take seconds to draw
    train = movies.sources()["train"]
    plots = [train[row]["plot"] for row in range(len(train))]
    fitted = Vocabulary.fit(filter(None, plots), 15_000)
    assert len(json.loads(fitted.tokenizer)["model"]["vocab"]) == SAMPLE_WORDS["movies"]


def test_the_words_of_the_invented_interviews():
    train = interviews.sources()["train"]
    texts = [train[row]["transcript"] for row in range(len(train))]
    fitted = Vocabulary.fit(filter(None, texts), 15_000)
    assert len(json.loads(fitted.tokenizer)["model"]["vocab"]) == SAMPLE_WORDS["interviews"]


def test_the_words_of_the_invented_products():
    train = products.sources()["train"]
    texts = [train[row]["designation"] for row in range(len(train))]
    fitted = Vocabulary.fit_plain(filter(None, texts), 15_000)
    assert len(json.loads(fitted.tokenizer)["model"]["vocab"]) == SAMPLE_WORDS["products"]


@every_config
def test_full_size(name, tmp_path):
    config = load(name)
    network = full_size(config, tmp_path)
    assert trees.size(network.params) == TOTALS[name]
    for prefix, count in PARTS.get(name, {}).items():
        part = {path: leaf for path, leaf in network.params.items() if path.startswith(prefix)}
        assert trees.size(part) == count
    for i, phase in enumerate(config.train.phases):
        rates = optim.peak_rates(phase, network.params, i)
        trained = trees.split(network.params, rates)[0]
        if i == len(config.train.phases) - 1:
            assert trees.size(trained) == TRAINABLE.get(name, TOTALS[name])
        assert all(rates[path] > 0 for path in rates if path.startswith("heads/"))

    rows = config.train.batch_size
    inputs = {
        name: {
            key: jax.ShapeDtypeStruct((rows, *shape), dtype)
            for key, (shape, dtype) in arrays(name, part).items()
        }
        for name, part in config.inputs.items()
    }
    present = {name: jax.ShapeDtypeStruct((rows,), bool) for name in inputs}
    answers, _ = jax.eval_shape(
        lambda params, stats, inputs, present: network.apply(
            params, stats, {"inputs": inputs, "present": present}, jax.random.key(0)
        ),
        network.params,
        network.stats,
        inputs,
        present,
    )
    outputs = {"movies": 11, "mm_imdb": 23, "products": 12, "rakuten": 27}.get(config.data.source)
    shapes = {
        **{"genres": (outputs,), "code": (outputs,)},
        **{"phq8": (1,), "depressed": (2,), "likeness": (4, 128)},
    }
    assert {head: (x.shape, x.dtype) for head, x in answers.heads.items()} == {
        head: ((rows, *shapes[head]), jnp.float32) for head in config.targets
    }


def arrays(name, part):
    """Shape of a row and dtype of each array of a modality."""
    if isinstance(part, Text):
        windows = (part.windows,) if part.windows > 1 else ()
        return {
            "ids": ((*windows, part.max_tokens), jnp.int32),
            "length": (windows, jnp.int32),
        }
    if isinstance(part, Frames):
        shape = (part.steps, WIDTHS[name])
        return {"frames": (shape, jnp.float32), "valid": (shape, bool)}
    return {"pixels": ((part.size, part.size, 3), jnp.uint8)}


@every_config
def test_overrides_that_a_docstring_advises_work(name, tmp_path):
    stem, _, variant = name.partition(":")
    docstring = ast.get_docstring(ast.parse(FILES[stem].read_text()))
    for key, value in re.findall(r"--config\.([\w.]+)='(.*)'", docstring):
        if variant:
            config = load(name, f"{key}={value}")
            assert config != load(name)
            network = full_size(config, tmp_path)
            for i, phase in enumerate(config.train.phases):
                assert optim.peak_rates(phase, network.params, i)


def different(names):
    """Without names of a config that has another name, too."""
    configs = {repr(dataclasses.replace(load(name), name="")): name for name in reversed(names)}
    return list(configs.values())


@pytest.mark.parametrize("name", different(NAMES))
def test_shrunk_it_trains(name):
    # Without decay, only a gradient moves a parameter.
    config = load(name, *shrunk(load(name)), "train.weight_decay=0.0")
    prepared = run.prepare(config)
    state = prepared.first_state()
    for phase, plan in enumerate(prepared.plans):
        if phase:
            state = prepared.phase_state(phase, state.evaluated, state.stats, state.step)
        batches = prepared.train_batches(Progress(phase=phase))
        before = jax.device_get(state.params)
        for _ in range(2):
            state, scalars = plan.train_step(state, next(batches)[0], prepared.key)
            for key, value in scalars.items():
                assert np.isfinite(value), key
        moved = [path for path in before if (before[path] != state.params[path]).any()]
        assert any(path.startswith("heads/") for path in moved)
        frozen_first = phase == 0 and len(prepared.plans) > 1 and len(config.inputs) == 1
        assert frozen_first or any(path.startswith("encoders/") for path in moved)
        if config.fusion.kind == "cross_attention":
            assert set(before) == set(moved), "every layer, pair and head takes part"
    assert int(state.step) == 2 * len(prepared.plans)
