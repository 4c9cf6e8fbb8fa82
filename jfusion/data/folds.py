"""Folds: other divisions of the same rows, each part of which is the test split once."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from jfusion.data import groups
from jfusion.data.cells import read_cells
from jfusion.data.columns import is_empty, parse_number
from jfusion.data.problems import DataError
from jfusion.data.source import Joined, Source, Subset
from jfusion.data.targets import TargetColumn

_BINS = 5  # of numbers, when parts are to be alike


def divide(
    sources: Mapping[str, Source],
    fold: tuple[int, int],
    targets: Iterable[TargetColumn] = (),
    *,
    group_column: str = "",
    seed: int = 0,
    cache_dir: str | Path = "",
) -> dict[str, Source]:
    """Divides the rows of all splits anew.

    Rows with an empty target cell are left out: data sets keep the answers of their test split to
    themselves. The others are cut into n parts by whole groups; the parts are of about the same
    size and of about the same make-up in a target. The same seed cuts alike for every k.

    Args:
        sources: The data set's own splits.
        fold: `(k, n)`: part k is the test split, the next one (after the last, the first) is for
            validation, and the others are for training.
        targets: What is to be predicted.
        group_column: The column that names whom a row is of; empty: each row is a group.
        seed: Seeds the cut.
        cache_dir: See `cache.cache_root`.

    Raises:
        DataError: There are fewer groups than parts.
    """
    part, parts = fold
    source = join(sources.values())
    columns = sorted({target.column for target in targets if target.column})
    full = np.ones(len(source), bool)
    for column in columns:
        empty, _ = read_cells(source, column, is_empty, ["empty"], cache_dir)
        full &= ~np.array(empty, bool)
    source = Subset(source.whole, source.rows[full])
    if group_column:
        names = groups.of_rows(source, group_column, cache_dir)
    else:
        names = [str(row) for row in range(len(source))]
    strata = _strata(source, columns[0], cache_dir) if columns else [""] * len(source)
    number = groups.deal(names, strata, parts, seed)
    if len(set(number)) < parts:
        what = "groups" if group_column else "rows"
        raise DataError(
            f"{source.name}: {parts} folds need as many {what}, there are {len(set(names))} with "
            "a target"
        )
    chosen = {
        "train": ~np.isin(number, [part, (part + 1) % parts]),
        "val": number == (part + 1) % parts,
        "test": number == part,
    }
    return {name: Subset(source.whole, source.rows[rows]) for name, rows in chosen.items()}


def join(sources: Iterable[Source]) -> Subset:
    """The rows of several sources, as rows of one: that of which all are parts, or a new one.

    Raises:
        DataError: Paths in the sources are relative to different folders.
    """
    sources = [s if isinstance(s, Subset) else Subset(s, np.arange(len(s))) for s in sources]
    wholes = list({id(source.whole): source.whole for source in sources}.values())
    if len(wholes) == 1:
        return Subset(wholes[0], np.sort(np.concatenate([source.rows for source in sources])))
    roots = {whole.root for whole in wholes}
    if len(roots) > 1:
        raise DataError(
            f"{', '.join(whole.name for whole in wholes)}: these lie in different folders; set "
            "data.root to one that all paths are relative to"
        )
    joined = Joined(wholes, roots.pop())
    starts = {id(whole): start for whole, start in zip(wholes, joined.starts, strict=True)}
    rows = [starts[id(source.whole)] + source.rows for source in sources]
    return Subset(joined, np.sort(np.concatenate(rows)))


def _strata(source: Source, column: str, cache_dir: str | Path) -> list[str]:
    """What kind of row each is by its target: a fifth of the numbers, or the cell itself."""
    numbers, bad = read_cells(source, column, parse_number, ["number"], cache_dir)
    if numbers and not bad:
        edges = np.quantile(numbers, np.linspace(0, 1, _BINS + 1)[1:-1])
        return [str(kind) for kind in np.searchsorted(edges, numbers, side="right")]
    texts, _ = read_cells(source, column, str, ["text"], cache_dir)
    return texts
