import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jfusion.config import Classes, MultiLabel, Regression
from jfusion.training import losses

POS_WEIGHT = np.array([0.5, 1.0, 3.0, 20.0], np.float32)
ASYMMETRIC = [(1.0, 4.0, 0.05), (0.0, 4.0, 0.0), (2.5, 0.5, 0.2), (0.0, 0.0, 0.0)]


def draw(rows=6, labels=4, scale=3.0):
    rng = np.random.default_rng(0)
    logits = (rng.standard_normal((rows, labels)) * scale).astype(np.float32)
    return logits, (rng.random((rows, labels)) < 0.4).astype(np.float32)


def rows_of(target, pos_weight=None):
    """The loss of each row as a function of outputs and targets alone."""
    statistics = {} if pos_weight is None else {"pos_weight": pos_weight}
    loss = losses.build(target, statistics)
    assert loss.finish(0.25) == 0.25
    return lambda outputs, targets: loss.rows(outputs, targets, {})


def asymmetric(positive, negative, clip):
    return MultiLabel(
        column="genres",
        loss="asymmetric",
        gamma_positive=positive,
        gamma_negative=negative,
        clip=clip,
    )


def reference_asymmetric(x, y, gamma_positive, gamma_negative, clip):
    """The paper's equations in float64 numpy, mean over labels."""
    p = 1 / (1 + np.exp(-x.astype(np.float64)))
    q = np.maximum(p - clip, 0)
    cost = y * (1 - p) ** gamma_positive * np.log(p)
    return -np.mean(cost + (1 - y) * q**gamma_negative * np.log(1 - q), axis=-1)


@pytest.mark.parametrize("pos_weight", [None, POS_WEIGHT])
def test_cross_entropy_against_its_definition(pos_weight):
    x, y = draw()
    loss = rows_of(MultiLabel(column="genres"), pos_weight)
    p = 1 / (1 + np.exp(-x.astype(np.float64)))
    factor = 1 if pos_weight is None else pos_weight
    want = -np.mean(factor * y * np.log(p) + (1 - y) * np.log(1 - p), axis=-1)
    np.testing.assert_allclose(loss(x, y), want, rtol=1e-5)


@pytest.mark.parametrize("constants", ASYMMETRIC)
def test_asymmetric_against_its_definition(constants):
    x, y = draw()
    loss = rows_of(asymmetric(*constants))
    np.testing.assert_allclose(loss(x, y), reference_asymmetric(x, y, *constants), rtol=1e-5)


def test_asymmetric_without_focus_and_clip_is_cross_entropy():
    x, y = draw()
    plain = rows_of(MultiLabel(column="genres"), POS_WEIGHT)
    same = rows_of(asymmetric(0.0, 0.0, 0.0), POS_WEIGHT)
    np.testing.assert_allclose(same(x, y), plain(x, y), rtol=1e-6)


def test_negatives_within_the_margin_cost_nothing():
    loss = rows_of(asymmetric(1.0, 4.0, 0.05))
    logits = jnp.full((1, 3), -3.0)  # p = 0.047
    value, gradient = jax.value_and_grad(lambda x: loss(x, jnp.zeros((1, 3))).sum())(logits)
    assert value == 0 and not gradient.any()


