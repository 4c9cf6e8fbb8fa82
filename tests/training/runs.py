"""Small real runs: their configs, and what must be equal when two runs did the same."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

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


def start(
    folder: Path, workdir: Path, *orders: str, flags: tuple[str, ...] = ()
) -> subprocess.CompletedProcess:
    """Runs the command in a process of its own.

    Args:
        folder: Where its config and its caches lie, `small.py` and `cache`.
        workdir: The run's folder.
        orders: Makes the process interrupt itself, see `interrupted.py`.
        flags: More flags.
    """
    config = folder / "small.py"
    config.write_text(f"def get_config(variant):\n    return {CONFIG!r}\n")
    module = ["tests.training.interrupted", *orders, "--"] if orders else ["jfusion.main"]
    flags = (f"--config={config}", f"--workdir={workdir}", *flags)
    return subprocess.run(
        [sys.executable, "-m", *module, *flags],
        cwd=ROOT,
        env={**os.environ, "JFUSION_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=600,
    )


def results(folder: Path) -> dict:
    """What a finished run gave, without what depends on the clock."""
    summary = json.loads((folder / "summary.json").read_text())
    del summary["seconds"], summary["samples_per_second"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line["values"].pop("samples_per_second", None)
    model = {path.name: path.read_bytes() for path in sorted((folder / "model").iterdir())}
    return {"summary": summary, "metrics": lines, "model": model}
