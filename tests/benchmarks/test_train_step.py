import dataclasses
import json

import pytest
import rich.console

pytest.importorskip("torch")
pytest.importorskip("peft")

from benchmarks import jfusion_step, timing, torch_twins, train_step
from benchmarks.cases import BERT, IMAGE, LORA, MODELS, TEXT, Case
from jfusion import trees

SMALL_TEXT = TEXT | dict(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
SMALL_BERT = BERT | dict(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
)
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


def small_bert(lora):
    return Case("small", SMALL_BERT, None, "bert", lora, hidden=0, batch=2, tokens=6)


@pytest.mark.parametrize(
    "case",
    [small(True, False), small(True, True, "bfloat16"), small_bert(LORA)],
    ids=["text", "fusion-bfloat16", "lora"],
)
def test_a_row_tells_both_rates_and_their_ratio(case):
    row = train_step.measure(case, steps=1, rounds=1, compiled=False)
    assert row["name"] == "small" and row["dtype"] == case.dtype
    assert row["jfusion"] > 0 and row["torch"] > 0
    assert row["ratio"] == pytest.approx(row["jfusion"] / row["torch"])
    assert 0 < row["share"] < 1
    assert json.loads(json.dumps(row)) == row
    console = rich.console.Console(width=200)
    with console.capture() as text:
        console.print(train_step.table([row]))
    assert f"{row['ratio']:.2f}" in text.get()


@pytest.mark.parametrize(
    "case",
    [small(True, True), small_bert(None), small_bert(LORA)],
    ids=["fusion", "full", "lora"],
)
def test_both_sides_train_the_same_number_of_parameters(case):
    ours = jfusion_step.model(case).params
    rates = trees.first_match(jfusion_step.rates(case), ours)
    trained, frozen = trees.split(ours, rates)
    twin = torch_twins.Twin(case)
    # jfusion has a learnt vector for each absent modality besides.
    extra = sum(leaf.size for path, leaf in ours.items() if path.startswith("fusion/missing/"))
    expected = {train: 0 for train in (True, False)}
    for p in twin.parameters():
        expected[p.requires_grad] += p.numel()
    assert trees.size(trained) - extra == expected[True]
    assert trees.size(frozen) == expected[False]


def test_the_work_is_three_forward_passes():
    text = small(True, False)
    D, hidden, N, rows = 16, 32, 6, 2
    layer = 2 * rows * N * (4 * D * D + 2 * D * hidden) + 4 * rows * N * N * D
    head = 2 * rows * (D * 512 + 512 * 23)
    assert torch_twins.flops(text) == 3 * (layer + head)
    doubled = dataclasses.replace(text, batch=4)
    assert torch_twins.flops(doubled) == 2 * torch_twins.flops(text)


def test_frozen_layers_have_no_gradient_of_their_weights():
    D, hidden, N, rows, layers = 16, 32, 6, 2, 2
    frozen = 2 * rows * N * (4 * D * D + 2 * D * hidden) * layers
    adapters = 2 * rows * N * 2 * (2 * D * LORA["rank"]) * layers
    full, lora = (torch_twins.flops(small_bert(lora)) for lora in (None, LORA))
    assert lora == full - frozen + 3 * adapters


def test_full_and_lora_differ_in_the_adapters_alone():
    assert MODELS["lora_bert"] == {**MODELS["full_bert"], "lora": LORA}


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