@pytest.mark.parametrize("pos_weight", [None, POS_WEIGHT])
def test_cross_entropy_equals_torch(pos_weight):
    torch = pytest.importorskip("torch")
    x, y = draw()
    weight = None if pos_weight is None else torch.tensor(pos_weight)
    logits = torch.tensor(x, requires_grad=True)
    want = torch.nn.BCEWithLogitsLoss(pos_weight=weight)(logits, torch.tensor(y))
    want.backward()
    loss = rows_of(MultiLabel(column="genres"), pos_weight)
    got, gradient = jax.value_and_grad(lambda x: loss(x, y).mean())(x)
    np.testing.assert_allclose(got, want.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, logits.grad, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("constants", ASYMMETRIC)
def test_asymmetric_equals_torch(constants):
    torch = pytest.importorskip("torch")
    gamma_positive, gamma_negative, clip = constants
    x, y = draw()
    logits, targets = torch.tensor(x, requires_grad=True), torch.tensor(y)
    p = torch.sigmoid(logits)
    probability = torch.where(targets > 0, p, (1 - p + clip).clamp(max=1))
    gamma = torch.where(targets > 0, gamma_positive, gamma_negative)
    focus = ((1 - probability) ** gamma).detach()
    want = -(focus * probability.clamp(min=1e-8).log()).mean()
    want.backward()
    loss = rows_of(asymmetric(*constants))
    got, gradient = jax.value_and_grad(lambda x: loss(x, y).mean())(x)
    np.testing.assert_allclose(got, want.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, logits.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "target", [MultiLabel(column="genres"), *(asymmetric(*c) for c in ASYMMETRIC)]
)
def test_extreme_logits_stay_finite_and_keep_their_gradient(target):
    loss = rows_of(target)
    logits = jnp.array([[-1e4, 1e4], [1e4, -1e4], [-1e4, 1e4], [0.0, 0.0]])
    targets = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    values = loss(logits, targets)
    gradient = jax.grad(lambda x: loss(x, targets).sum())(logits)
    assert jnp.isfinite(values).all() and jnp.isfinite(gradient).all()
    assert gradient[0, 0] < 0, "a positive far on the wrong side must be pulled back"
    np.testing.assert_allclose(values[1:3], 0, atol=1e-6)


def test_half_precision_logits_give_a_float32_loss():
    x, y = draw()
    for target in (MultiLabel(column="genres"), asymmetric(1.0, 4.0, 0.05)):
        value = rows_of(target)(jnp.asarray(x, jnp.bfloat16), jnp.asarray(y))
        assert value.dtype == jnp.float32 and value.shape == (6,)


def test_one_row_does_not_touch_another():
    x, y = draw()
    loss = rows_of(MultiLabel(column="genres"), POS_WEIGHT)
    np.testing.assert_array_equal(loss(x, y)[2:3], loss(x[2:3], y[2:3]))


def test_positive_weights_are_negatives_over_positives():
    targets = np.array([[1, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 0], [0, 0, 1, 1]], np.float32)
    weights = losses.positive_weights(targets)
    np.testing.assert_allclose(weights, [3, 1, 1, 1 / 3])
    assert weights.dtype == np.float32


def test_classes_equal_torch():
    torch = pytest.importorskip("torch")
    x, _ = draw()
    y = np.array([0, 3, 1, 1, 2, 0], np.int32)
    logits = torch.tensor(x, requires_grad=True)
    want = torch.nn.functional.cross_entropy(logits, torch.tensor(y).long(), reduction="none")
    want.sum().backward()
    loss = losses.build(Classes(column="kind", weight=0.2))
    assert loss.weight == 0.2
    got, gradient = jax.value_and_grad(lambda x: loss.rows(x, jnp.asarray(y), {}).sum())(x)
    np.testing.assert_allclose(loss.rows(x, jnp.asarray(y), {}), want.detach(), rtol=1e-5)
    np.testing.assert_allclose(got, want.sum().item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, logits.grad, rtol=1e-4, atol=1e-7)


def test_smoothed_classes_equal_torch():
    torch = pytest.importorskip("torch")
    x, _ = draw()
    y = np.array([0, 3, 1, 1, 2, 0], np.int32)
    want = torch.nn.functional.cross_entropy(
        torch.tensor(x), torch.tensor(y).long(), reduction="none", label_smoothing=0.1
    )
    loss = losses.build(Classes(column="kind", smoothing=0.1))
    np.testing.assert_allclose(loss.rows(x, jnp.asarray(y), {}), want, rtol=1e-5)


def test_rows_of_rare_classes_weigh_more():
    weights = losses.class_weights(np.array([0, 0, 0, 2]), 3)
    np.testing.assert_allclose(weights, [4 / 9, 1, 4 / 3])
    x, y = draw()[0][:, :3], jnp.array([0, 0, 2, 1, 2, 0])
    plain = losses.build(Classes(column="kind")).rows(x, y, {})
    weighed = losses.build(Classes(column="kind"), {"class_weight": weights}).rows(x, y, {})
    np.testing.assert_allclose(weighed, plain * weights[np.asarray(y)], rtol=1e-6)


@pytest.mark.parametrize(("name", "expected"), [("mse", 6.5), ("rmse", 6.5**0.5)])
def test_regression_finishes_over_the_batch(name, expected):
    loss = losses.build(Regression(column="phq8", loss=name))
    rows = loss.rows(jnp.array([[5.0], [9.0]]), jnp.array([[7.0], [6.0]]), {})
    np.testing.assert_allclose(rows, [4, 9])
    assert loss.finish(rows.mean()) == pytest.approx(expected, rel=1e-6)


def test_the_root_has_a_gradient_where_everything_is_right():
    loss = losses.build(Regression(column="phq8", loss="rmse"))
    truth = jnp.ones((3, 1))
    gradient = jax.grad(lambda x: loss.finish(loss.rows(x, truth, {}).mean()))(truth)
    assert jnp.isfinite(gradient).all()
