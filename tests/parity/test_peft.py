"""Adapters against PEFT: forward, gradients, and files in both directions."""

import numpy as np
import pytest

from jfusion.models import lora
from jfusion.models.bert import Bert, DistilBert
from jfusion.models.convnext import ConvNeXt
from jfusion.pretrained import loader
from jfusion.pretrained import peft as ours
from tests.modules import run
from tests.parity.conftest import Port, assert_gradients_near, assert_near, randomise

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

# PEFT asks transformers by a name that transformers has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

RANK, ALPHA = 4, 6.0
LENGTHS = np.array([12, 5, 1], np.int32)
REAL = np.arange(12)[None] < LENGTHS[:, None]
EVERY_LINEAR = {
    Bert: ["query", "key", "value", "dense"],
    DistilBert: ["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"],
    ConvNeXt: ["pwconv1", "pwconv2"],
}
TARGETS = [
    (Bert, ["query", "value"]),
    *EVERY_LINEAR.items(),
]


class AdaptedPort(Port):
    """jfusion's network with the weights of one folder and the adapters of another."""

    def __init__(self, network_class, folder, adapters, targets):
        self.adapters = adapters

        def build(*, rngs, **sizes):
            network = network_class(**sizes, rngs=rngs)
            lora.add(network, [f".*/({'|'.join(targets)})"], RANK, ALPHA, 0.1, rngs=rngs)
            return network

        super().__init__(build, folder)

    def load(self, folder):
        own = {path: leaf for path, leaf in self.targets.items() if not lora.is_adapter(path)}
        return {**loader.load(folder, self.network.network, own), **self.load_adapters()}

    def load_adapters(self, folder=None):
        """The adapters of a folder, or tensors that have their keys, for example gradients."""
        adapters = {path: leaf for path, leaf in self.targets.items() if lora.is_adapter(path)}
        return ours.load(folder or self.adapters, adapters, alpha=ALPHA)


def reference(network, folder):
    """transformers' network, whose weights are saved in `folder`."""
    if network is Bert:
        sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
        sizes |= dict(intermediate_size=64, max_position_embeddings=16)
        config = transformers.BertConfig(vocab_size=60, **sizes)
        model = transformers.BertModel(config, add_pooling_layer=False)
    elif network is DistilBert:
        sizes = dict(dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=16)
        model = transformers.DistilBertModel(transformers.DistilBertConfig(vocab_size=60, **sizes))
    else:
        config = transformers.ConvNextConfig(depths=(1, 2), hidden_sizes=(8, 12), num_stages=2)
        model = transformers.ConvNextModel(config)
    model = randomise(model)
    model.save_pretrained(folder)
    return model


