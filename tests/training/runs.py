"""Small real runs: their configs, and what must be equal when two runs did the same."""

import contextlib
import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import jax

from tests.training import devices

ROOT = Path(__file__).parents[2]

CONFIG = {
    "data": {"source": "movies", "rows": 90},  # 61 to train, 11 to validate, 18 to test
    "inputs": {
        "plot": {
            "kind": "text",
            "column": "plot",
            "max_tokens": 12,
            "vocabulary": 100,
            "encoder": {
                "network": "distilbert",
                "sizes": {
                    "dim": 16,
                    "n_layers": 1,
                    "n_heads": 2,
                    "hidden_dim": 32,
                    "max_position_embeddings": 12,
                },
            },
        },
        "poster": {
            "kind": "image",
            "column": "poster",
            "size": 16,
            "flip": 0.5,
            "encoder": {
                "network": "convnext",
                "sizes": {"depths": [1], "hidden_sizes": [8], "layer_scale_init_value": 1.0},
            },
        },
    },
    "targets": {"genres": {"kind": "multilabel", "column": "genres"}},
    "fusion": {"kind": "concat", "hidden": [16], "dropout": 0.1, "modality_dropout": 0.2},
    "train": {
        "batch_size": 8,  # 8 steps per epoch, the last one padded
        "checkpoint_every": 3,
        "phases": [
            {"epochs": 2, "rates": [["encoders/.*", 0.0], [".*", 1e-2]]},
            {"epochs": 2, "rates": [["encoders/plot/.*", 0.0], [".*", 1e-2]]},
        ],
    },
    "log": {"every": 2, "pictures": 2},
}

# A fraction of the time to compile, for tests that need neither pictures nor much chance.
PLAIN_CONFIG = copy.deepcopy(CONFIG)
del PLAIN_CONFIG["inputs"]["poster"]
PLAIN_CONFIG["inputs"]["plot"]["encoder"]["sizes"] |= {"dropout": 0.0, "attention_dropout": 0.0}
PLAIN_CONFIG["train"]["phases"][1]["rates"][0][0] = ".*embeddings/.*"
PLAIN_CONFIG["train"]["cache_features"] = False  # tests count how often a run asks whether to stop


# Text and picture of invented listings, each with statistics of its own, and what can join them.
PRODUCTS_CONFIG = {
    "data": {"source": "products", "rows": 60, "on_error": "missing"},  # 40, 8 and 12 rows
    "inputs": {
        "title": {
            "kind": "text",
            "column": "designation",
            "max_tokens": 12,
            "vocabulary": 60,
            "encoder": {
                "network": "text_cnn",
                "sizes": {"width": 8, "filters": 8, "hidden": 8},
            },
        },
        "picture": {
            "kind": "image",
            "column": "image",
            "size": 16,
            "encoder": {
                "network": "convnext",
                "sizes": {"depths": [1], "hidden_sizes": [8], "layer_scale_init_value": 1.0},
                "dense": 8,
            },
        },
        "facts": {
            "kind": "tabular",
            "numbers": ["price", "reviews"],
            "categories": ["condition"],
            "log": ["price"],
            "encoder": {"network": "tabular", "sizes": {"width": 8, "layers": 1}},
        },
    },
    "targets": {"code": {"kind": "classes", "column": "code", "class_weight": True}},
    "fusion": {"kind": "concat", "norm": "batch", "hidden": [16], "modality_dropout": 0.1},
    "train": {"batch_size": 8, "phases": [{"epochs": 1, "rates": [[".*", 1e-2]]}]},
    "log": {"every": 5, "pictures": 0},
}


@contextlib.contextmanager
def compiled_programs(folder: Path):
    """Keeps compiled programs in a folder, as `main` does."""
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (str(folder), 0.0), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in zip(names, before, strict=True):
        jax.config.update(name, value)


def start(
    folder: Path,
    workdir: Path | str,
    *orders: str,
    flags: tuple[str, ...] = (),
    config: dict = CONFIG,
) -> subprocess.CompletedProcess:
    """Runs the command in a process of its own.

    Args:
        folder: Where its config and its caches lie, `small.py` and `cache`.
        workdir: The run's folder.
        orders: Makes the process interrupt itself, see `interrupted.py`.
        flags: More flags.
        config: The experiment.
    """
    file = folder / "small.py"
    file.write_text(f"def get_config(variant):\n    return {config!r}\n")
    module = ["tests.training.interrupted", *orders, "--"] if orders else ["jfusion.main"]
    flags = (f"--config={file}", f"--workdir={workdir}", *flags)
    return subprocess.run(
        [sys.executable, "-m", *module, *flags],
        cwd=ROOT,
        env={**os.environ, "JFUSION_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=600,
    )


def start_together(
    folder: Path,
    workdir: Path | str,
    config: dict,
    orders: tuple[tuple[str, ...], ...] = ((), ()),
    flags: tuple[str, ...] = (),
) -> list[subprocess.CompletedProcess]:
    """Runs the command in several processes of two devices each, which train together.

    Args:
        folder: As in `start`.
        workdir: The run's folder.
        config: The experiment.
        orders: Of each process, see `start`.
        flags: More flags.
    """
    file = folder / "together.py"
    file.write_text(f"def get_config(variant):\n    return {config!r}\n")
    arguments = (f"--config={file}", f"--workdir={workdir}", "--distributed", *flags)
    modules = [
        ("tests.training.interrupted", *own, "--") if own else ("jfusion.main",) for own in orders
    ]
    commands = [("-m", *module, *arguments) for module in modules]
    return devices.together(commands, JFUSION_CACHE=str(folder / "cache"))


def results(folder: Path) -> dict:
    """What a finished run gave, without what depends on the clock."""
    summary = json.loads((folder / "summary.json").read_text())
    del summary["seconds"], summary["samples_per_second"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line["values"].pop("samples_per_second", None)
    model = {path.name: path.read_bytes() for path in sorted((folder / "model").iterdir())}
    return {"summary": summary, "metrics": lines, "model": model}
