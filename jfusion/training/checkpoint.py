"""Checkpoints of a run: state, data position and progress, restored to the same bits."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grain
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import PreservationPolicy

from jfusion.training.state import State


@dataclass
class Progress:
    """Where a run stands; saved with every checkpoint.

    Attributes:
        phase: Index of the current phase.
        phase_start: Step at which it began.
        evaluated: Step of the last finished evaluation.
        best_step: Step of the best evaluation so far, or -1.
        best_phase: The phase that step belongs to.
        best: Its metrics.
        stale: Evaluations of this phase since the best one.
        seconds: Time so far, over all starts.
    """

    phase: int = 0
    phase_start: int = 0
    evaluated: int = 0
    best_step: int = -1
    best_phase: int = 0
    best: dict[str, float | None] = field(default_factory=dict)
    stale: int = 0
    seconds: float = 0.0


class Checkpoints:
    """The checkpoints in one folder: the newest few and the best.

    Saving is asynchronous: `save` returns once the arrays are copied to host memory.

    Args:
        folder: Where they lie, one sub-folder per step.
        keep: How many of the newest stay, besides the best.
        report: Called with a line of text about a damaged checkpoint.
    """

    def __init__(self, folder: Path, keep: int, report: Callable[[str], None] = print):
        self._folder, self._report = folder, report
        self._policy = _NewestAndBest(keep)
        self._manager = self._open()

    def save(self, step: int, state: State, data: Any, progress: Progress) -> None:
        """Saves a checkpoint; one of the same step is replaced.

        Args:
            step: The state's step.
            state: The training state.
            data: The data iterator, positioned after the batch of `step`.
            progress: Where the run stands.
        """
        self._policy.best = progress.best_step
        if step in self._manager.all_steps():
            self._manager.delete(step)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                data=grain.checkpoint.CheckpointSave(data),
                progress=ocp.args.JsonSave(asdict(progress)),
            ),
        )

    def restore_newest(
        self,
        abstract: Callable[[Progress], State],
        make_data: Callable[[Progress], Any],
    ) -> tuple[State, Any, Progress] | None:
        """Restores the newest checkpoint that is whole; reports and sets aside damaged ones.

        Args:
            abstract: Shapes, types and placement of the state at some progress.
            make_data: A fresh data iterator for that progress.

        Returns:
            State, positioned data iterator and progress; None if there is no whole checkpoint.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            # Damage shows as any of the storage layers' own errors.
            try:
                progress = self._progress(step)
                state, data = self._restore(step, abstract(progress), make_data(progress))
            except Exception as error:
                self._set_aside(step, error)
                continue
            self._policy.best = progress.best_step
            return state, data, progress
        return None

    def restore_state(self, step: int, abstract: State) -> State:
        """Restores the state of one checkpoint, without its data position."""
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        return self._manager.restore(step, args=args)["state"]

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and frees the background threads."""
        self._manager.close()

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(preservation_policy=self._policy)
        return ocp.CheckpointManager(self._folder.absolute(), options=options)

    def _progress(self, step: int) -> Progress:
        args = ocp.args.Composite(progress=ocp.args.JsonRestore())
        return Progress(**self._manager.restore(step, args=args)["progress"])

    def _restore(self, step: int, abstract: State, data: Any) -> tuple[State, Any]:
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), data=grain.checkpoint.CheckpointRestore(data)
        )
        return self._manager.restore(step, args=args)["state"], data

    def _set_aside(self, step: int, error: Exception) -> None:
        aside = self._folder.parent / "damaged" / str(step)
        reason = str(error).strip().split("\n")[0][:200]
        self._report(f"checkpoint {step} is damaged ({reason}); moved to {aside}")
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(exist_ok=True)
        self._manager.close()
        shutil.move(self._folder / str(step), aside)
        self._manager = self._open()


class _NewestAndBest(PreservationPolicy):
    def __init__(self, keep: int):
        self.keep, self.best = keep, -1

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        old = len(checkpoints) - self.keep
        return [i >= old or info.step == self.best for i, info in enumerate(checkpoints)]
