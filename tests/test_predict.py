"""`evaluate` and `predict` on a model folder that was copied away from its run."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet
import pytest
from sklearn.metrics import f1_score

from jfusion.data.samples import movies
from tests import buckets
from tests.training import devices

CONFIG = """
from ml_collections import ConfigDict

def get_config(variant=""):
    text = dict(network="distilbert", sizes=dict(
        dim=16, n_layers=1, n_heads=2, hidden_dim=32, max_position_embeddings=32))
    image = dict(network="convnext", sizes=dict(
        depths=(1,), hidden_sizes=(8,), layer_scale_init_value=1.0))
    return ConfigDict(dict(
        data=dict(source="movies", rows=120),
        inputs=dict(
            plot=dict(kind="text", column="plot", max_tokens=32, encoder=text),
            poster=dict(kind="image", column="poster", size=16, encoder=image),
        ),
        targets=dict(genres=dict(kind="multilabel", column="genres", pos_weight=True)),
        fusion=dict(kind="concat", hidden=(16,)),
        train=dict(batch_size=8, phases=(dict(epochs=2, rates=((".*", 1e-2),)),)),
    ))
"""


def jfusion(command, *args, code=0):
    done = subprocess.run(
        [sys.executable, "-m", f"jfusion.{command}", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The test scores of a run, and its model, far from the run's folder."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "config.py").write_text(CONFIG)
    jfusion("main", "--config", folder / "config.py", "--workdir", folder / "run")
    summary = json.loads((folder / "run" / "summary.json").read_text())
    shutil.move(folder / "run" / "model", folder / "elsewhere")
    shutil.rmtree(folder / "run")
    return summary, folder / "elsewhere"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The sample's test split as a table, with a few bad rows, and its true labels."""
    folder = tmp_path_factory.mktemp("table")
    test = movies.sources(120)["test"]
    rows, truth = [], []
    for i in range(len(test)):
        row = test[i]
        if row["poster"]:
            (folder / f"{i}.jpg").write_bytes(row["poster"])
        poster = f"{i}.jpg" if row["poster"] else ""
        rows.append({"id": row["id"], "plot": row["plot"] or "", "poster": poster})
        truth.append([label in row["genres"] for label in movies.LABELS])
    good = len(rows)
    rows.insert(3, {"id": "nothing", "plot": "", "poster": ""})
    rows.append({"id": "broken", "plot": "A storm.", "poster": "broken.jpg"})
    (folder / "broken.jpg").write_bytes((folder / "0.jpg").read_bytes()[:200])
    with open(folder / "movies.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "plot", "poster"])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "movies.csv", np.array(truth), good


def test_evaluate_gives_the_runs_own_scores(trained, tmp_path):
    summary, model = trained
    jfusion("evaluate", "--model", model, "--output", tmp_path / "scores.json")
    result = json.loads((tmp_path / "scores.json").read_text())
    assert result["scores"] == summary["test"]
    assert result["rows"] == summary["rows"]["test"]
    assert result["patterns"] == summary["patterns"]
    assert set(result["patterns"]) == {"plot + poster", "plot", "poster"}


def test_evaluate_names_what_is_wrong(trained, tmp_path):
    _, model = trained
    assert "model.json" in jfusion("evaluate", "--model", tmp_path, code=2)
    (tmp_path / "t.csv").write_text("plot,poster\na,b\n")
    text = jfusion("evaluate", "--model", model, "--input", tmp_path / "t.csv", code=2)
    assert "genres" in text and "t.csv" in text


def test_predict_a_row_for_a_row(trained, table, tmp_path):
    summary, model = trained
    path, truth, good = table
    output = tmp_path / "out.csv"
    text = jfusion(
        "predict", "--model", model, "--input", path, "--output", output, "--id_column", "id"
    )
    assert f"{good + 2} rows" in text
    with open(path, newline="") as asked, open(output, newline="") as given:
        asked, given = list(csv.DictReader(asked)), list(csv.DictReader(given))
    assert [row["id"] for row in given] == [row["id"] for row in asked]
    assert [row["row"] for row in given] == [str(i + 1) for i in range(len(asked))]
    nothing, broken = given.pop(3), given.pop()
    assert nothing["status"].startswith("bad:") and nothing["genres"] == ""
    assert nothing["genres/Drama"] == ""
    assert broken["status"].startswith("missing: poster (") and broken["genres/Drama"]
    for row, wanted in zip(given, (r for r in asked if r["id"].startswith("test")), strict=True):
        absent = [name for name in ("plot", "poster") if not wanted[name]]
        assert row["status"] == (f"missing: {absent[0]}" if absent else "ok")
    # The file holds all that the run's own score was made of.
    probabilities = np.array(
        [[row[f"genres/{label}"] for label in movies.LABELS] for row in given], np.float32
    )
    predicted = [[label in json.loads(row["genres"]) for label in movies.LABELS] for row in given]
    np.testing.assert_array_equal(probabilities > 0.5, predicted)
    score = f1_score(truth, predicted, average="macro", zero_division=0)
    assert score == pytest.approx(summary["test"]["macro_f1"], abs=1e-12)


def test_formats_agree(trained, table, tmp_path):
    _, model = trained
    path, _, _ = table
    for suffix in ("jsonl", "parquet", "tsv"):
        jfusion("predict", "--model", model, "--input", path, "--output", tmp_path / f"o.{suffix}")
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert pyarrow.parquet.read_table(tmp_path / "o.parquet").to_pylist() == lines
    with open(tmp_path / "o.tsv", newline="") as file:
        for row, line in zip(csv.DictReader(file, delimiter="\t"), lines, strict=True):
            assert row["status"] == line["status"]
            assert row["genres"] == ("" if line["genres"] is None else json.dumps(line["genres"]))
            if line["genres/War"] is not None:
                assert np.float32(row["genres/War"]) == np.float32(line["genres/War"])


def test_predict_reads_a_model_and_a_table_in_a_bucket(trained, table, tmp_path, url):
    _, model = trained
    path, _, _ = table
    buckets.fill(f"{url}/model", model)
    buckets.fill(f"{url}/data", path.parent)
    here, there = tmp_path / "here.csv", tmp_path / "there.csv"
    jfusion("predict", "--model", model, "--input", path, "--output", here)
    moved = ("--model", f"{url}/model", "--input", f"{url}/data/{path.name}")
    jfusion("predict", *moved, "--output", there, "--cache_dir", tmp_path / "cache")
    assert here.read_text() == there.read_text()


def test_predict_refuses_before_it_works(trained, table, tmp_path):
    _, model = trained
    path, _, _ = table
    args = ("predict", "--model", model, "--input", path, "--output")
    assert "must end in" in jfusion(*args, tmp_path / "out.xlsx", code=2)
    assert "no folder" in jfusion(*args, tmp_path / "no" / "out.csv", code=2)
    text = jfusion(*args, tmp_path / "out.csv", "--on_error", "raise", code=2)
    assert "broken.jpg" in text or "movies.csv" in text
    assert not (tmp_path / "out.csv").exists()


def test_several_processes_predict_parts_and_go_on(trained, table, tmp_path):
    _, model = trained
    path, _, good = table
    args = ("--model", model, "--input", path, "--output", tmp_path / "out.csv")
    jfusion("predict", *args)
    command = ("-m", "jfusion.predict", "--distributed", *map(str, args))

    def predict(count, *more):
        return devices.together([(*command, *more)] * count)

    done = predict(2)
    assert [process.returncode for process in done] == [0, 0], done
    folder = tmp_path / "out.csv.parts"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [part["file"] for part in manifest["parts"]] == ["part-00000.csv", "part-00001.csv"]
    rows = []
    for part in manifest["parts"]:
        with open(folder / part["file"], newline="") as file:
            of_part = list(csv.DictReader(file))
        assert len(of_part) == part["stop"] - part["start"]
        rows += of_part
    with open(tmp_path / "out.csv", newline="") as file:
        alone = list(csv.DictReader(file))
    assert len(rows) == manifest["rows"] == good + 2
    for row, other in zip(rows, alone, strict=True):
        assert row["row"] == other["row"] and row["status"] == other["status"]
        assert row["genres"] == other["genres"]
        if row["genres"]:
            assert float(row["genres/War"]) == pytest.approx(float(other["genres/War"]), abs=1e-4)

    # What is there stays, whoever goes on with it.
    before = (folder / "part-00001.csv").stat().st_mtime_ns
    text = (folder / "part-00000.csv").read_bytes()
    (folder / "part-00000.csv").unlink()
    done = predict(3)
    assert [process.returncode for process in done] == [0, 0, 0], done
    assert (folder / "part-00000.csv").read_bytes() == text
    assert (folder / "part-00001.csv").stat().st_mtime_ns == before

    refused = predict(2, "--on_error=skip")
    assert [process.returncode for process in refused] == [2, 2]
    assert all("holds the parts of another prediction" in x.stderr for x in refused)
