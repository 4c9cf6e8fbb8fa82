"""Scores a trained model.

python -m jfusion.evaluate --model RUN/model
    The test split of the data it was trained on; gives the run's own test scores.
python -m jfusion.evaluate --model RUN/model --split val --path /moved/table.csv
    Another split, and the data where they lie now.
python -m jfusion.evaluate --model RUN/model --input labelled.csv
    Every row of another table with the same columns.

With --distributed the rows are shared over the devices of several processes.
"""

import dataclasses
import functools
from pathlib import Path

from absl import flags

from jfusion import bucket, command, run_folder
from jfusion.config import Data

MODEL = flags.DEFINE_string("model", None, "A run's model folder, also in a bucket.", required=True)
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
    bucket.require_local("output", OUTPUT.value)
    command.join_processes()
    from jfusion import processes
    from jfusion.training import readout, tables, verdict
    from jfusion.training.progress import Display

    kept, model, data, split = processes.together(_load)
    display = Display(active=processes.is_first())
    for problem in split.problems:
        display.message(str(problem))
    display.message(", ".join(f"{n:,} {what}" for what, n in split.counts().items()))
    judged, outputs = verdict.judge(
        functools.partial(model.run, split),
        kept.inputs,
        split.targets,
        model.sections,
        model.losses,
        model.statistics,
        model.radii,
        verdict.groups_of(split, data) if not INPUT.value else None,
    )
    for name, section in model.sections.items():
        if model.labels[name]:
            probabilities = readout.predicted(section, outputs.heads[name])
            truth = split.targets[name][outputs.rows]
            rows = readout.of_labels(section, probabilities, truth, model.labels[name])
            display.show(tables.of_rows(rows, name))
    display.show(tables.of_metrics({INPUT.value or SPLIT.value: judged.scores}))
    for title, rows in tables.of_verdict(judged).items():
        display.show(tables.of_rows(rows, title))
    if OUTPUT.value and processes.is_first():
        run_folder.write_json(
            Path(OUTPUT.value), {"rows": split.counts(), **dataclasses.asdict(judged)}
        )


def _load() -> tuple:
    """What the model's folder holds, the model, its data section, and the rows to score."""
    from jfusion import artifact, inference
    from jfusion.data import copies, dataset, table
    from jfusion.data.cache import cache_root
    from jfusion.data.split import prepare_split

    command.cache_compiled_programs(cache_root(CACHE_DIR.value) / "xla")
    kept = artifact.read(copies.local(MODEL.value, CACHE_DIR.value))
    model = inference.Model(kept)
    data = _data(kept.origin["data"])
    if INPUT.value:
        paths = dataset.path_columns(kept.inputs.values())
        places = {"root": ROOT.value, "cache_dir": CACHE_DIR.value}
        source = table.read(INPUT.value, pictures=paths, **places)
    else:
        sources = dataset.open_sources(
            data, kept.inputs.values(), kept.origin["seed"], model.targets().values()
        )
        source = sources[SPLIT.value]
    split = prepare_split(
        source,
        kept.inputs,
        model.targets(),
        on_error=ON_ERROR.value or data.on_error,
        cache_dir=CACHE_DIR.value,
    )
    return kept, model, data, split


def _data(recorded: dict) -> Data:
    """The data of the training run, where they lie now."""
    moved = {name: flag.value for name, flag in (("path", PATH), ("root", ROOT)) if flag.value}
    return dataclasses.replace(Data(**recorded), cache_dir=CACHE_DIR.value, **moved)


if __name__ == "__main__":
    command.run(main)
