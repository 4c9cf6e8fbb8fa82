"""Times an epoch with a frozen image network against one on its cached features.

python -m benchmarks.cached_features
python -m benchmarks.cached_features --config product_fusion --rows 2000 --batch 64 --json row.json
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import rich.console
import rich.table

from benchmarks.cases import CONFIGS, DTYPES
from jfusion import config_file, host
from jfusion.config import Config
from jfusion.data.split import Split
from jfusion.training import run
from jfusion.training.checkpoint import Progress

NETWORKS = ("mobilenet_v2", "efficientnet")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cached_features", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--config",
        choices=["product_image", "product_fusion"],
        default="product_image",
        help="what else is trained",
    )
    parser.add_argument(
        "--network", choices=NETWORKS, default="mobilenet_v2", help="the frozen network"
    )
    parser.add_argument("--rows", type=int, default=600, help="listings of all splits")
    parser.add_argument("--size", type=int, default=224, help="side of the pictures")
    parser.add_argument("--batch", type=int, default=32, help="rows of a batch")
    parser.add_argument("--flip", type=float, default=0.5, help="probability of a flip")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="compute type")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of each kind")
    parser.add_argument("--json", type=Path, help="file for the row")
    args = vars(parser.parse_args())
    name, file = args.pop("config"), args.pop("json")
    console = rich.console.Console()
    with tempfile.TemporaryDirectory() as cache, console.status("timing"):
        row = measure(configure(name, cache=cache, **args))
    console.print(table(row))
    if file:
        file.write_text(json.dumps(row, indent=2) + "\n")


def configure(
    name: str,
    *,
    network: str,
    sizes: dict[str, Any] | None = None,
    rows: int,
    size: int,
    batch: int,
    flip: float,
    dtype: str,
    epochs: int,
    cache: str,
) -> Config:
    """The config of this name on its embedded sample, with a network of full size that is frozen.

    Args:
        name: `product_image` or `product_fusion`.
        network: The image network.
        sizes: Other numbers of it.
        rows: Rows of all splits.
        size: Side of the pictures.
        batch: Rows of a batch.
        flip: Probability of a flip.
        dtype: Compute type.
        epochs: Epochs that are timed.
        cache: Folder of the cache.
    """
    # One epoch more than is timed: its first step is the one that compiles.
    phase = {"epochs": epochs + 1, "rates": (("encoders/image/.*", 0.0), (".*", 1e-3))}
    encoder = {
        "network": network,
        "sizes": sizes or {},
        "eval_when_frozen": True,
        "dense": 256,
    }
    values = {
        "data.rows": rows,
        "data.cache_dir": cache,
        "data.on_error": "missing",  # some listings have no picture
        "inputs.image.size": size,
        "inputs.image.flip": flip,
        "inputs.image.encoder": encoder,
        "train.phases": (phase,),
        "train.batch_size": batch,
        "train.precision": dtype,
    }
    return config_file.load(
        str(CONFIGS / f"{name}.py"), [f"{key}={value!r}" for key, value in values.items()]
    )


def measure(config: Config) -> dict[str, Any]:
    """Times epochs of training without the cache, its making, and epochs with it.

    Returns:
        What was measured: seconds of an epoch of each kind (the median) and of computing the
        features, how many times faster the cached ones are, and where it was measured.
    """
    made = run.prepare(config)
    train = made.dataset.splits["train"]
    uncached = epoch_seconds(made, train)
    begin = time.perf_counter()
    splits = made.phase_splits(0, made.first_state(), lambda line: None, watch)
    computing = time.perf_counter() - begin
    if splits["train"] is train:
        raise RuntimeError("the features were not cached")
    cached = epoch_seconds(made, splits["train"])
    return {
        "config": config.name,
        "network": config.inputs["image"].encoder.network,
        "size": config.inputs["image"].size,
        "flip": config.inputs["image"].flip,
        "batch": config.train.batch_size,
        "dtype": config.train.precision,
        "rows": {name: len(split) for name, split in splits.items()},
        "uncached": uncached,
        "computing": computing,
        "cached": cached,
        "ratio": uncached / cached,
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": {"jax": jax.__version__},
    }


def epoch_seconds(made: run.Run, split: Split) -> float:
    """The median time of an epoch, batches and all, after a step that compiles."""
    state, train_step, key = made.first_state(), made.plans[0].train_step, made.key
    seconds = []
    with contextlib.closing(made.train_batches(Progress(), split)) as batches:
        state, scalars = train_step(state, next(batches)[0], key)
        jax.block_until_ready(scalars)
        for _ in range(made.config.train.phases[0].epochs - 1):
            begin = time.perf_counter()
            for _ in range(made.steps_per_epoch):
                state, scalars = train_step(state, next(batches)[0], key)
            jax.block_until_ready(scalars)
            seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


@contextlib.contextmanager
def watch(what: str, rows: int) -> Iterator[Callable[[int], None]]:
    """Shows nothing."""
    yield lambda count: None


def table(row: dict[str, Any]) -> rich.table.Table:
    """The row as a table for people."""
    table = rich.table.Table(
        title=f"{row['config']}, {row['network']} frozen, {row['size']} pixels, batch "
        f"{row['batch']}, {row['dtype']}, {row['device']}",
        caption=f"{row['rows']['train']} rows to train, {row['rows']['val']} to validate",
    )
    for column in ("", "seconds", "rows/s"):
        table.add_column(column, justify="right" if column else "left")
    counts = {"uncached": row["rows"]["train"], "cached": row["rows"]["train"]}
    counts["computing"] = sum(row["rows"].values())
    names = {
        "uncached": "an epoch without cached features",
        "computing": "computing them, once",
        "cached": "an epoch on cached features",
    }
    for key, name in names.items():
        table.add_row(name, f"{row[key]:.2f}", f"{counts[key] / row[key]:,.0f}")
    table.add_row("times faster", f"{row['ratio']:.1f}", "")
    return table


if __name__ == "__main__":
    host.restart_with_tuned_memory()
    main()