def adapted(model, targets, **options):
    """PEFT's network around `model`, with adapters as after training: B is not 0."""
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets, **options)
    wrapped = peft.get_peft_model(model, config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            if "lora_" in name:
                value.copy_(0.3 * torch.randn(value.shape, generator=generator))
    return wrapped.eval()


def arrays(network):
    """The same batch for both sides. What pads is no padding id but noise."""
    rng = np.random.default_rng(0)
    if network is ConvNeXt:
        pixels = rng.normal(size=(2, 24, 32, 3)).astype(np.float32)
        return {"pixels": pixels}, {"pixel_values": torch.tensor(pixels).permute(0, 3, 1, 2)}
    ids = rng.integers(1, 60, (3, 12)).astype(np.int32)
    mask = torch.tensor(REAL.astype(np.int64))
    return (
        {"ids": ids, "length": LENGTHS},
        {"input_ids": torch.tensor(ids), "attention_mask": mask},
    )


def tokens_of(network, output):
    """The tokens as jfusion orders them, those of padding 0."""
    tokens = output.last_hidden_state
    if network is ConvNeXt:
        return tokens.permute(0, 2, 3, 1).reshape(len(tokens), -1, tokens.shape[1])
    return tokens * torch.tensor(REAL[..., None])


def our_tokens(network, model, inputs):
    tokens = run(model, inputs).tokens
    return tokens if network is ConvNeXt else tokens * REAL[..., None]


@pytest.fixture(params=TARGETS, ids=[f"{n.__name__}-{len(t)}" for n, t in TARGETS])
def both(request, tmp_path):
    """A network's class, PEFT's network, and jfusion's with the weights that PEFT saved."""
    network, targets = request.param
    theirs = adapted(reference(network, tmp_path / "network"), targets)
    theirs.save_pretrained(tmp_path / "adapters")
    port = AdaptedPort(network, tmp_path / "network", tmp_path / "adapters", targets)
    return network, theirs, port


def test_forward_and_gradients(both, tmp_path):
    network, theirs, port = both
    inputs, their_inputs = arrays(network)
    tokens = tokens_of(network, theirs(**their_inputs))
    with theirs.disable_adapter():
        plain = tokens_of(network, theirs(**their_inputs))
    assert (tokens - plain).abs().max() > 0.5

    model = port.module()
    assert_near(our_tokens(network, model, inputs), tokens, 1e-4, "tokens")
    if network is not ConvNeXt:
        compare_layers(port.module(), theirs, inputs, their_inputs)

    weights = np.random.default_rng(1).normal(size=tokens.shape).astype(np.float32)
    if network is not ConvNeXt:
        weights *= REAL[..., None]
    (tokens * torch.tensor(weights)).sum().backward()
    expected = port.load_adapters(save_gradients(theirs, tmp_path / "gradients"))
    gradients = port.gradients(weighted_sum, inputs, weights)
    assert_gradients_near({path: gradients[path] for path in expected}, expected)


def compare_layers(model, theirs, inputs, their_inputs):
    """Each layer on the reference's own input, to 1e-5."""
    with torch.no_grad():
        output = theirs(**their_inputs, output_hidden_states=True)
    hidden = [h.numpy() for h in output.hidden_states]
    stack = model.transformer if isinstance(model, DistilBert) else model.encoder
    for i, layer in enumerate(stack.layer):
        answer = run(layer, hidden[i], inputs["length"])
        assert_near(answer[REAL], hidden[i + 1][REAL], 1e-5, f"layer {i}")


def weighted_sum(model, inputs, weights):
    return (model(inputs).tokens * weights).sum()


def save_gradients(theirs, folder):
    """Writes the gradients of the adapters as PEFT writes the adapters; nothing else has any."""
    with torch.no_grad():
        for name, value in theirs.named_parameters():
            assert (value.grad is not None) == ("lora_" in name), name
            if value.grad is not None:
                value.copy_(value.grad)
    theirs.save_pretrained(folder)
    return folder


def test_what_jfusion_saves_peft_loads(both, tmp_path):
    network, _, port = both
    rng = np.random.default_rng(3)
    trained = {
        path: leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32)
        if lora.is_adapter(path)
        else leaf
        for path, leaf in port.params.items()
    }
    ours.save(tmp_path / "ours", trained, alpha=ALPHA, dropout=0.1)
    port.params = trained

    model = peft.PeftModel.from_pretrained(
        reference(network, tmp_path / "again"), tmp_path / "ours"
    )
    inputs, their_inputs = arrays(network)
    with torch.no_grad():
        tokens = tokens_of(network, model.eval()(**their_inputs))
    assert_near(our_tokens(network, port.module(), inputs), tokens, 1e-4, "tokens")


def test_merging_is_pefts(both):
    _, theirs, port = both
    merged = lora.merge(port.params, ALPHA)
    state = theirs.merge_and_unload().state_dict()
    kernels = [path for path in merged if not np.array_equal(merged[path], port.params[path])]
    assert len(kernels) == sum(path.endswith("lora_a") for path in port.params)
    for path in kernels:
        key = path.removesuffix("/kernel").replace("/", ".") + ".weight"
        assert_near(merged[path], state[key].T, 1e-6, path)


def test_adapters_of_a_network_with_a_head(tmp_path):
    config = transformers.BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=16,
    )
    model = randomise(transformers.BertForSequenceClassification(config))
    model.save_pretrained(tmp_path / "network")
    theirs = adapted(model, ["query", "value"])
    theirs.save_pretrained(tmp_path / "adapters")
    port = AdaptedPort(Bert, tmp_path / "network", tmp_path / "adapters", ["query", "value"])
    inputs, their_inputs = arrays(Bert)
    with torch.no_grad():
        tokens = tokens_of(Bert, theirs.base_model.model.bert(**their_inputs))
    assert_near(our_tokens(Bert, port.module(), inputs), tokens, 1e-4, "tokens")


@pytest.mark.parametrize(
    "options",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"bias": "all"},
        {"rank_pattern": {"query": 2}},
        {"alpha_pattern": {"query": 2}},
        {"modules_to_save": ["LayerNorm"]},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_peft_writes_of_other_kinds_is_refused(tmp_path, options):
    theirs = adapted(reference(Bert, tmp_path / "network"), ["query"], **options)
    theirs.save_pretrained(tmp_path / "adapters")
    with pytest.raises(ours.WeightsError, match=next(iter(options))):
        ours.describe(tmp_path / "adapters")
