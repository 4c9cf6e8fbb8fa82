"""Predicts a file into a file, a row for a row.

    python -m jfusion.predict --model RUN/model --input movies.csv --output predicted.csv

Both files are CSV, TSV, Parquet or JSONL, by the end of their names. The input needs the columns
that the model reads. Every input row gives one output row, in order, with its `status`: `ok`;
`missing: ...` where the model had to do without a modality; `bad: ...` where nothing could be
predicted, and the other columns are empty. A column holds the predicted labels, and one per label
its probability.

With --distributed each of several processes predicts a part of the rows into a file of its own,
`predicted.csv.parts/part-00000.csv` and so on; `manifest.json` there lists them in the order of the
rows. The folder and the cache lie on a disk that they share. The same command, with any number of
processes, goes on with what was stopped: parts that are there stay.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from jfusion import bucket, command

MODEL = flags.DEFINE_string("model", None, "A run's model folder, also in a bucket.", required=True)
INPUT = flags.DEFINE_string("input", None, "The table to predict.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "The table to write.", required=True)
ROOT = flags.DEFINE_string("root", "", "Folder of the pictures, if not the input's.")
ID_COLUMN = flags.DEFINE_string("id_column", "", "A column to copy into the output.")
ON_ERROR = flags.DEFINE_enum(
    "on_error",
    "missing",
    ["raise", "missing", "skip"],
    "A bad cell counts as an absent modality, or its row is not predicted, or nothing is.",
)
CACHE_DIR = flags.DEFINE_string("cache_dir", "", "Cache of preprocessed data; ~/.cache/jfusion.")


def main() -> None:
    """Runs the command."""
    bucket.require_local("output", OUTPUT.value)
    command.join_processes()
    from jfusion import artifact, prediction_parts, processes

    source, model, predict = processes.together(_load)
    output = Path(OUTPUT.value)
    if processes.count() == 1:
        predict(source, output)
        return
    what = {
        "input": source.fingerprint,
        "model": artifact.fingerprint(model),
        "id_column": ID_COLUMN.value,
        "on_error": ON_ERROR.value,
    }
    parts = processes.first_decides(
        lambda: prediction_parts.plan(output, what, len(source), processes.count())
    )
    processes.together(lambda: _predict_parts(source, predict, output, parts))


def _load() -> tuple:
    """The input, the model's folder, and a function that predicts a source into a file."""
    from jfusion import artifact, inference, predictions
    from jfusion.data import copies, dataset, table
    from jfusion.data.cache import cache_root
    from jfusion.data.split import prepare_split

    predictions.check_name(Path(OUTPUT.value))
    command.cache_compiled_programs(cache_root(CACHE_DIR.value) / "xla")
    folder = copies.local(MODEL.value, CACHE_DIR.value)
    kept = artifact.read(folder)
    paths = dataset.path_columns(kept.inputs.values())
    places = {"root": ROOT.value, "cache_dir": CACHE_DIR.value}
    whole = table.read(INPUT.value, pictures=paths, **places)
    if ID_COLUMN.value:
        table.require_column(INPUT.value, ID_COLUMN.value, whole[0])
    model = inference.Model(kept, alone=True)

    def predict(source: Any, output: Path, first: int = 1) -> None:
        split = prepare_split(
            source, kept.inputs, on_error=ON_ERROR.value, cache_dir=CACHE_DIR.value
        )
        rows = predictions.rows(
            model.sections,
            model.labels,
            model.radii,
            split,
            model.run(split) if len(split) else None,
            copy=[ID_COLUMN.value] if ID_COLUMN.value else [],
            first=first,
        )
        predictions.write(output, rows)
        counts = ", ".join(f"{n:,} {what}" for what, n in split.counts().items())
        print(f"{len(rows):,} rows ({counts}) in {output}")

    return whole, folder, predict


def _predict_parts(source: Any, predict: Callable, output: Path, parts: Sequence) -> None:
    """This process's share of the parts, but for those that are there."""
    from jfusion import prediction_parts, processes
    from jfusion.data.source import Stretch

    for file, start, stop in parts[processes.index() :: processes.count()]:
        path = prediction_parts.folder_of(output) / file
        if path.is_file():
            print(f"{path} is there")
        else:
            predict(Stretch(source, start, stop), path, start + 1)


if __name__ == "__main__":
    command.run(main)
