"""Which rows of different splits are alike: what training has seen, no test should ask for."""

import contextlib
import itertools
import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from jfusion.data import groups, likeness
from jfusion.data.columns import is_empty, require_column
from jfusion.data.image import decode, upright
from jfusion.data.problems import BadCell
from jfusion.data.progress import track
from jfusion.data.source import Source

DISTANCE = 4
"""Pictures are near each other if so few of the 64 bits of their perceptual hashes differ."""

_EXAMPLES = 20
_CHUNK = 32  # rows that a thread reads at a time

Key = str | int | None


@dataclass(frozen=True)
class Finding:
    """Rows of different splits that are alike in one way.

    Attributes:
        column: The column that was compared.
        how: `same text` (but for case, accents, punctuation and spaces), `same pixels`, or
            `near picture`, which those of the same pixels are, too.
        groups: Groups of rows that are alike, directly or by way of others, and stand in two splits
            or more.
        rows: Split -> its rows that are like a row of another split.
        trained: Split -> its rows that are like a row of `train`.
        examples: Of the first groups, a row of each split that it stands in, of those that are
            directly alike.
    """

    column: str
    how: str
    groups: int
    rows: Mapping[str, int]
    trained: Mapping[str, int]
    examples: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Report:
    """What an audit has found.

    Attributes:
        splits: Name -> number of rows.
        distance: How many bits of the hashes of near pictures differ at most.
        unreadable: Picture column -> split -> pictures that could not be decoded.
        findings: One for each column and way of being alike.
    """

    splits: Mapping[str, int]
    distance: int
    unreadable: Mapping[str, Mapping[str, int]]
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it, JSON-ready."""
        return asdict(self)

    def tables(self) -> dict[str, dict[str, list[int]]]:
        """Heading -> row -> a number for each split."""
        alike = {f"{f.column}: {f.how}": list(f.rows.values()) for f in self.findings}
        trained = {f"{f.column}: {f.how}": list(f.trained.values()) for f in self.findings}
        unreadable = {
            f"{column}: unreadable": list(counts.values())
            for column, counts in self.unreadable.items()
            if any(counts.values())
        }
        return {
            "alike in other splits": {"rows": list(self.splits.values()), **alike, **unreadable},
            "alike in train": trained,
        }

    def remarks(self, examples: int = 3) -> list[str]:
        """A line for each finding, with its first examples."""
        lines = []
        for finding in self.findings:
            count = "1 group spans" if finding.groups == 1 else f"{finding.groups:,} groups span"
            lines.append(f"{finding.column}, {finding.how}: {count} splits")
            lines += [f"  {' = '.join(example)}" for example in finding.examples[:examples]]
        return lines


def audit(
    sources: Mapping[str, Source],
    texts: Sequence[str] = (),
    pictures: Sequence[str] = (),
    *,
    distance: int = DISTANCE,
    progress: bool = True,
) -> Report:
    """Compares every row of every split with every other.

    Empty cells are like nothing, nor are texts of punctuation, nor plain pictures near each other.

    Args:
        sources: The splits.
        texts: Columns of texts.
        pictures: Columns of pictures.
        distance: How many bits of the hashes of near pictures differ at most.
        progress: Whether to show how far it is.

    Raises:
        DataError: There is no such column.
    """
    for source in sources.values():
        for column in (*texts, *pictures) if len(source) else ():
            require_column(source.name, column, source[0])
    keys = {split: _read(source, texts, pictures, progress) for split, source in sources.items()}
    everything = list(itertools.chain.from_iterable(keys.values()))
    splits = np.repeat(np.arange(len(sources)), [len(rows) for rows in keys.values()])
    findings = []
    for place, (column, how) in enumerate(_ways(texts, pictures)):
        within = distance if how == _NEAR else None
        column_keys = [row[place] for row in everything]
        findings.append(_compare(column, how, column_keys, splits, sources, within))
    first = len(texts)
    unreadable = {
        column: {
            split: sum(row[first + 2 * i] == _BROKEN for row in rows)
            for split, rows in keys.items()
        }
        for i, column in enumerate(pictures)
    }
    sizes = {split: len(source) for split, source in sources.items()}
    return Report(sizes, distance, unreadable, tuple(findings))


_NEAR = "near picture"
_BROKEN = ""  # in place of a digest; no key is empty


def _ways(texts: Sequence[str], pictures: Sequence[str]) -> list[tuple[str, str]]:
    """The column and the way of being alike that each key of a row stands for."""
    ways = [(column, "same text") for column in texts]
    return ways + [(column, how) for column in pictures for how in ("same pixels", _NEAR)]


def _read(
    source: Source, texts: Sequence[str], pictures: Sequence[str], progress: bool
) -> list[tuple[Key, ...]]:
    """The keys of each row, in the order of `_ways`."""

    def chunk(start: int) -> list[tuple[Key, ...]]:
        rows = (source[row] for row in range(start, min(start + _CHUNK, len(source))))
        return [
            (
                *(_text_key(row[column]) for column in texts),
                *(key for column in pictures for key in _picture_keys(row[column], source)),
            )
            for row in rows
        ]

    keys: list[tuple[Key, ...]] = []
    what = f"{source.name}: comparing"
    with contextlib.ExitStack() as stack:
        advance = stack.enter_context(track(what, len(source))) if progress else None
        # Pillow warns of odd metadata and of huge pictures.
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module=r"PIL\.")
        pool = stack.enter_context(ThreadPoolExecutor(os.cpu_count()))
        for made in pool.map(chunk, range(0, len(source), _CHUNK)):
            keys += made
            if advance is not None:
                advance(len(made))
    return keys


def _text_key(cell: Any) -> Key:
    return None if is_empty(cell) else likeness.normalised(str(cell)) or None


def _picture_keys(cell: Any, source: Source) -> tuple[Key, Key]:
    if is_empty(cell):
        return None, None

    def keys(image: Image.Image) -> tuple[Key, Key]:
        image = upright(image)
        return likeness.digest(image), likeness.perceptual_hash(image)

    try:
        return decode(cell, source.root, keys)
    except BadCell:
        return _BROKEN, None


def _compare(
    column: str,
    how: str,
    keys: Sequence[Key],
    splits: np.ndarray,
    sources: Mapping[str, Source],
    distance: int | None,
) -> Finding:
    """Finds what spans splits.

    Args:
        column: For the finding.
        how: Likewise.
        keys: The key of each row of all splits.
        splits: int64 [rows], which split each row is of.
        sources: The splits.
        distance: None if only equal keys are alike, or how many bits of them may differ.
    """
    names = list(sources)
    rows_of: dict[Key, list[int]] = {}
    for row, key in enumerate(keys):
        if key not in (None, _BROKEN):
            rows_of.setdefault(key, []).append(row)
    nodes = list(rows_of.values())
    pairs = np.zeros((0, 2), np.int64)
    if distance is not None:
        pairs = likeness.near_pairs(np.fromiter(rows_of, np.uint64, len(nodes)), distance)
    # Which splits have rows in each node, and which have them in a node that is like it.
    own = np.zeros((len(nodes), len(names)), bool)
    for node, rows in enumerate(nodes):
        own[node, splits[rows]] = True
    met = own.copy()
    np.logical_or.at(met, pairs[:, 0], own[pairs[:, 1]])
    np.logical_or.at(met, pairs[:, 1], own[pairs[:, 0]])
    alike, trained = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for node, rows in enumerate(nodes):
        for split in splits[rows].tolist():
            others = met[node].copy()
            others[split] = False
            alike[names[split]] += bool(others.any())
            trained[names[split]] += "train" in names and bool(others[names.index("train")])
    group = groups.connected(len(nodes), pairs)
    examples = {}
    alone = np.arange(len(nodes))
    for one, other in np.concatenate([np.stack([alone, alone], axis=1), pairs]).tolist():
        if (own[one] | own[other]).sum() > 1 and group[one] not in examples:
            examples[group[one]] = _first_rows(nodes[one] + nodes[other], splits)
    starts = np.cumsum([0, *map(len, sources.values())])
    located = tuple(
        tuple(f"{names[s]}: {sources[names[s]].locate(row - int(starts[s]))}" for s, row in rows)
        for rows in sorted(examples.values(), key=lambda rows: rows[0][1])[:_EXAMPLES]
    )
    return Finding(column, how, len(examples), alike, trained, located)


def _first_rows(rows: Sequence[int], splits: np.ndarray) -> list[tuple[int, int]]:
    """The number of each split with the first of its rows."""
    first: dict[int, int] = {}
    for row in sorted(rows):
        first.setdefault(int(splits[row]), row)
    return sorted(first.items())
