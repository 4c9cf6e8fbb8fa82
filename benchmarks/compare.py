"""What the comparisons with PyTorch share: options, turns, rows and their table."""

import argparse
import json
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import peft
import rich.console
import rich.table
import torch
import transformers

from benchmarks import timing, torch_twins
from benchmarks.cases import DTYPES, MODELS, Case
from benchmarks.torch_work import Work


class Step(NamedTuple):
    """A kind of step that both sides can take.

    Attributes:
        title: What it is.
        ours: Builds jfusion's for a case: a function that starts one.
        twin: Builds PyTorch's.
        work: How much work it is.
    """

    title: str
    ours: Callable[[Case], Callable[[], Any]]
    twin: torch_twins.Build
    work: Callable[[Case], Work]


def main(program: str, what: str, step: Step) -> None:
    """Runs a comparison as a command.

    Args:
        program: Its name.
        what: What it does.
        step: What is compared.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{program}", description=what)
    parser.add_argument("--model", choices=MODELS, action="append", help="the model; repeatable")
    parser.add_argument("--batch", type=int, default=8, help="rows of a batch")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="compute type")
    parser.add_argument("--steps", type=int, default=3, help="counted steps per turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also try torch.compile for the twin",
    )
    parser.add_argument("--json", type=Path, help="file for the rows")
    args = parser.parse_args()
    torch_twins.use_all_cores()
    console = rich.console.Console()
    rows = []
    for name in args.model or MODELS:
        case = Case(name, batch=args.batch, dtype=args.dtype, **MODELS[name])
        with console.status(f"{name}: compiling and timing"):
            rows.append(measure(step, case, args.steps, args.rounds, args.compile))
    console.print(table(step.title, rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


def measure(
    step: Step, case: Case, steps: int, rounds: int, compiled: bool = True
) -> dict[str, Any]:
    """Times both sides of `case` in one run, in turns.

    Args:
        step: What is compared.
        case: The model and its batch.
        steps: Counted steps per turn.
        rounds: Turns of each side.
        compiled: Also try `torch.compile` for the twin.

    Returns:
        A row of the table: samples per second of both sides, their ratio, jfusion's shares of what
        the device can compute and move, and where and with what it was measured.
    """
    ours = (step.ours(case), jax.block_until_ready)
    tried, twin = fastest_twin(step, case, compiled)
    seconds = timing.interleaved({"jfusion": ours, "torch": twin}, steps, rounds)
    rates = {name: case.batch / time for name, time in seconds.items()}
    work, time = step.work(case), seconds["jfusion"]
    byte_share = None
    if work.bytes is not None:
        byte_share = work.bytes / time / timing.bandwidth()
    return {
        "name": case.name,
        "batch": case.batch,
        "dtype": case.dtype,
        **rates,
        "ratio": rates["jfusion"] / rates["torch"],
        "share": work.flops / time / timing.peak_flops(case.dtype),
        "byte_share": byte_share,
        **work._asdict(),
        "torch_form": min(tried, key=tried.get),
        "torch_forms": tried,
        "device": device(),
        "versions": {
            module.__name__: module.__version__ for module in (jax, torch, transformers, peft)
        },
    }


def fastest_twin(step: Step, case: Case, compiled: bool) -> tuple[dict[str, float], timing.Side]:
    """Tries the forms of the twin: the time of a step of each, in seconds, and the fastest."""
    tried, best = {}, None
    for name, twin in torch_twins.forms(step.twin, case, compiled):
        side = (twin, torch_twins.finish)
        tried[name] = timing.interleaved({name: side}, 1, 3)[name]
        if tried[name] == min(tried.values()):
            best = side
    return tried, best


def device() -> str:
    """The accelerator, or the processor and its cores."""
    first = jax.devices()[0]
    if first.platform != "cpu":
        return first.device_kind
    names = [
        line.split(":", 1)[1].strip()
        for line in _read("/proc/cpuinfo").splitlines()
        if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} cores"


def table(title: str, rows: Sequence[dict[str, Any]]) -> rich.table.Table:
    """The rows as a table for people."""
    first = rows[0]
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    table = rich.table.Table(
        title=f"{title}, batch {first['batch']}, {first['dtype']}, {first['device']}",
        caption=versions,
    )
    shares = ("share of peak", "share of bandwidth")
    for column in ("", "jfusion, samples/s", "torch, samples/s", "ratio", *shares):
        table.add_column(column, justify="right" if column else "left")
    table.add_column("torch form")
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['jfusion']:.2f}",
            f"{row['torch']:.2f}",
            f"{row['ratio']:.2f}",
            f"{row['share']:.0%}",
            "-" if row["byte_share"] is None else f"{row['byte_share']:.0%}",
            row["torch_form"],
        )
    return table


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""
