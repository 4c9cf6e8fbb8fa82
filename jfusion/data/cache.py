"""Preprocessed columns on disk: every text is tokenized and every picture decoded once.

An entry is a folder of `.npy` files, named by a hash of the source's fingerprint and of the
preprocessing, and memory-mapped by whoever reads it. It is written beside its place and moved there
whole, so that an interrupted pass leaves nothing that could be taken for an entry, and of two
processes that write the same one, one wins and both read it.
"""

import collections
import contextlib
import functools
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jfusion.data.columns import Cells, cell_of
from jfusion.data.problems import DataError
from jfusion.data.progress import say, track
from jfusion.data.source import Source

_FORMAT = 2  # to be raised when the same spec begins to give other arrays
_CHUNK = 32  # rows that a thread takes at once
_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError)


class Modality(Protocol):
    """What the cache needs of a `TextInput`, an `ImageInput` or another reader.

    A reader of several columns has an attribute `columns`, too, and is given a tuple of the cells
    of each row; its `column` then names them all, for messages.
    """

    kind: str
    column: str
    arrays: Mapping[str, tuple[tuple[int, ...], Any]]
    notes: tuple[str, ...]

    def spec(self) -> dict[str, Any]:
        """All that fixes the result, JSON-ready."""
        ...

    def encode(self, cells: Sequence[Any], root: Path | None) -> Cells:
        """Preprocesses non-empty cells; called from several threads."""
        ...


@dataclass(frozen=True)
class Column:
    """A whole column, preprocessed.

    Attributes:
        arrays: `{array: [rows, ...]}`, memory-mapped; zeros where absent.
        present: bool [rows]; false where the cell is empty or bad.
        bad: Row -> why its cell cannot be used.
        notes: `{note: float32 [rows]}`, what preprocessing did to the cells; zeros where absent.
    """

    arrays: Mapping[str, np.ndarray]
    present: np.ndarray
    bad: Mapping[int, str]
    notes: Mapping[str, np.ndarray]


def cache_root(cache_dir: str | Path = "") -> Path:
    """The folder of the cache: `cache_dir`, else `$JFUSION_CACHE`, else `~/.cache/jfusion`."""
    chosen = cache_dir or os.environ.get("JFUSION_CACHE") or "~/.cache/jfusion"
    return Path(chosen).expanduser()


def materialize(
    source: Source, modality: Modality, cache_dir: str | Path = "", progress: bool = True
) -> Column:
    """Preprocesses one column of a source, or finds it done.

    Decoding runs in threads: Pillow and tokenizers release the interpreter lock. Measured on two
    cores, two threads gained as much over one as hashing does, which needs the lock for nothing,
    and two processes gained no more but add a start-up and a copy of every picture.

    Args:
        source: The rows.
        modality: What to make of the column `modality.column`.
        cache_dir: See `cache_root`.
        progress: Whether to show how far it is.

    Raises:
        DataError: The cache cannot be written.
    """
    key = _key(source.fingerprint, modality.spec())
    folder = cache_root(cache_dir) / "columns" / key
    for _ in range(3):
        if folder.is_dir():
            try:
                return _read(folder, len(source), modality)
            except _DAMAGE as error:
                if folder.is_dir():  # else another process has just put it aside
                    say(f"cache entry {folder} is damaged ({error}); making it again")
        with build_folder(folder) as build:
            _require_space(folder.parent, len(source), modality)
            _write(build, source, modality, progress)
            _publish(build, folder, len(source), modality)
    raise DataError(f"cache entry {folder} is damaged again and again; is the disk healthy?")


def remember(cache_dir: str | Path, key: Any, compute: Callable[[], Any]) -> Any:
    """What `compute` returns (JSON-ready), kept under a JSON-ready key."""
    path = cache_root(cache_dir) / "facts" / f"{_key(key)}.json"
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text(encoding="utf-8"))
    value = compute()
    with build_folder(path) as build:
        (build / "value").write_text(json.dumps(value), encoding="utf-8")
        os.replace(build / "value", path)
    return value


def remember_array(
    cache_dir: str | Path,
    key: Any,
    shape: tuple[int, ...],
    dtype: Any,
    blocks: Callable[[], Iterable[np.ndarray]],
    everywhere: Callable[[bool], bool] = bool,
) -> np.ndarray:
    """An array that is computed once, kept under a JSON-ready key and memory-mapped.

    Args:
        cache_dir: See `cache_root`.
        key: All that fixes the array.
        shape: Its shape.
        dtype: Its type.
        blocks: Computes it, in stretches along the first axis, from the first to the last.
        everywhere: Called once with whether the array is here; whether to go by that. Processes
            that can only compute it together say no unless all have it.

    Raises:
        DataError: The cache cannot be written.
    """
    path = cache_root(cache_dir) / "features" / f"{_key(key)}.npy"
    found = None
    if path.exists():
        try:
            found = _read_mapped(path, shape, dtype)
        except _DAMAGE as error:
            say(f"cache entry {path} is damaged ({error}); making it again")
    if everywhere(found is not None):
        return found
    with build_folder(path) as build:
        require_bytes(path.parent, _bytes(shape, dtype), "features")
        try:
            with open(build / "array.npy", "wb") as file:
                _write_header(file, shape, dtype)
                for block in blocks():
                    file.write(np.ascontiguousarray(block, dtype).data)
        except OSError as error:
            raise DataError(f"cannot write {path} ({error.strerror}); set data.cache_dir") from None
        array = _read_mapped(build / "array.npy", shape, dtype)
        os.replace(build / "array.npy", path)
    return array


