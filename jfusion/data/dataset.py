"""From a config to splits that are ready for batches, with every bad row named."""

import hashlib
import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jfusion.config import Config, Image, Text
from jfusion.data import table
from jfusion.data.cache import materialize, remember
from jfusion.data.columns import is_empty, near, parse_labels
from jfusion.data.image import ImageInput
from jfusion.data.problems import BadCell, DataError, Problem
from jfusion.data.source import Source
from jfusion.data.text import TextInput, Vocabulary
from jfusion.pretrained import hub, networks

InputReader = TextInput | ImageInput
"""What turns the cells of a modality into arrays."""


@dataclass(frozen=True)
class LabelColumn:
    """A target: any number of labels per row.

    Attributes:
        column: The column of the table.
        delimiter: What joins the names in a cell that is not a list.
        labels: The names that may stand there, in the order of the outputs.
    """

    column: str
    delimiter: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """One split with everything preprocessed. Every row of the source has its place here.

    Attributes:
        name: `train`, `val`, `test`, or what the caller chose.
        source: Where the rows come from.
        inputs: `{modality: {array: [rows, ...]}}`, memory-mapped; zeros where absent.
        present: `{modality: bool [rows]}`.
        targets: `{head: float32 [rows, C]}`, zeros in rows that are left out; empty in prediction.
        keep: int64 [kept], the rows that take part, ascending.
        problems: Every bad cell and row.
        faults: Row -> `{modality or column: reason}`, the same by row.
        truncated: How many texts were cut to the token limit, by modality.
    """

    name: str
    source: Source
    inputs: Mapping[str, Mapping[str, np.ndarray]]
    present: Mapping[str, np.ndarray]
    targets: Mapping[str, np.ndarray]
    keep: np.ndarray
    problems: tuple[Problem, ...] = ()
    faults: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    truncated: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of rows that take part."""
        return len(self.keep)

    def counts(self) -> dict[str, int]:
        """Rows by what became of them; the sum is the number of rows of the source.

        `ok` has every modality, `missing` lacks one or more (its cell is empty, or bad under
        `on_error=missing`), `skipped` does not take part.
        """
        whole = np.all([flags[self.keep] for flags in self.present.values()], axis=0)
        ok = int(whole.sum())
        return {
            "ok": ok,
            "missing": len(self.keep) - ok,
            "skipped": len(self.source) - len(self.keep),
        }

    def status(self, row: int) -> str:
        """What became of a row: `ok`, `missing: poster (zero bytes)`, or `bad: plot: ...`."""
        faults = self.faults.get(row, {})
        position = np.searchsorted(self.keep, row)
        if position == len(self.keep) or self.keep[position] != row:
            return "bad: " + "; ".join(f"{what}: {reason}" for what, reason in faults.items())
        absent = [name for name, flags in self.present.items() if not flags[row]]
        if not absent:
            return "ok"
        why = [f"{name} ({faults[name]})" if name in faults else name for name in absent]
        return "missing: " + ", ".join(why)


@dataclass(frozen=True)
class Dataset:
    """The splits of an experiment.

    Attributes:
        splits: `train`, `val` and `test`.
        inputs: What turned the cells of each modality into arrays; prediction needs the same.
        labels: Label names by target, in the order of the outputs.
        best_possible: Metric -> the best test score that anything can reach; only of the sample.
    """

    splits: Mapping[str, Split]
    inputs: Mapping[str, InputReader]
    labels: Mapping[str, tuple[str, ...]]
    best_possible: Mapping[str, float] = field(default_factory=dict)


def input_from_spec(spec: Mapping[str, Any], folder: Path, name: str) -> InputReader:
    """The input whose `spec()` and `save(folder, name)` were kept."""
    kinds = {reader.kind: reader for reader in (TextInput, ImageInput)}
    return kinds[spec["kind"]].from_spec(spec, folder, name)


def load(config: Config, folders: Mapping[str, Path]) -> Dataset:
    """Reads and preprocesses all splits of a config.

    Args:
        config: The experiment.
        folders: Modality -> folder of its pretrained weights, which fixes tokenizer and resampling;
            what starts from scratch is not there.

    Raises:
        DataError: The data cannot be used as the config asks; it lists every bad cell of every
            split, not just the first.
    """
    sources, known, best_possible = _sources(config)
    for source in sources.values():
        _require_columns(source, (*config.inputs.values(), *config.targets.values()))
    cache_dir = config.data.cache_dir
    inputs = {
        name: _reader(name, part, folders.get(name), sources["train"], cache_dir)
        for name, part in config.inputs.items()
    }
    targets = {}
    for name, target in config.targets.items():
        labels = target.labels or known.get(target.column)
        if not labels:
            cells = _label_cells(sources["train"], target.column, target.delimiter, cache_dir)
            labels = sorted({name for names in cells if isinstance(names, list) for name in names})
        if not labels:
            raise DataError(f"{sources['train'].name} has no label in column {target.column!r}")
        targets[name] = LabelColumn(target.column, target.delimiter, tuple(labels))
    splits, problems = {}, []
    for name, source in sources.items():
        try:
            splits[name] = prepare_split(
                source,
                inputs,
                targets,
                name=name,
                on_error=config.data.on_error,
                cache_dir=cache_dir,
            )
        except DataError as error:
            if not error.problems:
                raise
            problems += error.problems
    if problems:
        raise _bad_cells(problems)
    for name, split in splits.items():
        if not len(split):
            raise DataError(f"no row of {name} ({split.source.name}) can be used", split.problems)
    labels = {name: target.labels for name, target in targets.items()}
    return Dataset(splits, inputs, labels, best_possible)


def prepare_split(
    source: Source,
    inputs: Mapping[str, InputReader],
    targets: Mapping[str, LabelColumn] | None = None,
    *,
    name: str = "",
    on_error: str = "raise",
    cache_dir: str | Path = "",
    progress: bool = True,
) -> Split:
    """Preprocesses one split; training, evaluation and prediction all come through here.

    Bad are: a cell that its modality refuses, a label cell that is empty or holds an unknown name,
    a row in the source's `bad_rows` (if it has any), and a row without any modality.

    Args:
        source: The rows.
        inputs: The modalities.
        targets: What is to be predicted; None in prediction.
        name: What the split is called; empty: the source's name.
        on_error: `raise` reports all bad cells after the whole pass. `missing` takes a bad cell for
            an absent modality; `skip` leaves its row out. Both leave out a row whose label is bad
            or that has no modality.
        cache_dir: Where to keep the result, see `cache.cache_root`.
        progress: Whether to show how far it is.

    Raises:
        DataError: There are no rows or not the columns, or with `raise` a bad cell.
    """
    targets = targets or {}
    _require_columns(source, (*inputs.values(), *targets.values()))
    columns = {
        modality: materialize(source, reader, cache_dir, progress)
        for modality, reader in inputs.items()
    }
    ledger = _Ledger()
    for modality, column in columns.items():
        for row, reason in column.bad.items():
            ledger.note(row, modality, inputs[modality].column, reason)
    left_out = set(ledger.faults) if on_error == "skip" else set()
    for row, (column, reason) in getattr(source, "bad_rows", {}).items():
        ledger.note(row, column, column, reason)
        left_out.add(row)
    values = {}
    for head, target in targets.items():
        values[head], bad = _encode_labels(source, target, cache_dir)
        for row, reason in bad.items():
            ledger.note(row, target.column, target.column, reason)
        left_out |= set(bad)
    present = {modality: column.present for modality, column in columns.items()}
    for row in np.flatnonzero(~np.any(list(present.values()), axis=0)).tolist():
        left_out.add(row)
        if row not in ledger.faults:
            read = ", ".join(reader.column for reader in inputs.values())
            ledger.note(row, ", ".join(inputs), read, "no modality present")
    problems = ledger.problems(source)
    if problems and on_error == "raise":
        raise _bad_cells(problems)
    return Split(
        name=name or source.name,
        source=source,
        inputs={modality: column.arrays for modality, column in columns.items()},
        present=present,
        targets=values,
        keep=np.setdiff1d(np.arange(len(source)), np.array(sorted(left_out), np.int64)),
        problems=problems,
        faults=ledger.faults,
        truncated={m: c.truncated for m, c in columns.items() if inputs[m].kind == "text"},
    )


class _Ledger:
    """What is wrong, by row."""

    def __init__(self):
        self.faults: dict[int, dict[str, str]] = {}
        self._entries: list[tuple[int, str, str]] = []

    def note(self, row: int, what: str, column: str, reason: str) -> None:
        self.faults.setdefault(row, {})[what] = reason
        self._entries.append((row, column, reason))

    def problems(self, source: Source) -> tuple[Problem, ...]:
        return tuple(Problem.at(source, *entry) for entry in sorted(self._entries))


def _bad_cells(problems: Iterable[Problem]) -> DataError:
    problems = tuple(problems)
    count = "1 bad cell" if len(problems) == 1 else f"{len(problems)} bad cells"
    advice = "mend them, or set data.on_error to missing or skip"
    return DataError(f"{count} in the data; {advice}:", problems)


def _sources(config: Config) -> tuple[dict[str, Source], dict[str, tuple], dict[str, float]]:
    """The splits, the labels by column that the data set itself names, and the best scores."""
    data = config.data
    columns = [part.column for part in config.inputs.values()]
    if data.source == "movies":
        from jfusion.data.samples import movies

        sources = movies.sources(data.rows)
        best = movies.best_possible(sources["test"], columns)
        return sources, {"genres": movies.LABELS}, {"macro_f1": best}
    if data.source == "mm_imdb":
        from jfusion.data.builders import mm_imdb  # imports TFDS

        return mm_imdb.sources(data.path), {"genres": mm_imdb.LABELS}, {}
    pictures = [part.column for part in config.inputs.values() if isinstance(part, Image)]
    return table.splits(data, pictures=pictures, seed=config.seed), {}, {}


def _require_columns(source: Source, parts: Iterable[Any]) -> None:
    if not len(source):
        raise DataError(f"{source.name} has no rows")
    first = source[0]
    for part in parts:
        table.require_column(source.name, part.column, first)


def _reader(
    name: str, part: Text | Image, folder: Path | None, train: Source, cache_dir: str
) -> InputReader:
    """What turns the cells of a modality into arrays, as config and checkpoint have it."""
    if isinstance(part, Image):
        resample = networks.describe(folder).resample if folder else ""
        size = {"size": part.size, "crop": part.crop}
        return ImageInput(part.column, **size, resample=resample or "bicubic")
    if part.tokenizer:
        folder = hub.find(part.tokenizer, weights=False, key=f"inputs.{name}.tokenizer")
    if folder is not None:
        # transformers takes seconds to import, so what it makes of a tokenizer's files is kept.
        files = sorted(p for p in folder.iterdir() if p.suffix in (".json", ".txt", ".model"))
        digests = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
        key = ["tokenizer", importlib.metadata.version("transformers"), digests]
        kept = remember(cache_dir, key, lambda: asdict(Vocabulary.load(folder)))
    else:
        key = ["words", train.fingerprint, part.column, part.vocabulary]
        texts = (train[row][part.column] for row in range(len(train)))
        full = (text for text in texts if not is_empty(text))
        kept = remember(cache_dir, key, lambda: asdict(Vocabulary.fit(full, part.vocabulary)))
    return TextInput(part.column, Vocabulary(**kept), max_tokens=part.max_tokens)


def _label_cells(
    source: Source, column: str, delimiter: str, cache_dir: str | Path
) -> list[list[str] | str]:
    """Per row the names in its label cell, or a text that says why there are none."""

    def read() -> list[list[str] | str]:
        cells = []
        for row in range(len(source)):
            try:
                cells.append(parse_labels(source[row].get(column), delimiter))
            except BadCell as problem:
                cells.append(str(problem))
        return cells

    return remember(cache_dir, ["labels", source.fingerprint, column, delimiter], read)


def _encode_labels(
    source: Source, target: LabelColumn, cache_dir: str | Path
) -> tuple[np.ndarray, dict[int, str]]:
    """Labels as 0 and 1: float32 [rows, C], and the rows whose cell is bad with the reason."""
    numbers = {label: number for number, label in enumerate(target.labels)}
    values = np.zeros((len(source), len(numbers)), np.float32)
    bad = {}
    cells = _label_cells(source, target.column, target.delimiter, cache_dir)
    for row, names in enumerate(cells):
        if isinstance(names, str):
            bad[row] = names
        elif unknown := [label for label in names if label not in numbers]:
            bad[row] = f"unknown label {unknown[0]!r}{near(unknown[0], numbers)}"
        else:
            values[row, [numbers[label] for label in names]] = 1
    return values, bad
