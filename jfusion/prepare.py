"""Builds a data set for training.

    python -m jfusion.prepare --dataset mm_imdb --source path/to/mmimdb
    python -m jfusion.prepare --dataset mm_imdb --source path/to/mmimdb.tar.gz --data_dir /data/tfds

mm_imdb: https://archive.org/download/mmimdb/mmimdb.tar.gz, or the folder that it unpacks to. What
is built already is left as it is and only described; delete its folder to have it built again.

Exit codes: 0 built, or built before; 2 wrong flag, or a source that is not the data set.
"""

import sys
from typing import Any

from absl import flags, logging
from rich import box
from rich.console import Console
from rich.table import Table

from jfusion import command

DATASET = flags.DEFINE_enum("dataset", None, ["mm_imdb"], "Which data set.", required=True)
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

    from jfusion.data.builders import mm_imdb
    from jfusion.data.problems import DataError

    logging.set_verbosity(logging.ERROR)  # TFDS tells every file it writes
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    builder = mm_imdb.open_built(DATA_DIR.value)
    if builder is not None:
        print(f"mm_imdb was built before: {builder.data_dir}")
    elif SOURCE.value is None:
        raise DataError("--source: say where mm_imdb lies, unpacked or as mmimdb.tar.gz")
    else:
        builder = mm_imdb.build(SOURCE.value, DATA_DIR.value)
        print(f"mm_imdb is built: {builder.data_dir}")
    describe(builder.info.metadata["counts"])
    print("\nnext:  python -m jfusion.main --config configs/genre_fusion.py:mm_imdb", end="")
    print(f" --config.data.path={DATA_DIR.value}" if DATA_DIR.value else "")


def describe(counts: dict[str, dict[str, Any]]) -> None:
    """Prints a table of counts by split, and one of labels by split."""

    def table(first: str, rows: dict[str, list[int]]) -> Table:
        result = Table(first, box=box.SIMPLE_HEAD)
        for heading in [*counts, "all"]:
            result.add_column(heading, justify="right")
        for name, numbers in rows.items():
            result.add_row(name, *(f"{number:,}" for number in [*numbers, sum(numbers)]))
        return result

    splits = list(counts.values())
    kinds = ("movies", "without_plot", "without_poster", "without_label")
    labels = {label: [split["labels"][label] for split in splits] for label in splits[0]["labels"]}
    names = sorted({name for split in splits for name in split["dropped"]})
    dropped = {name: [split["dropped"].get(name, 0) for split in splits] for name in names}
    console = Console()
    console.print(
        table("", {kind.replace("_", " "): [split[kind] for split in splits] for kind in kinds}),
        table("label", labels),
        table("genre that is no label", dropped),
    )


if __name__ == "__main__":
    command.run(main)
