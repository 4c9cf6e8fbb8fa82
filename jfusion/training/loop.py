"""A training run from config to tested model, readable top to bottom."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from jfusion import artifact, processes
from jfusion.bucket import Mirror
from jfusion.config import Config, Regression
from jfusion.data.split import Split
from jfusion.errors import UserError
from jfusion.training import evaluation, verdict
from jfusion.training.checkpoint import Checkpoints, Progress
from jfusion.training.meter import Meter
from jfusion.training.report import Reporter
from jfusion.training.run import prepare
from jfusion.training.state import State


class Preempted(Exception):
    """The run was asked to stop and has saved; the same command resumes it."""


def train(
    config: Config,
    workdir: Path,
    stop_requested: Callable[[], bool] = lambda: False,
    mirror: Mirror | None = None,
) -> dict[str, Any]:
    """Trains a model, keeps the best, tests it, and writes the run folder.

    Args:
        config: The experiment.
        workdir: The run's folder; an unfinished run in it is resumed.
        stop_requested: Asked after every batch; once it says yes, the run saves and stops. Of
            several processes all ask equally often and must get the same answer.
        mirror: Copies the folder to a bucket, if the run is to be there.

    Returns:
        What `summary.json` holds.

    Raises:
        Preempted: The run was stopped; everything is saved.
        UserError: The config, the data or the weights cannot be used, or the loss is not finite.
    """
    with contextlib.closing(Loop(config, workdir, stop_requested, mirror)) as loop:
        state, batches = loop.resume_or_start()

        # Train phase by phase, each from the best model so far.
        while True:
            state = loop.train_phase(state, batches)
            best = loop.best_state()
            if not loop.next_phase(int(state.step)):
                break
            state = loop.run.phase_state(
                loop.progress.phase, best.evaluated, best.stats, state.step
            )
            batches = loop.run.train_batches(loop.progress)

        # Test the best model, and keep it.
        radii = loop.radii(best)
        verdict = loop.test(best, radii)
        model = loop.run.artifact(best, radii)
        if processes.is_first():
            artifact.write(workdir / "model", model)
        return loop.finish(best, verdict)


class Loop:
    """The moving parts of a run, and what happens to them.

    Attributes:
        run: The constant parts.
        progress: Where the run stands.
    """

    def __init__(
        self,
        config: Config,
        workdir: Path,
        stop_requested: Callable[[], bool],
        mirror: Mirror | None = None,
    ):
        self._started = time.monotonic()
        self._config = config
        self._reporter = Reporter(config, workdir, mirror)
        self.run = processes.together(lambda: prepare(config))
        self._reporter.describe(self.run)
        sources = {name: split.source for name, split in self.run.dataset.splits.items()}
        self.progress = Progress(data={name: x.fingerprint for name, x in sources.items()})
        self._checkpoints = Checkpoints(
            workdir / "checkpoints",
            config.train.keep,
            self._reporter.message,
            mirror and mirror.folder,
        )
        self._meter = Meter(self.run.dataset.splits["train"].source.locate)
        self._stop_requested = stop_requested
        self._splits: Mapping[str, Split] = self.run.dataset.splits  # as the phase reads them

    def resume_or_start(self) -> tuple[State, Any]:
        """The state and the training batches to go on with."""
        found = self._checkpoints.restore_newest(self._abstract_state, self.run.train_batches)
        if found is None:
            self._reporter.open(None)
            return self.run.first_state(), self.run.train_batches(self.progress)
        state, batches, self.progress = found
        self._reporter.open(int(state.step))
        return state, batches

    def train_phase(self, state: State, batches: Any) -> State:
        """Takes the steps of the current phase that are still to do, evaluating every epoch."""
        with contextlib.closing(batches):
            batches = self._read_features(state, batches)
        with contextlib.closing(batches):
            return self._train_phase(state, batches)

    def _read_features(self, state: State, batches: Any) -> Any:
        """The same batches with the features that the phase reads in place of some inputs."""
        watch = functools.partial(self._watch, int(state.step))
        phase, report = self.progress.phase, self._reporter.message
        self._splits = self.run.phase_splits(phase, state, report, watch)
        reading = self.run.train_batches(self.progress, self._splits["train"])
        reading.set_state(batches.get_state())
        return reading

    @contextlib.contextmanager
    def _watch(self, step: int, what: str, rows: int) -> Iterator[Callable[[int], None]]:
        """Shows a pass over some rows, which a request to stop ends."""
        with self._reporter.rows(what, rows) as advance:

            def done(count: int) -> None:
                advance(count)
                if self._stop_requested():
                    self._leave(step)

            yield done

    def _train_phase(self, state: State, batches: Any) -> State:
        config, progress = self._config, self.progress
        train_step, key = self.run.plans[progress.phase].train_step, self.run.key
        step, compiled = int(state.step), False
        self._reporter.phase(self.run, progress.phase, step - progress.phase_start)
        while True:
            if self._epoch_ended(step) and step > progress.evaluated:
                self._evaluate_epoch(state, batches)
                self._meter.discard()
            if self._phase_ended(step):
                return state

            batch, rows = next(batches)
            state, scalars = train_step(state, batch, key)
            step += 1
            self._meter.add(step, rows, scalars)
            self._reporter.step()
            if not compiled:
                self._meter.discard()
                compiled = True
            if step % config.log.every == 0 or self._epoch_ended(step):
                self._reporter.train(step, scalars, self._meter.lap(), self._rates(step))

            if self._stop_requested():
                self._save(state, batches)
                self._leave(step)
            every = config.train.checkpoint_every
            if every and step % every == 0 and not self._epoch_ended(step):
                self._save(state, batches)

    def evaluate(self, state: State) -> evaluation.Scores:
        """Scores a state on the validation split, writes the scores, and returns them."""
        split = self._splits["val"]
        outputs = self._outputs(split, state)
        scores = evaluation.score(outputs, split.targets, self._config.targets, self.run.losses)
        self._reporter.evaluated(self.run, int(state.step), "val", outputs, scores)
        return scores

    def radii(self, best: State) -> dict[str, float | None]:
        """Half-width of the interval around each regression's predictions."""
        if not any(isinstance(x, Regression) for x in self._config.targets.values()):
            return {}
        split = self.run.dataset.splits["val"]
        return verdict.radii(self._config.targets, self._outputs(split, best), split.targets)

    def test(self, best: State, radii: Mapping[str, float | None]) -> verdict.Verdict:
        """Tests the best model, with every choice of its modalities, and writes the scores."""
        split = self.run.dataset.splits["test"]
        judged, outputs = verdict.judge(
            functools.partial(self._outputs, split, best),
            self._config.inputs,
            split.targets,
            self._config.targets,
            self.run.losses,
            self.run.statistics,
            radii,
            verdict.groups_of(split, self._config.data),
        )
        self._reporter.evaluated(self.run, int(best.step), "test", outputs, judged.scores)
        self._reporter.tested(self.run, int(best.step), judged, outputs, radii)
        return judged

    def best_state(self) -> State:
        """The state of the best evaluation so far."""
        self._checkpoints.wait()
        progress = self.progress
        abstract = self.run.abstract_state(Progress(phase=progress.best_phase))
        return self._checkpoints.restore_state(progress.best_step, progress.best_phase, abstract)

    def next_phase(self, step: int) -> bool:
        """Moves on to the next phase; False if that was the last."""
        last = self.progress.phase + 1 == len(self._config.train.phases)
        if last or self._limit_reached(step):
            return False
        self.progress.phase += 1
        self.progress.phase_start = step
        self.progress.stale = 0
        return True

    def finish(self, best: State, judged: verdict.Verdict) -> dict[str, Any]:
        """Writes the summary and returns it."""
        rate = self._meter.rows / self._meter.seconds if self._meter.rows else None
        summary = self._reporter.finish(
            self.run, best, self.progress.best, judged, self._elapsed(), rate
        )
        processes.meet("the run is written")
        return summary

    def close(self) -> None:
        """Frees what the run held."""
        self._checkpoints.close()
        self._reporter.close()

    def _abstract_state(self, progress: Progress) -> State:
        changed = [name for name, x in self.progress.data.items() if progress.data.get(name) != x]
        if changed:
            names = (self.run.dataset.splits[name].source.name for name in changed)
            raise UserError(
                f"the data changed since this run began: {', '.join(dict.fromkeys(names))}; put "
                "them back, or begin anew with another --workdir"
            )
        return self.run.abstract_state(progress)

    def _evaluate_epoch(self, state: State, batches: Any) -> None:
        progress, step = self.progress, int(state.step)
        self._meter.check(state)
        try:
            values = self.evaluate(state)
        except Preempted:
            # Saved as not evaluated: the evaluation is the first thing after the restart.
            self._save(state, batches)
            raise
        progress.evaluated = step
        progress.stale += 1
        if evaluation.better(values, progress.best, self._config.train.monitor):
            progress.best_step, progress.best_phase = step, progress.phase
            progress.best, progress.stale = values, 0
        self._save(state, batches)

    def _outputs(
        self, split: Split, state: State, modalities: Collection[str] | None = None
    ) -> evaluation.Outputs:
        """Runs a state on a split, with only some of its modalities if they are given."""
        batches, step = self._reporter.track(self.run, split), int(state.step)
        return evaluation.run(
            self.run.eval_step,
            state.evaluated,
            state.stats,
            batches if modalities is None else evaluation.only(batches, modalities),
            self.run.mesh,
            after_batch=lambda: self._stop_requested() and self._leave(step),
        )

    def _epoch_ended(self, step: int) -> bool:
        done = step - self.progress.phase_start
        return (bool(done) and done % self.run.steps_per_epoch == 0) or self._limit_reached(step)

    def _phase_ended(self, step: int) -> bool:
        patience = self._config.train.patience
        return (
            step - self.progress.phase_start >= self.run.plans[self.progress.phase].steps
            or bool(patience and self.progress.stale >= patience)
            or self._limit_reached(step)
        )

    def _limit_reached(self, step: int) -> bool:
        return 0 < self._config.train.max_steps <= step

    def _rates(self, step: int) -> dict[str, float]:
        """The learning rate of each pattern in the update that made `step`."""
        plan = self.run.plans[self.progress.phase]
        share = float(plan.shape(step - 1 - self.progress.phase_start))
        return {
            pattern: share * rate
            for pattern, rate in self._config.train.phases[self.progress.phase].rates
            if rate
        }

    def _save(self, state: State, batches: Any) -> None:
        self._meter.check(state)  # what is saved can be gone on from
        self._reporter.flush()
        progress = dataclasses.replace(self.progress, seconds=self._elapsed())
        self._checkpoints.save(int(state.step), state, batches, progress)

    def _leave(self, step: int) -> None:
        raise Preempted(f"stopped by SIGTERM at step {step}; everything is saved")

    def _elapsed(self) -> float:
        return self.progress.seconds + time.monotonic() - self._started
