"""Tables of one's own through a whole run, from the command line's overrides to the model."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jfusion import artifact, config_file
from jfusion.training import loop

CONFIGS = Path(__file__).parents[1] / "configs"
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
TINY = {
    "plot": {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 32},
    "poster": {"depths": (1,), "hidden_sizes": (8,), "layer_scale_init_value": 1.0},
}


def products(folder, rows=40):
    """Things of a colour that only the picture shows and of a size that only the text tells."""
    (folder / "pictures").mkdir()
    for row in range(rows):
        colour = list(COLOURS)[row % 3]
        noise = np.random.default_rng(row).integers(0, 30, (20, 24, 3))
        picture = np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / "pictures" / f"{row}.png")
        size = "large" if row % 2 else "small"
        yield {
            "sku": f"A-{row}",
            "title": "" if row == 4 else f"a {size} thing, number {row}",
            "photo": "" if row == 5 else f"pictures/{row}.png",
            "tags": [colour, size],
            "part": "train" if row < 24 else "val" if row < 32 else "test",
        }


def train(name, folder, *overrides):
    config = config_file.load(
        str(CONFIGS / f"{name}.py"),
        [
            "data.source=table",
            "data.id_column=sku",
            "targets.genres.column=tags",
            "fusion.hidden=(32,)",
            "train.batch_size=4",
            "train.phases.0.epochs=10",
            'train.phases.0.rates=((".*", 1e-2),)',
            *overrides,
        ],
    )
    summary = loop.train(config, folder / "run")
    assert summary == json.loads((folder / "run" / "summary.json").read_text())
    return summary


def plot(column):
    return (
        f"inputs.plot.column={column}",
        "inputs.plot.max_tokens=8",
        f"inputs.plot.encoder.sizes={TINY['plot']}",
    )


def test_a_csv_with_pictures_beside_it(tmp_path):
    (tmp_path / "table").mkdir()
    with open(tmp_path / "table" / "products.csv", "w", newline="") as file:
        rows = list(products(tmp_path / "table"))
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"tags": ";".join(row["tags"])} for row in rows)
    summary = train(
        "genre_fusion",
        tmp_path,
        f"data.path={tmp_path}/table/products.csv",
        "data.split_column=part",
        "targets.genres.delimiter=;",
        *plot("title"),
        "inputs.poster.column=photo",
        "inputs.poster.size=16",
        f"inputs.poster.encoder.sizes={TINY['poster']}",
    )
    assert summary["rows"] == {
        "train": {"ok": 22, "missing": 2, "skipped": 0},
        "val": {"ok": 8, "missing": 0, "skipped": 0},
        "test": {"ok": 8, "missing": 0, "skipped": 0},
    }
    assert "best_possible" not in summary
    # Neither the picture nor the text knows all; this is what both together must learn.
    assert summary["test"]["macro_f1"] > 0.9
    model = artifact.read(tmp_path / "run" / "model")
    assert model.targets["genres"]["labels"] == ["blue", "green", "large", "red", "small"]
    assert set(model.inputs) == {"plot", "poster"}


def test_jsonl_files_with_a_text_alone(tmp_path):
    (tmp_path / "table").mkdir()
    for row in products(tmp_path / "table"):
        with open(tmp_path / "table" / f"{row['part']}.jsonl", "a") as file:
            file.write(json.dumps(row | {"title": row["title"] or None}) + "\n")
    summary = train(
        "genre_text",
        tmp_path,
        *(
            f"data.{key}={tmp_path}/table/{name}.jsonl"
            for key, name in (("path", "train"), ("val_path", "val"), ("test_path", "test"))
        ),
        *plot("title"),
        "targets.genres.labels=('small', 'large', 'red', 'green', 'blue')",
    )
    # A row whose only input is empty cannot be used.
    assert summary["rows"]["train"] == {"ok": 23, "missing": 0, "skipped": 1}
    model = artifact.read(tmp_path / "run" / "model")
    assert model.targets["genres"]["labels"][:2] == ["small", "large"]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    scores = next(x["values"] for x in map(json.loads, lines) if x["split"] == "test")
    assert scores["genres/small/f1"] == scores["genres/large/f1"] == pytest.approx(1)
    assert scores["genres/red/f1"] < 0.9
