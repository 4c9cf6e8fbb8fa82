import dataclasses
import json

import pytest
import rich.console

pytest.importorskip("torch")

from benchmarks import jfusion_step, timing, torch_twins, train_step
from benchmarks.cases import IMAGE, TEXT, Case

SMALL_TEXT = TEXT | dict(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
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


@pytest.mark.parametrize(
    ("text", "image", "dtype"), [(True, False, "float32"), (True, True, "bfloat16")]
)
def test_a_row_tells_both_rates_and_their_ratio(text, image, dtype):
    row = train_step.measure(small(text, image, dtype), steps=1, rounds=1, compiled=False)
    assert row["name"] == "small" and row["dtype"] == dtype
    assert row["jfusion"] > 0 and row["torch"] > 0
    assert row["ratio"] == pytest.approx(row["jfusion"] / row["torch"])
    assert 0 < row["share"] < 1
    assert json.loads(json.dumps(row)) == row
    console = rich.console.Console(width=200)
    with console.capture() as text:
        console.print(train_step.table([row]))
    assert f"{row['ratio']:.2f}" in text.get()


def test_both_sides_train_the_same_number_of_parameters():
    case = small(True, True)
    ours = jfusion_step.model(case).params
    twin = torch_twins.Twin(case)
    # jfusion has a learnt vector for each absent modality besides.
    extra = sum(leaf.size for path, leaf in ours.items() if path.startswith("fusion/missing/"))
    expected = sum(p.numel() for p in twin.parameters())
    assert sum(leaf.size for leaf in ours.values()) - extra == expected


def test_the_work_is_three_forward_passes():
    text = small(True, False)
    D, hidden, N, rows = 16, 32, 6, 2
    layer = 2 * rows * N * (4 * D * D + 2 * D * hidden) + 4 * rows * N * N * D
    head = 2 * rows * (D * 512 + 512 * 23)
    assert torch_twins.flops(text) == 3 * (layer + head)
    doubled = dataclasses.replace(text, batch=4)
    assert torch_twins.flops(doubled) == 2 * torch_twins.flops(text)


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
