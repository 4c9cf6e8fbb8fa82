"""Builds a data set for training.

    python -m jfusion.prepare --dataset mm_imdb --source path/to/mmimdb
    python -m jfusion.prepare --dataset mm_imdb --source path/to/mmimdb.tar.gz --data_dir /data/tfds
    python -m jfusion.prepare --dataset daic_woz --source path/to/daic_woz

mm_imdb: https://archive.org/download/mmimdb/mmimdb.tar.gz, or the folder that it unpacks to.
daic_woz: https://dcapswoz.ict.usc.edu hands it out for a signed agreement; the folder with
300_P.zip to 492_P.zip (or what they unpack to: 300_P to 492_P) and the label files.

What is built already is left as it is and only described; delete its folder to have it built again.

Exit codes: 0 built, or built before; 2 wrong flag, or a source that is not the data set.
"""

import importlib
import sys

from absl import flags, logging
from rich import box
from rich.console import Console
from rich.table import Table

from jfusion import command

# What is to be given as --source, and the config to train with.
DATASETS = {
    "mm_imdb": ("unpacked or as mmimdb.tar.gz", "configs/genre_fusion.py:mm_imdb"),
    "daic_woz": ("the folder with 300_P.zip and so on", "configs/phq8_attention.py:daic_woz"),
}

DATASET = flags.DEFINE_enum("dataset", None, list(DATASETS), "Which data set.", required=True)
SOURCE = flags.DEFINE_string(
    "source",
    None,
    "The folder or archive that the data set's authors hand out. Not needed once it is built.",
)
DATA_DIR = flags.DEFINE_string(
    "data_dir", "", "Where to build. Empty: tfds in the cache folder, where training looks for it."
)


def main() -> None:
    """Runs the command."""
    # Only now what is heavy, so that a wrong flag ends at once.
    import tensorflow_datasets as tfds

    from jfusion.data.problems import DataError

    name = DATASET.value
    what, config = DATASETS[name]
    dataset = importlib.import_module(f"jfusion.data.builders.{name}")
    logging.set_verbosity(logging.ERROR)  # TFDS tells every file it writes
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    builder = dataset.open_built(DATA_DIR.value)
    if builder is not None:
        print(f"{name} was built before: {builder.data_dir}")
    elif SOURCE.value is None:
        raise DataError(f"--source: say where {name} lies, {what}")
    else:
        builder = dataset.build(SOURCE.value, DATA_DIR.value)
        print(f"{name} is built: {builder.data_dir}")
    describe(list(builder.info.splits), dataset.tables(builder), dataset.remarks(builder))
    print(f"\nnext:  python -m jfusion.main --config {config}", end="")
    print(f" --config.data.path={DATA_DIR.value}" if DATA_DIR.value else "")


def describe(
    splits: list[str], tables: dict[str, dict[str, list[int]]], remarks: list[str]
) -> None:
    """Prints tables of counts by split, and remarks."""
    console = Console()
    for heading, rows in tables.items():
        table = Table(heading, box=box.SIMPLE_HEAD)
        for split in [*splits, "all"]:
            table.add_column(split, justify="right")
        for name, numbers in rows.items():
            table.add_row(name, *(f"{number:,}" for number in [*numbers, sum(numbers)]))
        console.print(table)
    for remark in remarks:
        console.print(remark, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    command.run(main)
