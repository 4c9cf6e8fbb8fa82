"""From a config to splits that are ready for batches, with every bad row named."""

import hashlib
import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from jfusion.config import (
    Classes,
    Config,
    Data,
    Frames,
    Image,
    MultiLabel,
    Regression,
    Tabular,
    Target,
    Text,
)
from jfusion.data import folds, groups, table
from jfusion.data.cache import remember
from jfusion.data.columns import columns_of, is_empty
from jfusion.data.image import ImageInput
from jfusion.data.problems import DataError, Problem
from jfusion.data.sequence import SequenceInput
from jfusion.data.source import Source
from jfusion.data.split import InputReader, Split, bad_cells, prepare_split, require_columns
from jfusion.data.tabular import TabularInput
from jfusion.data.targets import TargetColumn, labels_of, target_of
from jfusion.data.text import TextInput, Vocabulary
from jfusion.data.tokens import TokenInput
from jfusion.pretrained import hub, networks

# The column of each data set that knows all names that may stand there.
_LABELLED = {"movies": "genres", "mm_imdb": "genres", "products": "code", "rakuten": "code"}


@dataclass(frozen=True)
class Dataset:
    """The splits of an experiment.

    Attributes:
        splits: `train`, `val` and `test`.
        inputs: What turned the cells of each modality into arrays; prediction needs the same.
        labels: Names of labels or classes by target, in the order of the outputs; none where the
            target has no such things.
        best_possible: Metric -> the best test score that anything can reach; only of the samples.
    """

    splits: Mapping[str, Split]
    inputs: Mapping[str, InputReader]
    labels: Mapping[str, tuple[str, ...]]
    best_possible: Mapping[str, float] = field(default_factory=dict)


def input_from_spec(spec: Mapping[str, Any], folder: Path, name: str) -> InputReader:
    """The input whose `spec()` and `save(folder, name)` were kept."""
    readers = (TextInput, TokenInput, ImageInput, SequenceInput, TabularInput)
    kinds = {reader.kind: reader for reader in readers}
    return kinds[spec["kind"]].from_spec(spec, folder, name)


