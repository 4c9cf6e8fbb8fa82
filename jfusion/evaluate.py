"""Scores a trained model.

python -m jfusion.evaluate --model RUN/model
    The test split of the data it was trained on; gives the run's own test scores.
python -m jfusion.evaluate --model RUN/model --split val --path /moved/table.csv
    Another split, and the data where they lie now.
python -m jfusion.evaluate --model RUN/model --input labelled.csv
    Every row of another table with the same columns.
"""

import dataclasses
from pathlib import Path

from absl import flags

from jfusion import command, run_folder
from jfusion.config import Data

MODEL = flags.DEFINE_string("model", None, "A run's model folder.", required=True)
SPLIT = flags.DEFINE_enum("split", "test", ["train", "val", "test"], "Split of the training data.")
INPUT = flags.DEFINE_string("input", "", "A labelled table to score instead of a split.")
PATH = flags.DEFINE_string("path", "", "Where the training data lie now, if not where they were.")
ROOT = flags.DEFINE_string("root", "", "Folder of the pictures, if not the table's.")
ON_ERROR = flags.DEFINE_enum(
    "on_error", None, ["raise", "missing", "skip"], "What a bad cell does; as in training if unset."
)
CACHE_DIR = flags.DEFINE_string("cache_dir", "", "Cache of preprocessed data; ~/.cache/jfusion.")
OUTPUT = flags.DEFINE_string("output", "", "A JSON file for the scores.")


def main() -> None:
    """Runs the command."""
    from jfusion import artifact, inference
    from jfusion.data import dataset, table
    from jfusion.data.cache import cache_root
    from jfusion.data.split import prepare_split
    from jfusion.training import metrics, tables
    from jfusion.training.progress import Display

    command.cache_compiled_programs(cache_root(CACHE_DIR.value) / "xla")
    model = artifact.read(Path(MODEL.value))
    data = _data(model.origin["data"])
    if INPUT.value:
        pictures = [reader.column for reader in model.inputs.values() if reader.kind == "image"]
        source = table.read(INPUT.value, root=ROOT.value, pictures=pictures)
    else:
        sources = dataset.open_sources(data, model.inputs.values(), model.origin["seed"])
        source = sources[SPLIT.value]
    split = prepare_split(
        source,
        model.inputs,
        inference.label_columns(model),
        on_error=ON_ERROR.value or data.on_error,
        cache_dir=CACHE_DIR.value,
    )
    display = Display()
    for problem in split.problems:
        display.message(str(problem))
    display.message(", ".join(f"{n:,} {what}" for what, n in split.counts().items()))
    outputs = inference.run(model, split)
    scores = inference.score(model, split, outputs)
    for name, section in inference.target_sections(model).items():
        truth = split.targets[name][outputs.rows]
        rows = metrics.per_label(
            outputs.probabilities(name), truth, section.labels, section.threshold
        )
        display.show(tables.of_labels(rows))
    display.show(tables.of_metrics({INPUT.value or SPLIT.value: scores}))
    if OUTPUT.value:
        run_folder.write_json(Path(OUTPUT.value), {"scores": scores, "rows": split.counts()})


def _data(recorded: dict) -> Data:
    """The data of the training run, where they lie now."""
    moved = {name: flag.value for name, flag in (("path", PATH), ("root", ROOT)) if flag.value}
    return dataclasses.replace(Data(**recorded), **moved)


if __name__ == "__main__":
    command.run(main)
