import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from jfusion.config import (
    Classes,
    ConcatFusion,
    Config,
    ConfigError,
    Data,
    Encoder,
    Image,
    MultiLabel,
    Phase,
    Tabular,
    Text,
    Train,
)
from jfusion.data.dataset import load
from jfusion.pretrained.hub import WeightsError
from jfusion.training import assemble
from jfusion.training.state import Network
from tests.pretrained import checkpoints

CONVNEXT = {"model_type": "convnext", "depths": [1, 1], "hidden_sizes": [8, 16]}


def a_config(plot=None, poster=None, **changes):
    """A config of a text of up to 6 tokens and a picture of 32 pixels."""
    inputs = {}
    if plot is not None:
        encoder = Encoder(**{"network": "distilbert", **plot.pop("encoder", {})})
        inputs["plot"] = Text(**{"encoder": encoder, "column": "plot", "max_tokens": 6, **plot})
    if poster is not None:
        encoder = Encoder(**{"network": "convnext", **poster.pop("encoder", {})})
        inputs["poster"] = Image(**{"encoder": encoder, "column": "poster", "size": 32, **poster})
    return Config(
        inputs=inputs,
        targets={"genres": MultiLabel(column="genres")},
        train=Train(phases=(Phase(epochs=1),)),
        data=Data(source="movies"),
        **changes,
    )


def a_dataset(words=20):
    return SimpleNamespace(
        inputs={"plot": SimpleNamespace(vocab_size=words)}, labels={"genres": ("Drama", "War")}
    )


@pytest.fixture
def text_folder(tmp_path):
    return checkpoints.write(tmp_path / "text", checkpoints.distilbert())


@pytest.fixture
def image_folder(tmp_path):
    """A folder that only describes its network: the weights are not looked at."""
    folder = tmp_path / "image"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONVNEXT))
    return folder


def spec_of(config, dataset=None, words=20):
    folders = assemble.find_pretrained(config)
    statistics = {name: {} for name in config.targets}
    return assemble.model_spec(config, dataset or a_dataset(words), folders, statistics)


def message(config, words=20):
    with pytest.raises(ConfigError) as caught:
        spec_of(config, words=words)
    return str(caught.value)


def test_from_scratch_the_config_defines_the_network():
    sizes = {"dim": 16, "n_heads": 2}
    spec = spec_of(a_config(plot={"encoder": {"sizes": sizes}}, poster={}))
    assert spec["encoders"]["plot"] == {
        "network": "distilbert",
        "sizes": {"dim": 16, "n_heads": 2, "vocab_size": 20},
    }
    assert spec["encoders"]["poster"] == {
        "network": "convnext",
        "sizes": {},
        "pixels": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "flip": 0.5,
        },
    }
    assert spec["heads"] == {"genres": {"kind": "logits", "outputs": 2}}
    assert sizes == {"dim": 16, "n_heads": 2}, "the config itself stays as it is"


def test_pretrained_the_folder_defines_the_network(text_folder):
    encoder = {"weights": str(text_folder), "sizes": {"dropout": 0.0, "dim": 8}}
    spec = spec_of(a_config(plot={"encoder": encoder}))
    given = {key: value for key, value in checkpoints.CONFIG.items() if key != "model_type"}
    assert spec["encoders"]["plot"]["sizes"] == {
        **given,
        "dropout": 0.0,
        "attention_dropout": 0.1,
    }


def a_table(**sizes):
    """The spec of a table of two numbers and a category of listings, and its rows."""
    part = Tabular(
        Encoder("tabular", sizes=sizes), numbers=("price", "reviews"), categories=("condition",)
    )
    config = Config(
        inputs={"facts": part},
        targets={"product": Classes("code")},
        train=Train(phases=(Phase(epochs=1),)),
        data=Data(source="products", rows=40, on_error="skip"),
    )
    loaded = load(config, {})
    return assemble.model_spec(config, loaded, {}, {"product": {}}), loaded


def test_a_table_is_as_wide_as_the_data_say():
    spec, loaded = a_table(width=8)
    assert spec["encoders"]["facts"] == {
        "network": "tabular",
        "sizes": {"width": 8, "numbers": 2, "categories": (5,)},
    }
    network = Network(json.loads(json.dumps(spec)), np.float32)  # as a model folder keeps it
    assert network.params["encoders/facts/categories/0/table"].shape == (5, 8)
    split = loaded.splits["train"]
    assert split.inputs["facts"]["numbers"].shape == (len(split.source), 2)
    # The same columns in another table: names that training did not have are one value more.
    assert loaded.inputs["facts"].encode([(1, 2, "broken")]).arrays["categories"] == [[1]]


def test_a_table_of_another_width_is_refused():
    with pytest.raises(
        ConfigError, match=r"facts\.encoder\.sizes\.numbers: 3, but the data have 2"
    ):
        a_table(numbers=3)


def test_modalities_are_hidden_only_where_there_are_several():
    fusion = ConcatFusion(modality_dropout=0.2)
    assert spec_of(a_config(plot={}, poster={}, fusion=fusion))["modality_dropout"] == 0.2
    assert spec_of(a_config(plot={}, fusion=fusion))["modality_dropout"] == 0.0


