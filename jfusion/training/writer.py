"""What a run records: `metrics.jsonl`, one JSON object per write, and TensorBoard event files.

A run that was killed and resumed leaves the same `metrics.jsonl` steps as one that was not: lines
after the checkpoint it resumes from are dropped, and TensorBoard is told to do likewise.
"""

import json
import math
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jfusion.errors import UserError

# Where torch is installed, tensorboardX would import it, for seconds and for nothing used here.
_hide_torch = "torch" not in sys.modules
if _hide_torch:
    sys.modules["torch"] = None  # to Python, a module that is not there
try:
    from tensorboardX import RecordWriter, summary
    from tensorboardX.proto.event_pb2 import Event, SessionLog
finally:
    if _hide_torch:
        del sys.modules["torch"]

METRICS_FILE = "metrics.jsonl"


class Writer:
    """Writes a run's numbers, curves and pictures; usable as a context.

    Tags on TensorBoard are `<split>/<name>`: `train/loss`, `val/macro_f1`.

    Args:
        workdir: The run folder.
        resume_step: The step of the checkpoint that the run resumes from. None starts a new run:
            what an attempt that never reached a checkpoint has left behind no longer counts.
        active: Only process 0 of several writes; the others pass False, and nothing happens.

    Raises:
        UserError: `metrics.jsonl` is damaged elsewhere than in its last line.
    """

    def __init__(self, workdir: Path, resume_step: int | None = None, *, active: bool = True):
        self._active = active
        if not active:
            return
        workdir.mkdir(parents=True, exist_ok=True)
        first_step = 0 if resume_step is None else resume_step + 1
        kept = _cut_metrics(workdir / METRICS_FILE, first_step)
        self._on_file = {_identity(line) for line in kept}
        self._metrics = open(workdir / METRICS_FILE, "a", encoding="utf-8")
        self._events = _Events(workdir, first_step)

    def scalars(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Writes numbers of one step.

        A write that a resumed run repeats (an evaluation between the checkpoint and the kill) is
        not written twice. What is not finite is null in `metrics.jsonl`, and left out of
        TensorBoard.

        Args:
            step: Optimizer steps done.
            split: `train`, `val` or `test`.
            values: Numbers or 0-d arrays by name.
        """
        if not self._active:
            return
        numbers = {name: _number(value) for name, value in values.items()}
        line = {"step": int(step), "split": split, "values": numbers}
        if _identity(line) in self._on_file:
            return
        self._metrics.write(json.dumps(line, allow_nan=False) + "\n")
        self._metrics.flush()
        for name, number in numbers.items():
            if number is not None:
                self._events.add(summary.scalar(f"{split}/{name}", number), step)

    def pr_curves(
        self,
        step: int,
        split: str,
        probabilities: np.ndarray,
        targets: np.ndarray,
        labels: Sequence[str],
    ) -> None:
        """Draws precision over recall for each label (TensorBoard's PR curves page).

        Args:
            step: Optimizer steps done.
            split: The split they were computed on.
            probabilities: [N, C].
            targets: 0 or 1, [N, C].
            labels: The C names.
        """
        if not self._active:
            return
        columns = zip(labels, np.asarray(probabilities).T, np.asarray(targets).T, strict=True)
        for label, probability, target in columns:
            tag = f"{split}/pr_curve/{label}"
            self._events.add(summary.pr_curve(tag, target, probability), step)

    def picture(self, step: int, tag: str, page: np.ndarray) -> None:
        """Shows a picture, uint8 [H, W, 3] (see `pictures.draw`)."""
        if self._active:
            self._events.add(summary.image(tag, page, dataformats="HWC"), step)

    def table(self, step: int, tag: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Shows rows with the same keys as a table on TensorBoard's text page."""
        if self._active:
            self._events.add(summary.text(tag, _markdown(rows)), step)

    def hparams(self, config: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """Enters the run in TensorBoard's table of hyperparameters.

        The entry is part of the run itself. (`SummaryWriter.add_hparams` makes a folder named after
        the clock, which TensorBoard shows as one more run.)

        Args:
            config: Nested plain values; names become `train.phases.0.epochs`.
            metrics: Tags of scalars that this run has written, such as `test/macro_f1`.
        """
        if not self._active:
            return
        for part in summary.hparams(_flat(config), dict.fromkeys(metrics, 0.0)):
            self._events.add(part, None)

    def flush(self) -> None:
        """Puts all of it on the disk; call it before a checkpoint is saved."""
        if self._active:
            self._events.flush()

    def close(self) -> None:
        """Flushes and closes the files."""
        if self._active:
            self._events.close()
            self._metrics.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_) -> None:
        self.close()


class _Events:
    """A TensorBoard event file.

    `SummaryWriter` is not used because it writes from a thread and its `flush` does not wait for
    what is still queued, so that a kill after a checkpoint could lose points before it.
    """

    FLUSH_SECONDS = 5.0

    def __init__(self, folder: Path, first_step: int):
        # TensorBoard reads the files of a folder as one run, in the order of their names.
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = RecordWriter(str(folder / name))
        self._flushed = -math.inf
        self._write(Event(file_version="brain.Event:2"))
        # A reader drops what earlier files hold from this step on.
        self._write(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, what: Any, step: int | None) -> None:
        self._write(Event(summary=what, step=0 if step is None else int(step)))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._file.write(event.SerializeToString())
        if time.monotonic() - self._flushed > self.FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        self._file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        self.flush()
        self._file.close()


def _cut_metrics(path: Path, first_step: int) -> list[dict]:
    """Drops lines from `first_step` on and a half-written last line; returns those that stay."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n")
    kept = []
    for i, line in enumerate(lines):
        try:
            entry = json.loads(line)
            if entry["step"] < first_step:
                kept.append(entry)
        except (ValueError, TypeError, KeyError):
            if i < len(lines) - 1:
                raise UserError(
                    f"{path} line {i + 1} is not an object with step, split and values: "
                    f"{line[:80]!r}; remove that line (or the file) to resume"
                ) from None
    draft = path.with_suffix(".tmp")
    with open(draft, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in kept)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    return kept


def _identity(line: Mapping[str, Any]) -> tuple:
    return line["step"], line["split"], tuple(line["values"])


def _number(value: Any) -> int | float | None:
    if value is None:
        return None
    number = np.asarray(value).item()
    return number if math.isfinite(number) else None


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested mappings and lists of mappings as `a.b.0.c`; other lists as text."""
    if isinstance(value, Mapping):
        entries = value.items()
    elif isinstance(value, list | tuple) and any(isinstance(v, Mapping) for v in value):
        entries = enumerate(value)
    else:
        plain = value is None or isinstance(value, bool | int | float | str)
        return {name: value if plain else str(list(value))}
    flat = {}
    for key, entry in entries:
        flat |= _flat(entry, f"{name}.{key}" if name else str(key))
    return flat


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(rows[0]) if rows else []
    lines = [names, ["---"] * len(names), *([_cell(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text.replace("\n", " ").replace("|", r"\|")
