"""Predicts a file into a file, a row for a row.

    python -m jfusion.predict --model RUN/model --input movies.csv --output predicted.csv

Both files are CSV, TSV, Parquet or JSONL, by the end of their names. The input needs the columns
that the model reads. Every input row gives one output row, in order, with its `status`: `ok`;
`missing: ...` where the model had to do without a modality; `bad: ...` where nothing could be
predicted, and the other columns are empty. A column holds the predicted labels, and one per label
its probability.
"""

from pathlib import Path

from absl import flags

from jfusion import command

MODEL = flags.DEFINE_string("model", None, "A run's model folder.", required=True)
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
    from jfusion import artifact, inference, predictions
    from jfusion.data import dataset, table
    from jfusion.data.cache import cache_root
    from jfusion.data.split import prepare_split

    output = Path(OUTPUT.value)
    predictions.check_name(output)
    command.cache_compiled_programs(cache_root(CACHE_DIR.value) / "xla")
    kept = artifact.read(Path(MODEL.value))
    paths = dataset.path_columns(kept.inputs.values())
    source = table.read(INPUT.value, root=ROOT.value, pictures=paths)
    if ID_COLUMN.value:
        table.require_column(INPUT.value, ID_COLUMN.value, source[0])
    split = prepare_split(source, kept.inputs, on_error=ON_ERROR.value, cache_dir=CACHE_DIR.value)
    model = inference.Model(kept)
    rows = predictions.rows(
        model.sections,
        model.labels,
        model.radii,
        split,
        model.run(split) if len(split) else None,
        copy=[ID_COLUMN.value] if ID_COLUMN.value else [],
    )
    predictions.write(output, rows)
    counts = ", ".join(f"{n:,} {what}" for what, n in split.counts().items())
    print(f"{len(rows):,} rows ({counts}) in {output}")


if __name__ == "__main__":
    command.run(main)