@pytest.mark.parametrize(
    ("preprocessor", "given", "mean", "std"),
    [
        (None, {}, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ({"image_mean": [0.1, 0.2, 0.3]}, {}, [0.1, 0.2, 0.3], [0.5, 0.5, 0.5]),
        ({"do_normalize": False}, {}, [0, 0, 0], [1, 1, 1]),
        ({"image_mean": [0.1, 0.2, 0.3]}, {"mean": (0.0, 0.0, 0.0)}, [0, 0, 0], [0.5, 0.5, 0.5]),
        ({}, {"std": (1.0, 2.0, 3.0)}, [0.5, 0.5, 0.5], [1, 2, 3]),
    ],
)
def test_normalisation_is_the_configs_or_the_checkpoints(
    image_folder, preprocessor, given, mean, std
):
    if preprocessor is not None:
        (image_folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    spec = spec_of(a_config(poster={"encoder": {"weights": str(image_folder)}, **given}))
    assert spec["encoders"]["poster"]["pixels"] == {"mean": mean, "std": std, "flip": 0.5}
    assert spec["encoders"]["poster"]["sizes"]["hidden_sizes"] == (8, 16)


class TestWhatDoesNotFit:
    def test_the_wrong_network_for_the_weights(self, text_folder):
        said = message(a_config(plot={"encoder": {"network": "bert", "weights": str(text_folder)}}))
        assert said == (
            f"config.inputs.plot.encoder.network: 'bert', but {str(text_folder)!r} holds "
            "'distilbert'"
        )

    def test_a_tokenizer_larger_than_the_vocabulary(self, text_folder):
        said = message(a_config(plot={"encoder": {"weights": str(text_folder)}}), words=21)
        assert said.startswith(
            "config.inputs.plot.tokenizer: it has 21 words, the network 20; take"
        )
        encoder = {"sizes": {"vocab_size": 20}}
        assert spec_of(a_config(plot={"encoder": encoder}), words=20)
        said = message(a_config(plot={"encoder": encoder}), words=21)
        assert said.endswith("leave out config.inputs.plot.encoder.sizes.vocab_size")

    @pytest.mark.parametrize(
        ("sizes", "expected"),
        [
            ({"n_layer": 2}, "n_layer: no such number of distilbert; did you mean n_layers?"),
            (
                {"hidden_size": 2},
                "hidden_size: no such number of distilbert; did you mean hidden_d",
            ),
            ({"zzz": 2}, "zzz: no such number of distilbert; known: vocab_size, dim, n_layers, "),
            ({"dim": "64"}, "dim: '64', expected a value like 768"),
            ({"dim": 64.0}, "dim: 64.0, expected a value like 768"),
            ({"n_layers": True}, "n_layers: True, expected a value like 6"),
        ],
    )
    def test_a_wrong_number(self, sizes, expected):
        said = message(a_config(plot={"encoder": {"sizes": sizes}}))
        assert said.startswith(f"config.inputs.plot.encoder.sizes.{expected}")

    def test_a_number_that_the_weights_fix(self, text_folder):
        """Another number of heads would load, and compute something else."""
        encoder = {"weights": str(text_folder), "sizes": {"n_heads": 4}}
        assert message(a_config(plot={"encoder": encoder})) == (
            "config.inputs.plot.encoder.sizes.n_heads: 4, but the weights are of a network with 2; "
            "only dropout, attention_dropout may differ"
        )

    def test_more_tokens_than_positions(self, text_folder):
        said = message(a_config(plot={"encoder": {"weights": str(text_folder)}, "max_tokens": 7}))
        assert said == "config.inputs.plot.max_tokens: 7, but the network has 6 positions"
        assert "512 positions" in message(a_config(plot={"max_tokens": 513}))

    def test_pictures_too_small(self, image_folder):
        assert message(a_config(poster={"size": 31})) == (
            "config.inputs.poster.size: 31 pixels, but the network needs 32"
        )
        spec_of(a_config(poster={"encoder": {"weights": str(image_folder)}, "size": 8}))

    def test_a_folder_that_is_not_there_is_told_with_its_key(self):
        config = a_config(plot={"encoder": {"weights": "./nowhere"}})
        with pytest.raises(WeightsError, match=r"--config\.inputs\.plot\.encoder\.weights=''"):
            assemble.find_pretrained(config)


def test_weights_go_where_they_belong(text_folder):
    config = a_config(
        plot={"encoder": {"weights": str(text_folder)}},
        poster={"encoder": {"sizes": {"depths": (1,), "hidden_sizes": (8,)}}},
    )
    folders = assemble.find_pretrained(config)
    assert folders == {"plot": text_folder}
    network = Network(spec_of(config))
    weights = assemble.pretrained_weights(config, network, folders)
    assert set(weights) == {p for p in network.params if p.startswith("encoders/plot/")}
    kernel = checkpoints.distilbert()["distilbert.transformer.layer.1.ffn.lin1.weight"].T
    np.testing.assert_array_equal(
        weights["encoders/plot/transformer/layer/1/ffn/lin1/kernel"], kernel
    )


def test_weights_of_another_size_are_refused(text_folder):
    tensors = checkpoints.distilbert()
    key = "distilbert.transformer.layer.1.ffn.lin1.weight"
    save_file(tensors | {key: tensors[key][:, :4]}, text_folder / "model.safetensors")
    config = a_config(plot={"encoder": {"weights": str(text_folder)}})
    folders = assemble.find_pretrained(config)
    network = Network(spec_of(config))
    with pytest.raises(WeightsError, match=re.escape(key)):
        assemble.pretrained_weights(config, network, folders)
