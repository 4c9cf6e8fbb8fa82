"""Checkpoints of a run: state, data position and progress, restored to the same bits."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import PreservationPolicy

from jfusion import processes
from jfusion.errors import UserError
from jfusion.training.state import State

# Digests of a checkpoint's files, beside them. Orbax alone would not notice a changed byte.
_DIGESTS = "digests.json"


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
        data: Fingerprint of each split's source.
    """

    phase: int = 0
    phase_start: int = 0
    evaluated: int = 0
    best_step: int = -1
    best_phase: int = 0
    best: dict[str, float | None] = field(default_factory=dict)
    stale: int = 0
    seconds: float = 0.0
    data: dict[str, str] = field(default_factory=dict)

    def without_best(self) -> "Progress":
        """The same as if there had been no evaluation."""
        return replace(self, evaluated=0, best_step=-1, best_phase=0, best={}, stale=0)


class Checkpoints:
    """The checkpoints in one folder: the newest few and the best.

    Saving is asynchronous: `save` returns once the arrays are copied to host memory. A checkpoint
    appears under its name only when it is whole, and older ones go only after that.

    Frozen parameters are the same through a phase, so they are written once per phase, into
    `frozen/<phase>` beside the folder; a checkpoint of adapters and heads holds nothing else.

    Of several processes each writes the parts of the arrays that lie on its devices, and all have
    to call the same methods. The data position is a number of batches, each of which is the same
    rows however many processes share it; so a run may go on with other processes and devices.

    Args:
        folder: Where they lie, one sub-folder per step.
        keep: How many of the newest stay, besides the best.
        report: Called with a line of text about a damaged checkpoint.
    """

    def __init__(self, folder: Path, keep: int, report: Callable[[str], None] = print):
        self._folder, self._report = folder.absolute(), report
        self._policy = _NewestAndBest(keep)
        self._saving = -1
        self._frozen_phases: set[int] = set()  # that are known to be written
        if processes.is_first():
            for left in self._folder.glob(f"*{ocp.path.step.TMP_DIR_SUFFIX}"):  # by a killed save
                shutil.rmtree(left, ignore_errors=True)
        processes.meet("checkpoints are in order")
        self._manager = self._open()

    def save(self, step: int, state: State, data: Any, progress: Progress) -> None:
        """Saves a checkpoint, unless there is one of this step.

        Whoever comes to the same step twice, because it resumed there, has the same state. So
        nothing is ever replaced, and a kill at any moment leaves what was there.

        Args:
            step: The state's step.
            state: The training state.
            data: The data iterator, positioned after the batch of `step`.
            progress: Where the run stands.
        """
        self._policy.best = progress.best_step
        self._manager.wait_until_finished()
        if step in self._manager.all_steps():
            return
        self._save_frozen(progress.phase, state)
        self._saving = step
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state._replace(frozen={})),
                data=ocp.args.JsonSave(data.get_state()),
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
            abstract: Shapes, types and placement of the state at some progress; it may raise a
                `UserError` if the run cannot go on from there.
            make_data: A fresh data iterator for that progress.

        Returns:
            State, positioned data iterator and progress; None if there is no whole checkpoint.

        Raises:
            UserError: A checkpoint is whole but not of this program.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            damage = _damage(self._folder / str(step))
            if damage:
                self._set_aside(step, damage)
                continue
            try:
                progress = self._progress(step)
                wanted, data = abstract(progress), make_data(progress)
                state = self.restore_state(step, progress.phase, wanted)
                self._restore_data(step, data)
            except UserError:
                raise
            except Exception as error:  # any of the storage layers' own
                raise UserError(
                    f"checkpoint {self._folder / str(step)} is whole but cannot be restored "
                    f"({_first_line(error)}); resume with the version that wrote it, or begin "
                    "anew with another --workdir"
                ) from error
            return state, data, self._require_best(step, progress)
        if steps:
            self._report("no checkpoint is whole; the run begins anew")
        return None

    def restore_state(self, step: int, phase: int, abstract: State) -> State:
        """Restores the state of one checkpoint, of a step of a phase, without its data position."""
        bare = ocp.args.StandardRestore(abstract._replace(frozen={}))
        state = self._manager.restore(step, args=ocp.args.Composite(state=bare))["state"]
        return state._replace(frozen=self._restore_frozen(phase, abstract))

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and frees the background threads."""
        self._manager.close()

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._policy,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._digests_when_written),
        )
        return ocp.CheckpointManager(self._folder, options=options)

    def _save_frozen(self, phase: int, state: State) -> None:
        """Writes the frozen parameters of a phase, unless they are there."""
        folder = self._frozen(phase)
        if not state.frozen or phase in self._frozen_phases:
            return
        self._frozen_phases.add(phase)
        if processes.first_decides(folder.is_dir):
            return
        build = folder.with_name(f"{folder.name}{ocp.path.step.TMP_DIR_SUFFIX}")
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(build / "params", state.frozen, force=True)
        if processes.is_first():
            _write_digests(build)
            build.rename(folder)
        processes.meet("frozen parameters are written")

    def _restore_frozen(self, phase: int, abstract: State) -> dict[str, Any]:
        folder = self._frozen(phase)
        if not abstract.frozen:
            return {}
        damage = _damage(folder)
        if damage:
            raise UserError(
                f"the frozen parameters in {folder} are damaged ({damage}); begin anew with "
                "another --workdir"
            )
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(folder / "params", abstract.frozen)

    def _frozen(self, phase: int) -> Path:
        return self._folder.parent / "frozen" / str(phase)

    def _digests_when_written(self) -> None:
        """Called by Orbax when all files are written, in the background of the first process."""
        final = self._folder / str(self._saving)
        hidden = final.with_name(
            f"{final.name}{ocp.path.step.TMP_DIR_SUFFIX}"
        )  # until it is committed
        _write_digests(hidden if hidden.is_dir() else final)

    def _set_aside(self, step: int, damage: str) -> None:
        aside = self._folder.parent / "damaged" / str(step)
        self._report(f"checkpoint {step} is damaged ({damage}); moved to {aside}")
        self._manager.close()
        if processes.is_first():
            shutil.rmtree(aside, ignore_errors=True)
            aside.parent.mkdir(exist_ok=True)
            shutil.move(self._folder / str(step), aside)
        processes.meet(f"checkpoint {step} is set aside")
        self._manager = self._open()

    def _require_best(self, step: int, progress: Progress) -> Progress:
        """Forgets the best step if its checkpoint is lost, so that the best is chosen anew."""
        best = progress.best_step
        if best not in (-1, step):
            damage = _damage(self._folder / str(best))
            if damage:
                if processes.first_decides((self._folder / str(best)).is_dir):
                    self._set_aside(best, damage)
                self._report(
                    f"the best checkpoint so far, {best}, is lost: from step {step} on the best is "
                    "chosen anew"
                )
                progress = progress.without_best()
        self._policy.best = progress.best_step
        return progress

    def _progress(self, step: int) -> Progress:
        args = ocp.args.Composite(progress=ocp.args.JsonRestore())
        return Progress(**self._manager.restore(step, args=args)["progress"])

    def _restore_data(self, step: int, data: Any) -> None:
        args = ocp.args.Composite(data=ocp.args.JsonRestore())
        data.set_state(self._manager.restore(step, args=args)["data"])


class _NewestAndBest(PreservationPolicy):
    def __init__(self, keep: int):
        self.keep, self.best = keep, -1

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        old = len(checkpoints) - self.keep
        return [i >= old or info.step == self.best for i, info in enumerate(checkpoints)]


def _write_digests(folder: Path) -> None:
    digests = json.dumps({name: _digest(folder / name) for name in _files(folder)})
    temporary = folder / f".{_DIGESTS}"
    temporary.write_text(digests)
    temporary.replace(folder / _DIGESTS)


def _damage(folder: Path) -> str:
    """What is wrong with the files of a folder that has digests; empty if they are whole."""
    return processes.first_decides(lambda: _find_damage(folder))


def _find_damage(folder: Path) -> str:
    try:
        digests = json.loads((folder / _DIGESTS).read_text())
        lost = [name for name in digests if not (folder / name).is_file()]
        if lost:
            return f"{lost[0]} is missing"
        changed = [name for name in digests if _digest(folder / name) != digests[name]]
        return f"{changed[0]} is not as it was written" if changed else ""
    except FileNotFoundError:
        return f"{_DIGESTS} is missing"
    except (OSError, ValueError, TypeError) as error:
        return _first_line(error)


def _files(folder: Path) -> list[str]:
    """The files of a checkpoint's items; those of the checkpoint itself are written later."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(name) for name in files if len(name.parts) > 1)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, hashlib.blake2b).hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0][:200]
