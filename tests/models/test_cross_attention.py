"""B = 8 rows, one for each pattern of presence of three modalities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion import trees
from jfusion.models.cross_attention import CrossAttention
from jfusion.models.encoded import Encoded
from tests.modules import drawn, run

WIDTHS = {"audio": 5, "text": 7, "video": 4}
TOKENS = {"audio": 6, "text": 9, "video": 4}
NAMES = tuple(WIDTHS)
ROWS = 8
BITS = np.arange(ROWS)[:, None] >> np.arange(3) & 1 > 0
PRESENT = dict(zip(NAMES, BITS.T, strict=True))
EVERYTHING = {name: np.ones(ROWS, bool) for name in NAMES}
SIZES = dict(width=8, heads=2, feed_forward=12)
gates = pytest.mark.parametrize("gate", ["learned", "sample"])


def encoded(seed=0, names=NAMES):
    """Tokens of which about a third are padding, in every row at least one is not."""
    rng = np.random.default_rng(seed)
    parts = {}
    for name in NAMES:
        mask = rng.random((ROWS, TOKENS[name])) < 0.7
        mask[:, 1] = True
        tokens = rng.normal(size=(*mask.shape, WIDTHS[name])).astype(np.float32)
        parts[name] = Encoded(tokens, mask, np.full((ROWS, WIDTHS[name]), np.nan, np.float32))
    return {name: parts[name] for name in names}


def a_fusion(gate="learned", names=NAMES, **options):
    """With parameters large enough for attention to choose, and gates that differ.

    One layer beside the second kind of gate: half to compile.
    """
    widths = {name: WIDTHS[name] for name in names}
    sizes = {**SIZES, "layers": 2 if gate == "learned" else 1, "dropout": 0.0, **options}
    fusion = drawn(lambda: CrossAttention(widths, gate=gate, **sizes, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(fusion)
    rng = np.random.default_rng(1)

    def stronger(path, leaf):
        offset = rng.normal(size=leaf.shape) * 0.1 if str(path[-1]) == "bias" else 0
        scale = 20 if str(path[-1]) == "kernel" or "gates" in map(str, path) else 1
        return leaf.replace((leaf[...] * scale + offset).astype(leaf.dtype))

    return nnx.merge(graph, nnx.map_state(stronger, state))


@functools.partial(jax.jit, static_argnums=0)
def _gradients(graph, state, parts, present):
    directions = jax.random.normal(jax.random.key(0), (ROWS, SIZES["width"]))

    def loss(state, tokens):
        given = {name: parts[name]._replace(tokens=tokens[name]) for name in parts}
        return (nnx.merge(graph, state)(given, present).joint * directions).sum()

    tokens = {name: part.tokens for name, part in parts.items()}
    return jax.grad(loss, argnums=(0, 1))(state, tokens)


def gradients(fusion, parts, present):
    """The gradients of a random projection of `joint`: by parameter, and of the tokens."""
    params, tokens = jax.device_get(_gradients(*nnx.split(fusion), parts, present))
    return trees.flatten(nnx.to_pure_dict(params)), tokens


def with_garbage(parts, present, value):
    """The same encodings with `value` in all tokens that are padding or of an absent modality."""
    return {
        name: part._replace(
            tokens=np.where(
                (part.mask & present[name][:, None])[..., None], part.tokens, np.float32(value)
            )
        )
        for name, part in parts.items()
    }


@gates
def test_the_shapes_and_the_weights(gate):
    fusion = a_fusion(gate)
    joint, each, weights, _ = run(fusion, encoded(), PRESENT)
    assert fusion.width == 8 and joint.shape == (ROWS, 8) and joint.dtype == np.float32
    assert each.keys() == weights.keys() == WIDTHS.keys()
    for name in NAMES:
        assert each[name].shape == (ROWS, 8) and weights[name].dtype == np.float32
        np.testing.assert_array_equal(weights[name] > 0, PRESENT[name])
        np.testing.assert_array_equal(np.abs(each[name]).sum(axis=1) > 0, PRESENT[name])
    total = sum(weights.values())
    np.testing.assert_allclose(total, BITS.any(axis=1), atol=1e-6)
    expected = sum(weights[name][:, None] * each[name] for name in NAMES)
    np.testing.assert_allclose(joint, expected, atol=1e-6)
    assert not joint[0].any() and (np.abs(joint[1:]).sum(axis=1) > 0).all()


def test_learned_weights_are_the_softmax_over_what_is_present():
    fusion = a_fusion()
    scores = np.array([fusion.gates[name][0] for name in NAMES])
    weights = run(fusion, encoded(), PRESENT).weights
    assert np.ptp(scores) > 0.1
    for row in range(1, ROWS):
        here = np.exp(scores) * BITS[row]
        got = [weights[name][row] for name in NAMES]
        np.testing.assert_allclose(got, here / here.sum(), atol=1e-6)


def test_weights_per_sample_follow_the_row():
    one, other = (run(a_fusion("sample"), encoded(s), EVERYTHING).weights for s in (0, 1))
    assert not np.isclose(one["text"], other["text"], atol=1e-3).all()
    assert np.ptp(one["text"]) > 1e-2
    one, other = (run(a_fusion("learned"), encoded(s), EVERYTHING).weights for s in (0, 1))
    np.testing.assert_array_equal(one["text"], other["text"])


def test_the_gates_start_equal_and_signals_with_one_size():
    @jax.jit
    def make():
        widths = {"audio": 5, "text": 7}
        fusion = CrossAttention(widths, **SIZES, layers=1, rngs=nnx.Rngs(0))
        return nnx.to_pure_dict(nnx.state(fusion))

    state = make()
    for path, leaf in trees.flatten(state).items():
        if path.startswith("gates/") or path.endswith("/bias"):
            assert not leaf.any(), path
        elif path.endswith("/kernel"):
            assert 0.5 * leaf.shape[0] ** -0.5 < np.abs(leaf).max() <= leaf.shape[0] ** -0.5, path


def attend_by_hand(module, x, source, mask):
    """One row's attention, in NumPy: x [N, D], the valid ones of source [S, D]."""
    source = source[mask]
    q, k, v = (
        x @ np.asarray(module.query.kernel[...]) + np.asarray(module.query.bias[...]),
        source @ np.asarray(module.key.kernel[...]),
        source @ np.asarray(module.value.kernel[...]) + np.asarray(module.value.bias[...]),
    )
    heads = []
    for part in np.split(np.arange(8), 2):
        scores = q[:, part] @ k[:, part].T / np.sqrt(len(part))
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        heads.append(scores / scores.sum(axis=1, keepdims=True) @ v[:, part])
    found = np.concatenate(heads, axis=1)
    return found @ np.asarray(module.out.kernel[...]) + np.asarray(module.out.bias[...])


