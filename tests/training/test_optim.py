import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jfusion.config import ConfigError, Phase, Train
from jfusion.training import optim

PATHS = ("encoders/plot/kernel", "encoders/plot/scale", "heads/genres/kernel")


def a_phase(**values):
    return Phase(**{"epochs": 1, **values})


def factors(steps, **values):
    shape = optim.schedule(a_phase(**values), steps)
    return np.array([float(shape(step)) for step in range(steps + 1)])


class TestPeakRates:
    def test_the_first_pattern_wins(self):
        rates = (("encoders/.*/scale", 0.0), ("encoders/.*", 1e-5), (".*", 1e-3))
        found = optim.peak_rates(a_phase(rates=rates), PATHS)
        assert found == dict(zip(PATHS, (1e-5, 0.0, 1e-3), strict=True))

    @pytest.mark.parametrize(
        ("rates", "message"),
        [
            ([("encoders/.*", 1e-3)], "no pattern covers 1 of 3 parameters, first 'heads/genres/k"),
            ([("encoder/.*", 1e-3), (".*", 1)], "pattern 'encoder/.*' matches no parameter; near"),
            ([("(", 1e-3)], "'(' is not a regular expression"),
            ([(".*", 0.0)], "every parameter is frozen"),
        ],
    )
    def test_what_is_wrong_is_told_with_its_key(self, rates, message):
        with pytest.raises(ConfigError) as caught:
            optim.peak_rates(a_phase(rates=tuple(rates)), PATHS, 2)
        assert str(caught.value).startswith(f"config.train.phases.2.rates: {message}")


class TestSchedule:
    @pytest.mark.parametrize("kind", ["cosine", "linear"])
    @pytest.mark.parametrize(("steps", "warmup"), [(20, 0.25), (20, 0.0), (7, 0.1), (2, 0.5)])
    def test_rises_then_falls_to_nothing_after_the_last_step(self, kind, steps, warmup):
        values = factors(steps, schedule=kind, warmup=warmup)
        peak = max(round(warmup * steps) - 1, 0)
        assert values[peak] == values.max() == 1
        assert (np.diff(values[: peak + 1]) > 0).all()
        assert (np.diff(values[peak + 2 :]) < 0).all()
        assert (values[:-1] > 0).all()  # no step is wasted
        assert values[-1] == pytest.approx(0, abs=1e-6)

    def test_warm_up_is_a_straight_line_from_the_first_step(self):
        np.testing.assert_allclose(factors(20, warmup=0.25)[:5], [0.2, 0.4, 0.6, 0.8, 1], rtol=1e-6)

    def test_shapes(self):
        half = {kind: factors(10, schedule=kind, warmup=0)[5] for kind in ("cosine", "linear")}
        assert half == pytest.approx({"cosine": 0.5, "linear": 0.5})
        quarter = {kind: factors(8, schedule=kind, warmup=0)[2] for kind in ("cosine", "linear")}
        assert quarter == pytest.approx({"cosine": 0.5 + 0.5**1.5, "linear": 0.75})
        np.testing.assert_array_equal(factors(5, schedule="constant", warmup=0), np.ones(6))
        np.testing.assert_allclose(
            factors(6, schedule="constant", warmup=0.5), [1 / 3, 2 / 3, 1, 1, 1, 1, 1], rtol=1e-6
        )

    @pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
    @pytest.mark.parametrize("warmup", [0.0, 0.1, 0.99])
    def test_a_phase_of_one_step_takes_it(self, kind, warmup):
        assert factors(1, schedule=kind, warmup=warmup)[0] == 1


PARAMS = {"matrix": jnp.full((2, 2), 2.0), "vector": jnp.full((3,), 2.0)}
GRADS = {"matrix": jnp.full((2, 2), 0.3), "vector": jnp.full((3,), -0.4)}
RATES = {"matrix": 0.1, "vector": 0.01, "frozen": 0.0}


class TestAdamW:
    def updates(self, train, steps=1, shape=lambda step: 1.0):
        tx = optim.adamw(train, RATES, shape)
        state = tx.init(PARAMS)
        for _ in range(steps):
            updates, state = tx.update(GRADS, state, PARAMS)
        return {path: np.asarray(update) for path, update in updates.items()}

    def a_train(self, **values):
        plain = {"weight_decay": 0.0, "clip": 0.0}
        return Train(phases=(a_phase(),), **{**plain, **values})

    def test_the_first_step_is_the_rate_against_the_sign_of_the_gradient(self):
        updates = self.updates(self.a_train())
        np.testing.assert_allclose(updates["matrix"], -0.1, rtol=1e-5)
        np.testing.assert_allclose(updates["vector"], 0.01, rtol=1e-5)

    def test_the_schedule_scales_rates_and_decay(self):
        updates = self.updates(self.a_train(weight_decay=0.5), shape=lambda step: 0.5)
        np.testing.assert_allclose(updates["matrix"], -0.5 * 0.1 * (1 + 0.5 * 2), rtol=1e-5)
        np.testing.assert_allclose(updates["vector"], 0.5 * 0.01, rtol=1e-5)

    def test_steps_are_counted(self):
        updates = self.updates(self.a_train(), steps=3, shape=lambda step: (step + 1) / 10)
        np.testing.assert_allclose(updates["matrix"], -0.1 * 0.3, rtol=1e-5)

    def test_clipping_is_by_the_norm_of_all_gradients_together(self):
        # Adam forgets the scale of a constant gradient, so the moment is looked at.
        for clip, factor in ((0.0, 1.0), (10.0, 1.0), (0.1, 0.1 / np.sqrt(4 * 0.09 + 3 * 0.16))):
            tx = optim.adamw(self.a_train(clip=clip, b1=0.5), RATES, lambda step: 1.0)
            _, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
            first = next(part for part in state if hasattr(part, "mu")).mu
            for path, grad in GRADS.items():
                np.testing.assert_allclose(first[path], 0.5 * factor * grad, rtol=1e-5)

    def test_the_state_has_the_trainable_parameters_only(self):
        state = optim.adamw(self.a_train(), RATES, lambda step: 1.0).init(PARAMS)
        assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 2 * (4 + 3) + 2