def load(
    config: Config,
    folders: Mapping[str, Path],
    readers: Mapping[str, InputReader] = MappingProxyType({}),
    labels: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Dataset:
    """Reads and preprocesses all splits of a config.

    Args:
        config: The experiment.
        folders: Modality -> folder of its pretrained weights, which fixes tokenizer and resampling;
            what starts from scratch is not there.
        readers: Modality -> what turns its cells into arrays, where that is known before.
        labels: Target -> names of its labels or classes, where they are known before.

    Raises:
        DataError: The data cannot be used as the config asks; it lists every bad cell of every
            split, not just the first.
    """
    data, cache_dir = config.data, config.data.cache_dir
    unlabelled = [target_of(section) for section in config.targets.values()]
    sources = open_sources(data, config.inputs.values(), config.seed, unlabelled)
    for source in sources.values():
        require_columns(source, config.inputs.values(), unlabelled)
    if data.group_column:
        groups.require_apart(sources, data.group_column, cache_dir)
    inputs = {
        name: readers[name]
        if name in readers
        else _reader(name, part, folders.get(name), sources["train"], cache_dir)
        for name, part in config.inputs.items()
    }
    labels = {
        name: tuple(labels[name]) if name in labels else _labels(section, data, sources["train"])
        for name, section in config.targets.items()
    }
    targets = {name: target_of(section, labels[name]) for name, section in config.targets.items()}
    splits, problems = {}, []
    for name, source in sources.items():
        try:
            splits[name] = prepare_split(
                source,
                inputs,
                targets,
                name=name,
                on_error=data.on_error,
                cache_dir=cache_dir,
            )
        except DataError as error:
            if not error.problems:
                raise
            _require_some_target(name, source, targets.values(), error.problems)
            problems += error.problems
    if problems:
        raise bad_cells(problems)
    for name, split in splits.items():
        if not len(split):
            _require_some_target(name, sources[name], targets.values(), split.problems)
            raise DataError(f"no row of {name} ({split.source.name}) can be used", split.problems)
    return Dataset(splits, inputs, labels, _best_possible(config, splits["test"]))


def open_sources(
    data: Data,
    inputs: Iterable[Any],
    seed: int = 0,
    targets: Iterable[TargetColumn] | None = None,
) -> dict[str, Source]:
    """The splits of a data set, or those of one of its folds.

    Args:
        data: Which data set.
        inputs: The modalities: anything with `kind` and `column` or `columns`.
        seed: Seeds a random split and the cut into folds.
        targets: What is to be predicted; folds are not the same without.

    Returns:
        `{"train": ..., "val": ..., "test": ...}`.

    Raises:
        DataError: There is no such data, or not in three splits.
    """
    if data.source == "table":
        sources = table.splits(data, pictures=path_columns(inputs), seed=seed)
    elif data.source in ("movies", "interviews", "products"):
        sources = _data_set(data.source).sources(data.rows)
    else:
        sources = _data_set(data.source).sources(data.path, data.cache_dir)
    if not data.fold:
        return sources
    if targets is None:
        raise ValueError("folds depend on the targets")
    targets = list(targets)
    for source in sources.values():
        require_columns(source, (), targets)
    return folds.divide(
        sources,
        data.fold,
        targets,
        group_column=data.group_column,
        seed=seed,
        cache_dir=data.cache_dir,
    )


def path_columns(inputs: Iterable[Any]) -> list[str]:
    """The columns of modalities whose cells may be paths; inputs are as for `open_sources`."""
    return [part.column for part in inputs if part.kind in ("image", "sequence")]


def _data_set(name: str) -> ModuleType:
    """The module of a data set, imported when asked for: TFDS and scikit-learn are slow."""
    if name == "movies":
        from jfusion.data.samples import movies as module
    elif name == "interviews":
        from jfusion.data.samples import interviews as module
    elif name == "products":
        from jfusion.data.samples import products as module
    elif name == "mm_imdb":
        from jfusion.data.builders import mm_imdb as module
    elif name == "rakuten":
        from jfusion.data.builders import rakuten as module
    else:
        from jfusion.data.builders import daic_woz as module
    return module


def _labels(section: Target, data: Data, train: Source) -> tuple[str, ...]:
    """The names that a target may take: the config's, the data set's, or the training split's."""
    own = _LABELLED.get(data.source) == section.column and isinstance(section, MultiLabel | Classes)
    if own and not section.labels:
        return _data_set(data.source).LABELS
    return labels_of(section, train, data.cache_dir)


def _require_some_target(
    name: str, source: Source, targets: Iterable[TargetColumn], problems: Iterable[Problem]
) -> None:
    """Tells a split whose answers were kept back from one with bad cells."""
    for column in {target.column for target in targets}:
        reasons = [problem.reason for problem in problems if problem.column == column]
        if len(reasons) == len(source) and all(" is empty" in reason for reason in reasons):
            raise DataError(
                f"{source.name}: column {column!r} is empty in every row of {name}, so there is "
                "nothing to compare with; --config.folds=5 divides the rows that have it anew"
            )


def _best_possible(config: Config, test: Split) -> dict[str, float]:
    """The best test score that the cues of a sample allow."""
    columns = [column for part in config.inputs.values() for column in columns_of(part)]
    if config.data.source == "movies" and not config.data.fold:
        best = _data_set("movies").best_possible(test.source, columns, test.keep.tolist())
        return {"macro_f1": best}
    if config.data.source == "products" and not config.data.fold:
        best = _data_set("products").best_possible(test.source, columns, test.keep.tolist())
        return {
            metric if len(config.targets) == 1 else f"{name}/{metric}": score
            for name, section in config.targets.items()
            if isinstance(section, Classes) and section.column == _LABELLED["products"]
            for metric, score in best.items()
        }
    if config.data.source != "interviews":
        return {}
    sequences = [part for part in config.inputs.values() if isinstance(part, Frames)]
    order = any(part.encoder.network != "mean_pool" for part in sequences)
    rows: dict[int, tuple[Source, list[int]]] = {}
    for row in test.keep.tolist():
        source, row = test.source.part(row) if config.data.fold else (test.source, row)
        rows.setdefault(id(source), (source, []))[1].append(row)
    squares = 0.0
    for source, part in rows.values():
        best = _data_set("interviews").best_possible(source, columns, part, order=order)
        squares += len(part) * best["rmse"] ** 2
    rmse = (squares / len(test)) ** 0.5
    return {
        "rmse" if len(config.targets) == 1 else f"{name}/rmse": rmse
        for name, section in config.targets.items()
        if isinstance(section, Regression)
    }


def _reader(
    name: str,
    part: Text | Image | Frames | Tabular,
    folder: Path | None,
    train: Source,
    cache_dir: str,
) -> InputReader:
    """What turns the cells of a modality into arrays, as config and checkpoint have it."""
    if isinstance(part, Tabular):
        options = {"log": part.log, "cache_dir": cache_dir}
        return TabularInput.fit(train, part.numbers, part.categories, **options)
    if isinstance(part, Frames):
        options = {"features": part.features, "steps": part.steps, "cache_dir": cache_dir}
        return SequenceInput.fit(train, part.column, **options)
    if isinstance(part, Image):
        resample = networks.describe(folder).resample if folder else ""
        size = {"size": part.size, "crop": part.crop, "trim": part.trim}
        return ImageInput(part.column, **size, resample=resample or "bicubic")
    sizes = {"max_tokens": part.max_tokens, "windows": part.windows}
    if part.ids:
        return TokenInput(part.column, part.vocabulary, **sizes)
    if part.tokenizer:
        folder = hub.find(part.tokenizer, weights=False, key=f"inputs.{name}.tokenizer")
    if folder is not None:
        # transformers takes seconds to import, so what it makes of a tokenizer's files is kept.
        files = sorted(p for p in folder.iterdir() if p.suffix in (".json", ".txt", ".model"))
        digests = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
        key = ["tokenizer", importlib.metadata.version("transformers"), digests]
        kept = remember(cache_dir, key, lambda: asdict(Vocabulary.load(folder)))
    else:
        plain = part.encoder.network == "text_cnn"
        fit = Vocabulary.fit_plain if plain else Vocabulary.fit
        what = "plain words" if plain else "words"
        key = [what, train.fingerprint, part.column, part.vocabulary]
        texts = (train[row][part.column] for row in range(len(train)))
        full = (text for text in texts if not is_empty(text))
        kept = remember(cache_dir, key, lambda: asdict(fit(full, part.vocabulary)))
    return TextInput(part.column, Vocabulary(**kept), **sizes)