def normalise(module, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * np.asarray(module.scale[...]) + np.asarray(module.bias[...])


def affine(module, x):
    return x @ np.asarray(module.kernel[...]) + np.asarray(module.bias[...])


@pytest.mark.parametrize("row", range(1, ROWS))
def test_it_is_what_it_says(row):
    """The whole fusion of one row by hand, for each pattern of presence."""
    fusion, parts = a_fusion(), encoded()
    here = [name for name in NAMES if PRESENT[name][row]]
    masks = {name: parts[name].mask[row] for name in here}
    x = {}
    for name in here:
        tokens = np.where(masks[name][:, None], parts[name].tokens[row], 0)
        x[name] = normalise(fusion.projection_norms[name], affine(fusion.projections[name], tokens))
    for layer in fusion.layers:
        normal = {name: normalise(layer.attention_norm[name], x[name]) for name in here}
        for name in here:
            found = [
                attend_by_hand(
                    layer.attention[name][other], normal[name], normal[other], masks[other]
                )
                for other in here
                if other != name
            ]
            y = x[name] + (np.mean(found, axis=0) if found else 0)
            ffn = layer.feed_forward[name]
            hidden = affine(ffn.widen, normalise(layer.feed_forward_norm[name], y))
            x[name] = y + affine(ffn.narrow, np.asarray(jax.nn.gelu(hidden, approximate=False)))
    each = run(fusion, parts, PRESENT).each
    for name in here:
        expected = normalise(fusion.norms[name], x[name])[masks[name]].mean(axis=0)
        np.testing.assert_allclose(each[name][row], expected, atol=2e-5)


@gates
def test_every_parameter_has_a_gradient(gate):
    params, tokens = gradients(a_fusion(gate), encoded(), EVERYTHING)
    pairs = {tuple(path.split("/")[3:5]) for path in params if "/attention/" in path}
    assert len(pairs) == 6
    for path, leaf in params.items():
        assert np.isfinite(leaf).all() and (np.abs(leaf) > 1e-6).all(), path
    for name, part in encoded().items():
        assert (tokens[name][part.mask] != 0).all() and not tokens[name][~part.mask].any()


@gates
@pytest.mark.parametrize("row", range(ROWS))
def test_what_is_absent_gives_and_gets_no_gradient(gate, row):
    here = [name for name in NAMES if PRESENT[name][row]]
    present = {name: np.full(ROWS, name in here) for name in NAMES}
    params, tokens = gradients(a_fusion(gate), encoded(), present)
    for path, leaf in params.items():
        assert np.isfinite(leaf).all(), path
        named = [part for part in path.split("/") if part in NAMES]
        alone = len(here) == 1 and ("attention" in path or "gates" in path)
        if set(named) <= set(here) and not alone:
            assert leaf.any(), path
        else:
            np.testing.assert_allclose(leaf, 0, atol=0 if set(named) - set(here) else 1e-6)
    for name in NAMES:
        assert np.isfinite(tokens[name]).all() and tokens[name].any() == (name in here)


@gates
@pytest.mark.parametrize("garbage", [1e6, np.nan])
def test_what_lies_under_the_mask_or_in_an_absent_slot_changes_nothing(gate, garbage):
    fusion, parts = a_fusion(gate), encoded()
    dirty = with_garbage(parts, PRESENT, garbage)
    for one, other in zip(
        jax.tree.leaves(run(fusion, parts, PRESENT)),
        jax.tree.leaves(run(fusion, dirty, PRESENT)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    (params, tokens), (others, dirty_tokens) = (
        gradients(fusion, x, PRESENT) for x in (parts, dirty)
    )
    for path, leaf in params.items():
        np.testing.assert_array_equal(leaf, others[path], err_msg=path)
    for name in NAMES:
        np.testing.assert_array_equal(tokens[name], dirty_tokens[name])


def test_more_padding_changes_nothing():
    fusion, parts = a_fusion("sample"), encoded()
    longer = {
        name: part._replace(
            tokens=np.pad(part.tokens, ((0, 0), (0, 3), (0, 0)), constant_values=7),
            mask=np.pad(part.mask, ((0, 0), (0, 3))),
        )
        for name, part in parts.items()
    }
    one, other = run(fusion, parts, PRESENT), run(fusion, longer, PRESENT)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_modality_without_tokens_is_as_if_it_were_absent():
    fusion, parts = a_fusion(), encoded()
    parts["text"] = parts["text"]._replace(mask=parts["text"].mask & PRESENT["text"][:, None])
    given = {**PRESENT, "text": EVERYTHING["text"]}
    one, other = run(fusion, parts, given), run(fusion, encoded(), PRESENT)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_absent_modality_is_as_if_the_fusion_had_it_not():
    """With the same parameters, two of three present are a fusion of two."""
    three = a_fusion()
    state = trees.flatten(nnx.to_pure_dict(nnx.state(three)))
    two = a_fusion(names=("audio", "video"))
    graph, small = nnx.split(two)
    small = nnx.map_state(lambda path, leaf: leaf.replace(state["/".join(map(str, path))]), small)
    parts = encoded()
    pair = {name: parts[name] for name in ("audio", "video")}
    one = run(nnx.merge(graph, small), pair, {name: EVERYTHING[name] for name in pair})
    other = run(three, parts, {**EVERYTHING, "text": np.zeros(ROWS, bool)})
    np.testing.assert_allclose(one.joint, other.joint, atol=1e-5)


def test_every_modality_changes_every_other():
    fusion, parts = a_fusion(), encoded()
    before = run(fusion, parts, EVERYTHING).each
    for name in NAMES:
        moved = {**parts, name: parts[name]._replace(tokens=parts[name].tokens[::-1])}
        after = run(fusion, moved, EVERYTHING).each
        for other in NAMES:
            assert (np.abs(before[other] - after[other]).max(axis=1) > 1e-4).all(), (name, other)


def test_rows_do_not_see_each_other():
    fusion, parts, others = a_fusion("sample"), encoded(), encoded(1)
    mixed = {
        name: Encoded(
            *(np.concatenate([a[:4], b[4:]]) for a, b in zip(part, others[name], strict=True))
        )
        for name, part in parts.items()
    }
    one, two = run(fusion, parts, EVERYTHING).joint, run(fusion, mixed, EVERYTHING).joint
    np.testing.assert_allclose(one[:4], two[:4], atol=1e-6)
    assert not np.isclose(one[4:], two[4:]).all(axis=1).any()


@gates
def test_a_single_modality(gate):
    fusion, parts = a_fusion(gate, names=("text",)), encoded(names=("text",))
    joint, each, weights, _ = run(fusion, parts, {"text": PRESENT["text"]})
    np.testing.assert_array_equal(weights["text"], PRESENT["text"].astype(np.float32))
    np.testing.assert_array_equal(joint, each["text"])
    np.testing.assert_array_equal(np.abs(joint).sum(axis=1) > 0, PRESENT["text"])
    params, _ = gradients(fusion, parts, {"text": EVERYTHING["text"]})
    for path, leaf in params.items():
        assert (np.abs(leaf) > 1e-6).all(), path


def test_bfloat16_is_near_float32():
    wide = run(a_fusion("sample"), encoded(), PRESENT)
    half = run(a_fusion("sample", dtype=jnp.bfloat16), encoded(), PRESENT)
    assert half.joint.dtype == jnp.bfloat16
    assert {weights.dtype for weights in half.weights.values()} == {np.dtype("float32")}
    one, other = np.asarray(wide.joint), np.asarray(half.joint, np.float32)
    assert not np.array_equal(one, other)
    np.testing.assert_allclose(one, other, atol=0.03 * np.abs(one).max())


def test_dropout_acts_in_training_only():
    two = ("audio", "text")
    fusion, parts = a_fusion(names=two, layers=1, dropout=0.3), encoded(names=two)
    present = {name: EVERYTHING[name] for name in two}
    evaluation = run(fusion, parts, present).joint
    one, same, other = (run(fusion, parts, present, seed=s).joint for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.isclose(one, other).all(axis=1).any()
    assert not np.isclose(one, evaluation).all(axis=1).any()
    with pytest.raises(ValueError, match="rngs"):
        run(nnx.view(fusion, deterministic=False), parts, present)


def test_the_order_of_the_dict_does_not_matter():
    fusion, parts = a_fusion(), encoded()
    backwards = dict(reversed(parts.items()))
    one, other = (run(fusion, x, PRESENT) for x in (parts, backwards))
    np.testing.assert_array_equal(one.joint, other.joint)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="gate is 'fixed'"):
        a_fusion("fixed")
    with pytest.raises(ValueError, match="8 is not a multiple of heads=3"):
        a_fusion(heads=3)


def test_the_full_size():
    widths = {"audio": 512, "text": 768, "video": 512}
    fusion = nnx.eval_shape(lambda: CrossAttention(widths, rngs=nnx.Rngs(0)))
    params = trees.flatten(nnx.to_pure_dict(nnx.state(fusion)))
    pair = 4 * 512 * 512 + 3 * 512
    own = 2 * 512 * 1024 + 1024 + 512 + 4 * 512
    ends = (512 + 768 + 512 + 3) * 512 + 3 * 4 * 512 + 3
    assert trees.size(params) == 6 * (6 * pair + 3 * own) + ends == 57_668_099
