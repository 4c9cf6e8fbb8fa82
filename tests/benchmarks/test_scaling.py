import pytest

from benchmarks import collectives, scaling
from tests.training import devices

PROGRAM = """
  %a = (f32[2,3]{1,0}, /*index=1*/f32[]) all-reduce(%x, %y), channel_id=1
  %b = bf16[8,16]{1,0} all-gather(%z), dimensions={0}
  %c = (pred[4]{0}) all-reduce-start(%m)
  %d = f32[5]{0} add(%e, %f)
"""


def test_exchanges_are_read_from_a_program():
    assert collectives.exchanges(PROGRAM) == [
        ("all-reduce", [[2, 3], []], 28),
        ("all-gather", [[8, 16]], 256),
        ("all-reduce", [[4]], 4),
    ]


SMALL = dict(
    text=dict(
        vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=32, max_position_embeddings=12
    ),
    tokens=12,
    batch=4,
)


def rows():
    """What is predicted for a small network, and its number of parameters."""
    from benchmarks import jfusion_step
    from benchmarks.cases import Case

    case = Case("small", **SMALL)
    params = jfusion_step.model(case).params
    return [scaling.predict(case), sum(x.size for x in params.values())]


def test_a_prediction_follows_from_the_program():
    found, params = devices.call(2, "tests.benchmarks.test_scaling.rows")
    assert [row["machine"] for row in found] == [machine.name for machine in scaling.MACHINES]
    for row, machine in zip(found, scaling.MACHINES, strict=True):
        parts = (machine.devices - 1) / machine.devices
        # The gradients in float32 and a few scalars, sent twice.
        assert 0 <= row["bytes"] / parts / 2 - 4 * params <= 32
        assert row["state"] == 3 * 4 * params + 3 * 4  # with moments, and three counts of steps
        assert row["exchanging"] == pytest.approx(row["bytes"] / machine.link)
        reached = machine.peak * scaling.UTILISATION
        assert row["computing"] == pytest.approx(row["flops"] / reached)
        assert 0 < row["apart"] < row["together"] <= 1
        total = row["computing"] + row["exchanging"]
        assert row["apart"] == pytest.approx(row["computing"] / total)
    # Products of the network alone: 2 operations per weight and token, thrice.
    layer = 4 * 16 * 16 + 2 * 16 * 32
    assert found[0]["flops"] > 6 * 4 * 12 * layer
    assert found[0]["flops"] < 4 * 6 * 4 * 12 * layer
