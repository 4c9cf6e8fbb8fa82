"""Predicts, on paper, how training scales over devices.

python -m benchmarks.scaling
python -m benchmarks.scaling --model genre_fusion --batch 64 --json rows.json

Nothing is measured: the operations and the bytes that devices exchange are read from the program,
compiled here for two simulated devices as an accelerator would get it; rates are the makers' own.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import rich.console
import rich.table

from benchmarks import collectives, jfusion_step
from benchmarks.cases import DTYPES, MODELS, Case
from jfusion.config import Mesh
from jfusion.training import sharding

UTILISATION = 0.4  # share of the peak that a step is taken to reach on one device


@dataclasses.dataclass(frozen=True)
class Machine:
    """Devices and what joins them.

    Attributes:
        name: What they are.
        devices: How many.
        peak: bfloat16 operations per second of one, dense.
        link: Bytes per second that one can send to the others while it receives as many.
    """

    name: str
    devices: int
    peak: float
    link: float


# H200: NVIDIA's data sheet (SXM): 1,979 teraFLOPS with sparsity, so half of that; NVLink 900 GB/s,
# both directions together. TPU: docs.cloud.google.com/tpu/docs/v5e and v6e: 197 and 918 TFLOPs;
# interconnect of 400 and 800 GBps, both directions together. Only 16 chips in a row close to a
# ring; a slice of 4 x 4 is a mesh, and its chips at the border have half of the links.
MACHINES = (
    Machine("8 x H200, NVLink", 8, 989e12, 450e9),
    Machine("TPU v5e-16", 16, 197e12, 100e9),
    Machine("TPU v6e-256", 256, 918e12, 400e9),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--model", choices=MODELS, action="append", help="repeatable")
    parser.add_argument("--batch", type=int, default=64, help="rows of a batch on each device")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="compute type")
    parser.add_argument("--json", type=Path, help="file for the rows")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    console, rows = rich.console.Console(), []
    for name in args.model or ("genre_fusion", "phq8_attention"):
        with console.status(f"{name}: compiling"):
            rows += predict(Case(name, batch=args.batch, dtype=args.dtype, **MODELS[name]))
    console.print(table(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


def predict(case: Case) -> list[dict[str, Any]]:
    """What a program costs on each machine.

    Args:
        case: The network; its batch is that of one device.

    Returns:
        A row for each machine: `flops` (of one device and step), `bytes` (that a device sends in a
        step), `state` (bytes of it, whole), `computing` and `exchanging` (seconds), and
        the bounds of the efficiency (the rate of all devices, divided by that of as many single
        ones): `apart`, where a device does one after the other, and `together`, where it exchanges
        while it computes as long as it can.
    """
    flops, exchanged, state = read(case)
    rows = []
    for machine in MACHINES:
        computing = flops / (machine.peak * UTILISATION)
        # A ring sends what is summed twice, all else once, but for a device's own part (Patarasuk
        # and Yuan, 2009). What is not a sum is of the rows, of which more devices have more.
        sums = exchanged.get("all-reduce", 0)
        others = (sum(exchanged.values()) - sums) * machine.devices / 2
        sent = (machine.devices - 1) / machine.devices * (2 * sums + others)
        exchanging = sent / machine.link
        rows.append(
            {
                "name": case.name,
                "batch": case.batch,
                "dtype": case.dtype,
                "machine": machine.name,
                "flops": flops,
                "bytes": sent,
                "state": state,
                "computing": computing,
                "exchanging": exchanging,
                "apart": computing / (computing + exchanging),
                "together": computing / max(computing, exchanging),
            }
        )
    return rows


def read(case: Case) -> tuple[float, dict[str, int], int]:
    """A device's operations in a step of two, the bytes of each exchange, and the state's bytes."""
    both = dataclasses.replace(case, batch=2 * case.batch)
    mesh = sharding.make_mesh(Mesh(data=2), jax.devices()[:2])
    state = jax.eval_shape(lambda: jfusion_step.first_state(both))
    places = sharding.placement(state, mesh, {})
    state = sharding.abstract(state, places)
    batch = jax.tree.map(lambda x: sharding.place_rows(x, mesh), jfusion_step.batch(both))
    # The networks ask which form of an operation is the fast one here.
    with mock.patch.object(jax, "default_backend", lambda: "tpu"):
        lowered = jfusion_step.step(both, places).lower(state, batch, jax.random.key(1))
    exchanged: dict[str, int] = {}
    for operation, _, size in collectives.exchanges(lowered.compile().as_text()):
        exchanged[operation] = exchanged.get(operation, 0) + size
    held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    return lowered.cost_analysis()["flops"] / 2, exchanged, held


def table(rows: list[dict[str, Any]]) -> rich.table.Table:
    """The rows as a table for the terminal."""
    shown = rich.table.Table(title=f"predicted, at {UTILISATION:.0%} of the peak on one device")
    for column in ("model", "machine", "rows each", "TFLOP", "MB", "ms", "ms", "efficiency"):
        shown.add_column(column, justify="left" if column in ("model", "machine") else "right")
    for row in rows:
        shown.add_row(
            row["name"],
            row["machine"],
            str(row["batch"]),
            f"{row['flops'] / 1e12:.2f}",
            f"{row['bytes'] / 1e6:.0f}",
            f"{row['computing'] * 1e3:.2f}",
            f"{row['exchanging'] * 1e3:.2f}",
            f"{row['apart']:.0%} to {row['together']:.0%}",
        )
    return shown


if __name__ == "__main__":
    main()
