"""From a config to splits that are ready for batches, with every bad row named."""

import hashlib
import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from jfusion.config import Config, Data, Image, MultiLabel, Text
from jfusion.data import table
from jfusion.data.cache import remember
from jfusion.data.columns import is_empty
from jfusion.data.image import ImageInput
from jfusion.data.problems import DataError
from jfusion.data.source import Source
from jfusion.data.split import (
    InputReader,
    LabelColumn,
    Split,
    bad_cells,
    label_cells,
    prepare_split,
    require_columns,
)
from jfusion.data.text import TextInput, Vocabulary
from jfusion.pretrained import hub, networks


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
    sources = open_sources(config.data, config.inputs.values(), config.seed)
    for source in sources.values():
        require_columns(source, (*config.inputs.values(), *config.targets.values()))
    cache_dir = config.data.cache_dir
    inputs = {
        name: _reader(name, part, folders.get(name), sources["train"], cache_dir)
        for name, part in config.inputs.items()
    }
    targets = {
        name: LabelColumn(
            target.column, target.delimiter, _labels(target, config.data, sources["train"])
        )
        for name, target in config.targets.items()
    }
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
        raise bad_cells(problems)
    for name, split in splits.items():
        if not len(split):
            raise DataError(f"no row of {name} ({split.source.name}) can be used", split.problems)
    labels = {name: target.labels for name, target in targets.items()}
    return Dataset(splits, inputs, labels, _best_possible(config, splits["test"]))


def open_sources(data: Data, inputs: Iterable[Any], seed: int = 0) -> dict[str, Source]:
    """The splits of a data set, as they are.

    Args:
        data: Which data set.
        inputs: The modalities: anything with `kind` and `column`.
        seed: Seeds a random split.

    Returns:
        `{"train": ..., "val": ..., "test": ...}`.

    Raises:
        DataError: There is no such data, or not in three splits.
    """
    if data.source == "movies":
        return _movies().sources(data.rows)
    if data.source == "mm_imdb":
        return _mm_imdb().sources(data.path)
    pictures = [part.column for part in inputs if part.kind == "image"]
    return table.splits(data, pictures=pictures, seed=seed)


def _movies() -> ModuleType:
    from jfusion.data.samples import movies  # imports scikit-learn

    return movies


def _mm_imdb() -> ModuleType:
    from jfusion.data.builders import mm_imdb  # imports TFDS

    return mm_imdb


def _labels(target: MultiLabel, data: Data, train: Source) -> tuple[str, ...]:
    """The names that a target may take: the config's, the data set's, or the training split's."""
    if target.labels:
        return target.labels
    if data.source != "table" and target.column == "genres":
        return (_movies() if data.source == "movies" else _mm_imdb()).LABELS
    cells = label_cells(train, target.column, target.delimiter, data.cache_dir)
    labels = {label for names in cells if isinstance(names, list) for label in names}
    if not labels:
        raise DataError(f"{train.name} has no label in column {target.column!r}")
    return tuple(sorted(labels))


def _best_possible(config: Config, test: Split) -> dict[str, float]:
    if config.data.source != "movies":
        return {}
    columns = [part.column for part in config.inputs.values()]
    return {"macro_f1": _movies().best_possible(test.source, columns, test.keep.tolist())}


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
