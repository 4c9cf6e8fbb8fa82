"""Times jfusion's train step against its PyTorch twin.

python -m benchmarks.train_step
python -m benchmarks.train_step --model genre_fusion --batch 32 --dtype bfloat16 --json rows.json
"""

import argparse
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import peft
import rich.console
import rich.table
import torch
import transformers

from benchmarks import jfusion_step, timing, torch_twins
from benchmarks.cases import DTYPES, MODELS, Case
from jfusion import host


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train_step", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--model", choices=MODELS, action="append", help="what to train; repeatable"
    )
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
            rows.append(measure(case, args.steps, args.rounds, args.compile))
    console.print(table(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


def measure(case: Case, steps: int, rounds: int, compiled: bool = True) -> dict[str, Any]:
    """Times both sides of `case` in one run, in turns.

    Args:
        case: What to train.
        steps: Counted steps per turn.
        rounds: Turns of each side.
        compiled: Also try `torch.compile` for the twin.

    Returns:
        A row of the table: samples per second of both sides, their ratio, jfusion's share of the
        device's peak, and where and with what it was measured.
    """
    ours = (jfusion_step.train_step(case), jax.block_until_ready)
    tried, twin = fastest_twin(case, compiled)
    seconds = timing.interleaved({"jfusion": ours, "torch": twin}, steps, rounds)
    rates = {name: case.batch / time for name, time in seconds.items()}
    flops = torch_twins.flops(case)
    return {
        "name": case.name,
        "batch": case.batch,
        "dtype": case.dtype,
        **rates,
        "ratio": rates["jfusion"] / rates["torch"],
        "share": flops / seconds["jfusion"] / timing.peak_flops(case.dtype),
        "flops": flops,
        "torch_form": min(tried, key=tried.get),
        "torch_forms": tried,
        "device": device(),
        "versions": {
            module.__name__: module.__version__ for module in (jax, torch, transformers, peft)
        },
    }


def fastest_twin(case: Case, compiled: bool) -> tuple[dict[str, float], timing.Side]:
    """Tries the forms of the twin: the time of a step of each, in seconds, and the fastest."""
    tried, best = {}, None
    for name, step in torch_twins.forms(case, compiled):
        side = (step, torch_twins.finish)
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


def table(rows: Sequence[dict[str, Any]]) -> rich.table.Table:
    """The rows as a table for people."""
    first = rows[0]
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    table = rich.table.Table(
        title=f"Train step, batch {first['batch']}, {first['dtype']}, {first['device']}",
        caption=versions,
    )
    for column in ("", "jfusion, samples/s", "torch, samples/s", "ratio", "share of peak"):
        table.add_column(column, justify="right" if column else "left")
    table.add_column("torch form")
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['jfusion']:.2f}",
            f"{row['torch']:.2f}",
            f"{row['ratio']:.2f}",
            f"{row['share']:.0%}",
            row["torch_form"],
        )
    return table


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


if __name__ == "__main__":
    host.restart_with_huge_pages()  # for both sides
    main()
