"""The section of where the rows come from."""

from dataclasses import dataclass
from typing import Literal

from jfusion.config.checks import require


@dataclass(frozen=True)
class Data:
    """Where the rows come from. Files and folders may lie in a bucket, but for `cache_dir`.

    Attributes:
        source: `movies`, `interviews` and `products` are the embedded samples; `mm_imdb`,
            `daic_woz` and `rakuten` data sets built by `jfusion.prepare`; `table` a CSV, TSV,
            Parquet or JSONL file of one's own.
        path: The table file, or the folder that `jfusion.prepare` wrote to (empty: its default).
        root: Folder that picture paths are relative to and may not leave; empty: the table's.
        val_path: A separate validation table.
        test_path: A separate test table.
        split_column: Column with `train`, `val` or `test`; without it and without separate files,
            rows are split at random (by `seed`) into the two fractions below and the rest.
        val_fraction: Share of rows for validation.
        test_fraction: Share of rows for the test.
        id_column: Column that names a row and may hold no name twice.
        group_column: Column that names whom a row is of; nobody may be in two splits, and random
            splits and folds keep a group together. Empty: each row is a group.
        fold: `(k, n)`: all rows with targets are cut into n parts by groups, of which part k
            (from 0) is the test split; empty keeps the data set's own splits. Set by `folds`.
        on_error: A bad cell ends the run (`raise`), counts as an absent modality (`missing`), or
            leaves its row out (`skip`). A row whose label is bad is left out by both of the latter.
        cache_dir: Folder for tokenized texts and decoded pictures; empty: `~/.cache/jfusion`.
        rows: Number of rows of the embedded sample, or 0 for its full size.
    """

    source: Literal[
        "movies", "interviews", "products", "mm_imdb", "daic_woz", "rakuten", "table"
    ] = "table"
    path: str = ""
    root: str = ""
    val_path: str = ""
    test_path: str = ""
    split_column: str = ""
    val_fraction: float = 0.15
    test_fraction: float = 0.15
    id_column: str = ""
    group_column: str = ""
    fold: tuple[int, ...] = ()
    on_error: Literal["raise", "missing", "skip"] = "raise"
    cache_dir: str = ""
    rows: int = 0

    def __post_init__(self):
        require(self.val_fraction > 0, "val_fraction", "above 0", self.val_fraction)
        require(self.test_fraction > 0, "test_fraction", "above 0", self.test_fraction)
        require(
            self.val_fraction + self.test_fraction < 1,
            "test_fraction",
            "below 1 together with val_fraction",
            self.test_fraction,
        )
        require(self.source != "table" or self.path, "path", "a table file", self.path)
        require(self.rows >= 0, "rows", "0 or more", self.rows)
        part = not self.fold or (len(self.fold) == 2 and 0 <= self.fold[0] < self.fold[1])
        require(part, "fold", "(k, n) with 0 <= k < n, or none", self.fold)