def _key(*parts: Any) -> str:
    text = json.dumps([_FORMAT, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


@contextlib.contextmanager
def build_folder(target: Path) -> Iterator[Path]:
    """A folder beside the target, gone in the end unless it was moved away."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        build = Path(tempfile.mkdtemp(prefix=".building-", dir=target.parent))
    except OSError as error:
        raise DataError(
            f"cannot write the cache folder {target.parent} ({error.strerror}); set data.cache_dir"
        ) from None
    try:
        yield build
    finally:
        shutil.rmtree(build, ignore_errors=True)


def _require_space(folder: Path, rows: int, modality: Modality) -> None:
    needed = sum(_bytes((rows, *shape), dtype) for shape, dtype in modality.arrays.values())
    require_bytes(folder, needed, f"column {modality.column!r}")


def require_bytes(folder: Path, needed: int, what: str) -> None:
    """Raises `DataError` where a folder's disk has no room for so many bytes."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"the cache of {what} needs {needed / 1e9:.1f} GB in {folder}, where "
            f"{free / 1e9:.1f} GB are free; set data.cache_dir to another disk"
        )


def _bytes(shape: tuple[int, ...], dtype: Any) -> int:
    return int(np.prod(shape)) * np.dtype(dtype).itemsize


def _read(folder: Path, rows: int, modality: Modality) -> Column:
    """Opens an entry; raises one of `_DAMAGE` unless it is whole."""
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    arrays = {}
    for name, (shape, dtype) in modality.arrays.items():
        arrays[name] = _read_mapped(folder / f"{name}.npy", (rows, *shape), dtype)
    present = _read_per_row(folder / "present.npy", rows, bool)
    notes = {name: _read_per_row(_note(folder, name), rows, np.float32) for name in modality.notes}
    bad = {int(row): str(reason) for row, reason in facts["bad"]}
    return Column(arrays, present, bad, notes)


def _read_mapped(path: Path, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    array = np.load(path, mmap_mode="r")
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{path.name} is {array.dtype} {array.shape}")
    return array


def _read_per_row(path: Path, rows: int, dtype: Any) -> np.ndarray:
    values = np.load(path)
    if values.shape != (rows,) or values.dtype != dtype:
        raise ValueError(f"{path.name} is {values.dtype} {values.shape}")
    return values


def _note(folder: Path, name: str) -> Path:
    return folder / f"note-{name}.npy"


def _write(build: Path, source: Source, modality: Modality, progress: bool) -> None:
    """Preprocesses all rows into a folder."""
    rows = len(source)
    present, bad = np.zeros(rows, bool), {}
    notes = {name: np.zeros(rows, np.float32) for name in modality.notes}
    starts = range(0, rows, _CHUNK)
    what = f"{source.name}: reading column {modality.column!r}"
    with contextlib.ExitStack() as stack:
        files = {}
        for name, (shape, dtype) in modality.arrays.items():
            files[name] = stack.enter_context(open(build / f"{name}.npy", "wb"))
            _write_header(files[name], (rows, *shape), dtype)
        advance = stack.enter_context(track(what, rows)) if progress else (lambda count: None)
        # Pillow warns of odd metadata and of huge pictures; what matters becomes a reason.
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module=r"PIL\.")
        work = functools.partial(_chunk, source, modality)
        for start, cells, here in stack.enter_context(_ordered(work, starts)):
            for name, file in files.items():
                file.write(cells.arrays[name].data)
            present[start : start + len(here)] = here
            bad |= {start + i: reason for i, reason in cells.bad.items()}
            for name, values in notes.items():
                values[start : start + len(here)] = cells.notes[name]
            advance(len(here))
    np.save(build / "present.npy", present)
    for name, values in notes.items():
        np.save(_note(build, name), values)
    facts = {"bad": sorted(bad.items()), "spec": modality.spec()}
    (build / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def _chunk(source: Source, modality: Modality, start: int) -> tuple[int, Cells, np.ndarray]:
    """Preprocesses some rows: where they begin, their arrays, and which are present."""
    size = min(_CHUNK, len(source) - start)
    column = [cell_of(source[start + i], modality) for i in range(size)]
    full = [i for i, cell in enumerate(column) if cell is not None]
    cells = modality.encode([column[i] for i in full], source.root)
    bad = {full[i]: reason for i, reason in cells.bad.items()}
    present = np.zeros(size, bool)
    present[full] = True
    present[list(bad)] = False
    arrays, notes = (
        {name: _spread(array, full, size) for name, array in part.items()}
        for part in (cells.arrays, cells.notes)
    )
    return start, Cells(arrays, bad, notes), present


def _spread(array: np.ndarray, rows: list[int], size: int) -> np.ndarray:
    """Puts the rows of an array to their places: [n, ...] to [size, ...], zeros elsewhere."""
    spread = np.zeros((size, *array.shape[1:]), array.dtype)
    spread[rows] = array
    return spread


@contextlib.contextmanager
def _ordered(work: Callable, items: Iterable) -> Iterator[Iterator]:
    """The results of `work`, in order, from a thread per core that stays a few items ahead."""
    threads = os.cpu_count() or 1

    def results() -> Iterator:
        pending = collections.deque()
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    with ThreadPoolExecutor(threads) as pool:
        try:
            yield results()
        finally:
            pool.shutdown(cancel_futures=True)


def _write_header(file: Any, shape: tuple[int, ...], dtype: Any) -> None:
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _publish(build: Path, folder: Path, rows: int, modality: Modality) -> None:
    """Moves a finished entry to its place, unless a good one is there by now."""
    if folder.is_dir():
        with contextlib.suppress(*_DAMAGE):
            _read(folder, rows, modality)
            return
        aside = build.with_name(f"{build.name}-damaged")
        with contextlib.suppress(OSError):
            os.rename(folder, aside)
        shutil.rmtree(aside, ignore_errors=True)
    try:
        os.rename(build, folder)
    except OSError:
        if not folder.is_dir():
            raise
