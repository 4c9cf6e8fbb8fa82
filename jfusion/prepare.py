"""Builds a data set for training, and looks for rows of different splits that are alike.

    python -m jfusion.prepare --dataset mm_imdb --source path/to/mmimdb
    python -m jfusion.prepare --dataset mm_imdb --source path/to/mmimdb.tar.gz --data_dir /data/tfds
    python -m jfusion.prepare --dataset daic_woz --source path/to/daic_woz
    python -m jfusion.prepare --dataset rakuten --source path/to/rakuten --audit
    python -m jfusion.prepare --dataset table --source mine.csv --split_column split --audit \\
        --text_column title --image_column picture

mm_imdb: https://archive.org/download/mmimdb/mmimdb.tar.gz, or the folder that it unpacks to.
daic_woz: https://dcapswoz.ict.usc.edu hands it out for a signed agreement; the folder with
300_P.zip to 492_P.zip (or what they unpack to: 300_P to 492_P) and the label files.
rakuten: https://challengedata.ens.fr/challenges/35; the folder with X_train_update.csv,
Y_train_CVw08PX.csv and what images.zip unpacks to (images/image_train).
table: a table of one's own, which needs no building: for --audit only.

What is built already is left as it is and only described; delete its folder to have it built again.

--audit compares every row with those of the other splits: texts without case, accents and
punctuation, the pixels of pictures, and 64 bits of what these look like. It prints how many are
alike, with the first of them, and writes a JSON file with more. Nothing is changed.

Exit codes: 0 built, or built before, whatever the audit found; 2 wrong flag, or a source that is
not the data set.
"""

import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from absl import flags, logging
from rich import box
from rich.console import Console
from rich.table import Table

from jfusion import command
from jfusion.errors import UserError

if TYPE_CHECKING:
    from jfusion.data.source import Source


class _Known(NamedTuple):
    """What this command knows of a data set.

    Attributes:
        source: What is to be given as --source.
        config: The config to train with.
        texts: The columns of texts that an audit compares.
        pictures: Those of pictures.
    """

    source: str
    config: str
    texts: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()


TABLE = "table"
DATASETS = {
    "mm_imdb": _Known(
        "unpacked or as mmimdb.tar.gz", "configs/genre_fusion.py:mm_imdb", ("plot",), ("poster",)
    ),
    "daic_woz": _Known(
        "the folder with 300_P.zip and so on", "configs/phq8_attention.py:daic_woz", ("transcript",)
    ),
    "rakuten": _Known(
        "the folder with X_train_update.csv and images",
        "configs/product_fusion.py:rakuten",
        ("designation",),
        ("image",),
    ),
}

DATASET = flags.DEFINE_enum("dataset", None, [*DATASETS, TABLE], "Which data set.", required=True)
SOURCE = flags.DEFINE_string(
    "source",
    None,
    "The folder or archive that the data set's authors hand out, or the table. Not needed once it "
    "is built.",
)
DATA_DIR = flags.DEFINE_string(
    "data_dir", "", "Where to build. Empty: tfds in the cache folder, where training looks for it."
)
AUDIT = flags.DEFINE_bool("audit", False, "Look for rows of different splits that are alike.")
TEXT_COLUMN = flags.DEFINE_multi_string(
    "text_column", [], "Audit: a column of texts; may be repeated. Built data sets know theirs."
)
IMAGE_COLUMN = flags.DEFINE_multi_string(
    "image_column", [], "Audit: a column of pictures; may be repeated. Built data sets know theirs."
)
SPLIT_COLUMN = flags.DEFINE_string(
    "split_column",
    "",
    "Audit of a table: the column with train, val or test. Empty: the random split that training "
    "makes of it with seed 0.",
)
VAL_PATH = flags.DEFINE_string("val_path", "", "Audit of a table: a separate one for validation.")
TEST_PATH = flags.DEFINE_string("test_path", "", "Audit of a table: a separate one for the test.")
ROOT = flags.DEFINE_string(
    "root", "", "Audit of a table: the folder that picture paths are relative to; empty: its own."
)
REPORT = flags.DEFINE_string(
    "report",
    "",
    "Audit: the JSON file to write. Empty: audit.json in the folder of the built data set, or "
    "NAME.audit.json beside the table.",
)


def main() -> None:
    """Runs the command."""
    if DATASET.value == TABLE:
        audit_table()
        return
    name, known = DATASET.value, DATASETS[DATASET.value]
    for flag in (SPLIT_COLUMN, VAL_PATH, TEST_PATH, ROOT):
        if flag.value:
            raise UserError(f"--{flag.name}: {name} has splits of its own; it is for tables")
    # Only now what is heavy, so that a wrong flag ends at once.
    import tensorflow_datasets as tfds

    dataset = importlib.import_module(f"jfusion.data.builders.{name}")
    logging.set_verbosity(logging.ERROR)  # TFDS tells every file it writes
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    builder = dataset.open_built(DATA_DIR.value)
    if builder is not None:
        print(f"{name} was built before: {builder.data_dir}")
    elif SOURCE.value is None:
        raise UserError(f"--source: say where {name} lies, {known.source}")
    else:
        builder = dataset.build(SOURCE.value, DATA_DIR.value)
        print(f"{name} is built: {builder.data_dir}")
    describe(list(builder.info.splits), dataset.tables(builder), dataset.remarks(builder))
    if AUDIT.value:
        own = not (TEXT_COLUMN.value or IMAGE_COLUMN.value)
        texts, pictures = (known.texts, known.pictures) if own else _columns()
        file = Path(REPORT.value or Path(builder.data_dir, "audit.json"))
        audit(dataset.sources(DATA_DIR.value), texts, pictures, file)
    print(f"\nnext:  python -m jfusion.main --config {known.config}", end="")
    print(f" --config.data.path={DATA_DIR.value}" if DATA_DIR.value else "")


def audit_table() -> None:
    """Audits a table of one's own."""
    if not AUDIT.value:
        raise UserError("--dataset: a table needs no building; give --audit to compare its splits")
    if SOURCE.value is None:
        raise UserError("--source: say which table")
    texts, pictures = _columns()
    if not texts and not pictures:
        raise UserError("--text_column, --image_column: say which columns are to be compared")
    from jfusion.config import Data
    from jfusion.data import table

    data = Data(
        source="table",
        path=SOURCE.value,
        root=ROOT.value,
        val_path=VAL_PATH.value,
        test_path=TEST_PATH.value,
        split_column=SPLIT_COLUMN.value,
    )
    file = Path(REPORT.value or Path(SOURCE.value).with_suffix(".audit.json"))
    audit(table.splits(data, pictures=pictures), texts, pictures, file)


def audit(
    sources: Mapping[str, "Source"], texts: Sequence[str], pictures: Sequence[str], file: Path
) -> None:
    """Looks for rows of different splits that are alike, tells what it found and keeps it.

    Args:
        sources: The splits.
        texts: Columns of texts.
        pictures: Columns of pictures.
        file: Where to keep it.
    """
    from jfusion.data.audit import audit as compare

    report = compare(sources, texts, pictures)
    describe(list(sources), report.tables(), report.remarks())
    try:
        file.write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--report: {file} cannot be written: {error.strerror}") from None
    print(f"audit: {file}")


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
        console.print(remark, highlight=False, soft_wrap=True, markup=False)


def _columns() -> tuple[list[str], list[str]]:
    """The columns of texts and pictures that are given."""
    return TEXT_COLUMN.value, IMAGE_COLUMN.value


if __name__ == "__main__":
    command.run(main)
