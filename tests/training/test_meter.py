import jax.numpy as jnp
import numpy as np
import pytest

from jfusion.errors import UserError
from jfusion.training import meter
from jfusion.training.state import State


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(meter, "time", clock)
    return clock


def a_meter():
    return meter.Meter(lambda row: f"movies.csv row {row + 1}")


def scalars(loss=1.0, gradient_norm=1.0, **more):
    values = {"loss": loss, "gradient_norm": gradient_norm, **more}
    return {name: jnp.float32(value) for name, value in values.items()}


def rows(*numbers):
    return np.array(numbers, np.int64)


def a_state(**leaves):
    return State(jnp.int32(3), {"a": jnp.ones(2), **leaves}, {}, {}, {"adam": (), "scale": {}})


def test_laps_count_rows_but_no_padding_and_no_discarded_time(clock):
    watch = a_meter()
    watch.add(1, rows(0, 1, 2, 3), scalars())
    clock.now += 50.0
    watch.discard()  # the compilation
    watch.add(2, rows(4, 5, 6, 7), scalars())
    watch.add(3, rows(8, 9, -1, -1), scalars())
    clock.now += 2.0
    assert watch.lap() == 3.0
    watch.add(4, rows(0, 1, 2, 3), scalars())
    clock.now += 4.0
    assert watch.lap() == 1.0
    assert (watch.rows, watch.seconds) == (10, 6.0)


def test_a_lap_without_steps_has_no_speed(clock):
    watch = a_meter()
    clock.now += 1.0
    assert watch.lap() is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (scalars(loss=np.nan), "the loss of step 7 is nan"),
        (scalars(loss=np.inf, loss_scale=8.0), "the loss of step 7 is inf"),
        (scalars(gradient_norm=np.inf), "the gradient norm of step 7 is inf"),
    ],
)
@pytest.mark.parametrize("notice", ["lap", "discard", "check"])
def test_what_is_not_finite_names_its_step_and_rows(values, message, notice):
    watch = a_meter()
    watch.add(6, rows(0, 1), scalars())
    watch.add(7, rows(2, 5, -1), values)
    watch.add(8, rows(3, 4), scalars(loss=np.nan))  # a consequence
    with pytest.raises(meter.NonFinite) as caught:
        getattr(watch, notice)(*([a_state()] if notice == "check" else []))
    assert str(caught.value).startswith(
        f"{message}; its batch: movies.csv row 3, movies.csv row 6. "
    )
    assert isinstance(caught.value, UserError)


def test_a_gradient_may_overflow_where_the_loss_is_scaled():
    watch = a_meter()
    watch.add(1, rows(0), scalars(gradient_norm=np.inf, loss_scale=8.0))
    watch.lap()


def test_a_long_batch_is_cut_short():
    watch = a_meter()
    watch.add(1, np.arange(64), scalars(loss=np.nan))
    with pytest.raises(meter.NonFinite, match=r"movies\.csv row 20 and 44 more\. Lower"):
        watch.lap()


def test_a_state_that_is_not_finite_is_noticed_though_every_loss_was():
    watch = a_meter()
    watch.check(a_state())
    watch.add(4, rows(1), scalars())
    watch.check(a_state(counts=jnp.array([2**31 - 1])))
    with pytest.raises(meter.NonFinite, match=r"not finite after step 4; its batch: movies\.csv r"):
        watch.check(a_state(b=jnp.array([1.0, jnp.inf])))
    average = a_state()._replace(opt_state={"average": {"a": jnp.array([jnp.nan])}})
    with pytest.raises(meter.NonFinite):
        watch.check(average)


def test_adding_a_step_does_not_wait_for_its_numbers():
    class Pending:
        def __array__(self, *_, **__):
            raise AssertionError("read too early")

        __float__ = __array__

    a_meter().add(1, rows(0, 1), {"loss": Pending(), "gradient_norm": Pending()})
