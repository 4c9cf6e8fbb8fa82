"""Checkpoints of a run: state, data position and progress, restored to the same bits."""

import functools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from jfusion import processes
from jfusion.bucket import Folder
from jfusion.errors import UserError, first_line
from jfusion.training import digests, savers
from jfusion.training.state import State
from jfusion.training.stored import Stored


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

    For a run in a bucket, the folder is this process's own: what is written there is sent in the
    background, and what is restored is fetched first.

    Args:
        folder: Where they lie, one sub-folder per step.
        keep: How many of the newest stay, besides the best.
        report: Called with a line of text about a damaged checkpoint.
        bucket: The run's folder in a bucket, if it is there.
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        report: Callable[[str], None] = print,
        bucket: Folder | None = None,
    ):
        self._folder, self._report = folder.absolute(), report
        self._policy = savers.NewestAndBest(keep)
        self._saving = -1
        self._failed: Exception | None = None  # what sending in the background ended with
        self._frozen_phases: set[int] = set()  # that are known to be written
        self._stored = bucket and Stored(bucket, keep)
        self._apart = bool(bucket) and processes.count() > 1  # each in a folder of its own
        if self._stored and processes.is_first():
            self._stored.clean()
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
        self.wait()
        self._policy.best = progress.best_step
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
        steps = sorted(self._steps(), reverse=True)
        for step in steps:
            self._fetch(self._folder / str(step))
            damage = self._damage(self._folder / str(step))
            if damage:
                self._set_aside(step, damage)
                continue
            try:
                progress = self._progress(step)
                wanted, data = abstract(progress), make_data(progress)
                state = self.restore_state(step, progress.phase, wanted)
                self._restore_data(step, data)
            except (UserError, ConnectionError):
                raise
            except Exception as error:  # any of the storage layers' own
                raise UserError(
                    f"checkpoint {self._folder / str(step)} is whole but cannot be restored "
                    f"({first_line(error)}); resume with the version that wrote it, or "
                    "begin anew with another --workdir"
                ) from error
            return state, data, self._require_best(step, progress)
        if steps:
            self._report("no checkpoint is whole; the run begins anew")
        return None

    def restore_state(self, step: int, phase: int, abstract: State) -> State:
        """Restores the state of one checkpoint, of a step of a phase, without its data position."""
        if self._apart:
            self._complete(self._folder / str(step))
        bare = ocp.args.StandardRestore(abstract._replace(frozen={}))
        state = self._manager.restore(step, args=ocp.args.Composite(state=bare))["state"]
        return state._replace(frozen=self._restore_frozen(phase, abstract))

    def wait(self) -> None:
        """Returns when everything is on disk, and in the bucket.

        Raises:
            BucketError, ConnectionError: It could not be sent.
        """
        self._manager.wait_until_finished()
        self._require_sent()

    def close(self) -> None:
        """Waits, and frees the background threads.

        Raises:
            BucketError, ConnectionError: See `wait`.
        """
        self._manager.close()
        self._require_sent()

    def _require_sent(self) -> None:
        error, self._failed = self._failed, None
        if error is not None:
            raise error

    def _open(self) -> ocp.CheckpointManager:
        return savers.manager(
            self._folder, self._policy, self._digests_when_written, apart=self._apart
        )

    def _steps(self) -> Sequence[int]:
        if self._stored:
            return processes.first_decides(self._stored.steps)
        return self._manager.all_steps()

    def _fetch(self, folder: Path) -> None:
        """Brings a checkpoint, or frozen parameters, from the bucket if they are not here."""
        if self._stored and (self._apart or not folder.is_dir()):
            self._stored.fetch(folder)
            self._manager.reload()

    def _complete(self, folder: Path) -> None:
        """Fetches what the other processes wrote of a checkpoint, and makes sure that it is all.

        Of parts that are not there, Orbax would restore zeros.
        """
        processes.meet(f"{folder.name} is sent")
        self._fetch(folder)
        damage = self._damage(folder)
        if damage:
            raise UserError(f"checkpoint {folder.name} was damaged on its way: {damage}")

    def _save_frozen(self, phase: int, state: State) -> None:
        """Writes the frozen parameters of a phase, unless they are there."""
        folder = self._frozen(phase)
        if not state.frozen or phase in self._frozen_phases:
            return
        self._frozen_phases.add(phase)
        there = functools.partial(self._stored.has_frozen, phase) if self._stored else folder.is_dir
        if processes.first_decides(there):
            return
        build = folder.with_name(f"{folder.name}{ocp.path.step.TMP_DIR_SUFFIX}")
        with savers.checkpointer(self._apart) as checkpointer:
            checkpointer.save(build / "params", state.frozen, force=True)
        if processes.is_first() or self._apart:
            written = digests.write(build, self._part())
            build.rename(folder)
            if self._stored:
                self._stored.send(folder, written, f"frozen/{phase}")
        processes.meet("frozen parameters are written")

    def _restore_frozen(self, phase: int, abstract: State) -> dict[str, Any]:
        folder = self._frozen(phase)
        if not abstract.frozen:
            return {}
        self._fetch(folder)
        damage = self._damage(folder)
        if damage:
            raise UserError(
                f"the frozen parameters in {folder} are damaged ({damage}); begin anew with "
                "another --workdir"
            )
        with savers.checkpointer(self._apart) as checkpointer:
            return checkpointer.restore(folder / "params", abstract.frozen)

    def _frozen(self, phase: int) -> Path:
        return self._folder.parent / "frozen" / str(phase)

    def _digests_when_written(self) -> None:
        """Called by Orbax in the background when all files are written, see `savers.manager`."""
        final = self._folder / str(self._saving)
        hidden = final.with_name(
            f"{final.name}{ocp.path.step.TMP_DIR_SUFFIX}"
        )  # until it is committed
        folder = hidden if hidden.is_dir() else final
        written = digests.write(folder, self._part())
        if self._stored:
            try:
                self._stored.send(folder, written, f"checkpoints/{final.name}")
                if processes.is_first():
                    self._stored.prune(self._policy.best)
            except Exception as error:  # raised here, it would keep the other processes waiting
                self._failed = error

    def _part(self) -> tuple[int, int] | None:
        return (processes.index(), processes.count()) if self._apart else None

    def _damage(self, folder: Path) -> str:
        """What is wrong with the files of a folder that has digests; empty if they are whole."""
        if self._stored is None:
            return processes.first_decides(lambda: digests.damage(folder))
        damage = self._damage_of_copies(folder)
        if damage:  # on its way, perhaps
            shutil.rmtree(folder, ignore_errors=True)
            self._fetch(folder)
            damage = self._damage_of_copies(folder)
        return damage

    def _damage_of_copies(self, folder: Path) -> str:
        return next(filter(None, processes.texts(digests.damage(folder))), "")

    def _set_aside(self, step: int, damage: str) -> None:
        folder, aside = self._folder / str(step), self._folder.parent / "damaged" / str(step)
        self._manager.close()
        if self._stored:
            aside = processes.first_decides(lambda: self._stored.set_aside(step))
            shutil.rmtree(folder, ignore_errors=True)
        elif processes.is_first():
            shutil.rmtree(aside, ignore_errors=True)
            aside.parent.mkdir(exist_ok=True)
            shutil.move(folder, aside)
        self._report(f"checkpoint {step} is damaged ({damage}); moved to {aside}")
        processes.meet(f"checkpoint {step} is set aside")
        self._manager = self._open()

    def _require_best(self, step: int, progress: Progress) -> Progress:
        """Forgets the best step if its checkpoint is lost, so that the best is chosen anew."""
        best = progress.best_step
        if best not in (-1, step):
            self._fetch(self._folder / str(best))
            damage = self._damage(self._folder / str(best))
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
