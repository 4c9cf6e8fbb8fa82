"""What a run tells: on the terminal, in `metrics.jsonl`, on TensorBoard and in `summary.json`."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from jfusion import artifact, predictions, processes, trees
from jfusion import config as schema
from jfusion.bucket import Mirror
from jfusion.config import Classes, Config, MultiLabel, to_dict
from jfusion.data import notes, pipeline
from jfusion.data.dataset import Split
from jfusion.run_folder import write_json
from jfusion.training import confusion, evaluation, pictures, readout, tables
from jfusion.training.progress import Display, Steps
from jfusion.training.run import Run
from jfusion.training.state import State
from jfusion.training.verdict import Verdict
from jfusion.training.writer import METRICS_FILE, Writer


class Reporter:
    """All of a run's output; only process 0 of several writes.

    Args:
        config: The experiment.
        workdir: The run's folder.
        mirror: Copies it to a bucket, if the run is there: before each checkpoint and at the end.
    """

    def __init__(self, config: Config, workdir: Path, mirror: Mirror | None = None):
        self._config, self._workdir = config, workdir
        self._active = processes.is_first()
        self._mirror = mirror if self._active else None
        self._display = Display(active=self._active)
        self.message = self._display.message
        self._writer: Writer | None = None
        self._bar: Any = None
        self._steps: Steps | None = None
        self._labels: dict[str, list[dict[str, Any]]] = {}

    def describe(self, run: Run) -> None:
        """Says what the run works on: devices, rows, what was cut or masked, parameters."""
        devices = jax.devices()
        several = f" in {processes.count()} processes" if processes.count() > 1 else ""
        self.message(f"devices: {len(devices)} x {devices[0].device_kind}{several}")
        for name, split in run.dataset.splits.items():
            counts = ", ".join(f"{n:,} {what}" for what, n in split.counts().items())
            self.message(f"{name}: {counts}")
            for problem in split.problems[:5]:
                self.message(f"  {problem}")
            if len(split.problems) > 5:
                self.message(f"  and {len(split.problems) - 5} more problems")
            for line in notes.lines(split, run.dataset.inputs):
                self.message(f"  {line}")
        for i, plan in enumerate(run.plans):
            trained = trees.size(trees.split(run.network.params, plan.rates)[0])
            total = trees.size(run.network.params)
            self.message(
                f"phase {i + 1}: {trained:,} of {total:,} parameters trained, at most "
                f"{plan.steps:,} steps"
            )

    def open(self, resume_step: int | None) -> None:
        """Opens the files; `resume_step` is the step of the checkpoint the run goes on from."""
        if resume_step is not None:
            self.message(f"resuming at step {resume_step}")
        if self._mirror:
            self._mirror.fetch(METRICS_FILE)
        self._writer = Writer(self._workdir, resume_step, active=self._active)

    def phase(self, run: Run, index: int, done: int) -> None:
        """Begins to show the steps of a phase, `done` of which were taken before."""
        self._close_bar()
        phases = len(self._config.train.phases)
        name = f"phase {index + 1}/{phases} step" if phases > 1 else "step"
        self._bar = self._display.steps(run.plans[index].steps, name, done)
        self._steps = self._bar.__enter__()

    def step(self) -> None:
        """Counts a step."""
        self._steps.advance()

    def train(
        self, step: int, scalars: Mapping[str, jax.Array], rate: float, rates: Mapping[str, float]
    ) -> None:
        """Records a training step.

        Args:
            step: Steps taken.
            scalars: What the step returned.
            rate: Rows per second.
            rates: Learning rate by pattern.
        """
        values = {name: float(x) for name, x in jax.device_get(dict(scalars)).items()}
        values |= {f"learning_rate/{pattern}": value for pattern, value in rates.items()}
        self._writer.scalars(step, "train", values | {"samples_per_second": rate})
        self._steps.advance(0, loss=values["loss"], samples_per_second=rate)

    @contextlib.contextmanager
    def rows(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Shows a pass over some rows; yields what is to be called with each number done."""
        with self._display.steps(total, what) as steps:
            yield steps.advance

    def track(self, run: Run, split: Split) -> Iterator[Any]:
        """Passes the batches of a split through and shows how many there were."""
        batches = run.eval_batches(split)
        count = pipeline.batch_count(len(split), self._config.train.batch_size)
        with self._display.steps(count, split.name) as steps:
            for batch in batches:
                yield batch
                steps.advance()

    def evaluated(
        self,
        run: Run,
        step: int,
        split: str,
        outputs: evaluation.Outputs,
        scores: evaluation.Scores,
    ) -> None:
        """Records everything about a model's outputs on a split."""
        shares = {f"fusion_weight/{name}": float(x.mean()) for name, x in outputs.shares.items()}
        by_label = {}
        for head, section in self._config.targets.items():
            if isinstance(section, MultiLabel | Classes):
                by_label |= self._of_labels(run, step, split, head, section, outputs)
        # Label by label only once: as curves they would bury the others.
        extra = shares | (by_label if split == "test" else {})
        self._writer.scalars(step, split, scores | extra)
        if split == "val":
            self._picture_page(run, step, outputs)
        monitor = self._config.train.monitor
        value = scores[monitor]
        shown = "undefined" if value is None else f"{value:.4f}"
        self.message(f"step {step}: {split} loss {scores['loss']:.4f}, {monitor} {shown}")

    def tested(
        self,
        run: Run,
        step: int,
        verdict: Verdict,
        outputs: evaluation.Outputs,
        radii: Mapping[str, float | None],
    ) -> None:
        """Records what stands beside the test scores, and each row's prediction."""
        for title, rows in tables.of_verdict(verdict).items():
            self._writer.table(step, f"test/{title}", rows)
        if self._active:
            split, data = run.dataset.splits["test"], self._config.data
            rows = predictions.rows(
                self._config.targets,
                run.dataset.labels,
                radii,
                split,
                outputs,
                copy=[x for x in (data.id_column, data.group_column) if x],
                truth=True,
            )
            predictions.write(self._workdir / "test_predictions.csv", rows)

    def _of_labels(
        self,
        run: Run,
        step: int,
        split: str,
        head: str,
        section: MultiLabel | Classes,
        outputs: evaluation.Outputs,
    ) -> dict[str, float | None]:
        """Records the scores of each label or class; returns them by `head/label/metric`."""
        probabilities = readout.predicted(section, outputs.heads[head])
        truth = run.dataset.splits[split].targets[head][outputs.rows]
        labels = run.dataset.labels[head]
        rows = readout.of_labels(section, probabilities, truth, labels)
        self._labels[head] = rows
        self._writer.table(step, f"{split}/{head}", rows)
        if isinstance(section, MultiLabel):
            self._writer.pr_curves(step, split, probabilities, truth, labels)
        else:
            page = confusion.draw(confusion.matrix(probabilities, truth), labels)
            self._writer.picture(step, f"{split}/{head}/confusion", page)
            if split == "test" and self._active:
                Image.fromarray(page).save(self._workdir / f"confusion_{head}.png")
        return {
            f"{head}/{row['label']}/{name}": value
            for row in rows
            for name, value in row.items()
            if name != "label"
        }

    def flush(self) -> None:
        """Puts everything written so far on the disk, and into the bucket."""
        self._writer.flush()
        if self._mirror:
            self._mirror.publish("*", "model/**/*")

    def finish(
        self,
        run: Run,
        best: State,
        val: evaluation.Scores,
        verdict: Verdict,
        seconds: float,
        rate: float | None,
    ) -> dict[str, Any]:
        """Writes `summary.json`, prints the scores, and returns the summary."""
        self._close_bar()
        test = verdict.scores
        self._writer.hparams(
            to_dict(self._config), [f"test/{name}" for name, x in test.items() if x is not None]
        )
        trained, total = trees.size(best.params), trees.size(run.network.params)
        summary = {
            "config": self._config.name,
            "best_step": int(best.step),
            "val": val,
            "test": test,
            **{name: x for name, x in asdict(verdict).items() if x and name != "scores"},
            **({"best_possible": run.dataset.best_possible} if run.dataset.best_possible else {}),
            "rows": {name: split.counts() for name, split in run.dataset.splits.items()},
            "params": {"total": total, "trainable": trained},
            "seconds": round(seconds, 3),
            "samples_per_second": rate and round(rate, 3),
            "versions": artifact.versions(),
            "seed": self._config.seed,
        }
        if self._active:
            write_json(self._workdir / "summary.json", summary)
            self.flush()
            for head, rows in self._labels.items():
                self._display.show(tables.of_rows(rows, head))
            results = {"val": val, "test": test}
            self._display.show(tables.of_metrics(results, run.dataset.best_possible))
            for title, rows in tables.of_verdict(verdict).items():
                self._display.show(tables.of_rows(rows, title))
        return summary

    def close(self) -> None:
        """Closes the files and the bar."""
        self._close_bar()
        if self._writer is not None:
            self._writer.close()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None

    def _picture_page(self, run: Run, step: int, outputs: evaluation.Outputs) -> None:
        """Shows the first rows of a split: picture, text, true and predicted labels."""
        split = run.dataset.splits["val"]
        rows = outputs.rows[: self._config.log.pictures]
        if not len(rows):
            return
        for head, target in self._config.targets.items():
            if not isinstance(target, MultiLabel):
                continue
            probabilities = readout.predicted(target, outputs.heads[head])
            page = pictures.draw(
                [
                    pictures.Row(
                        picture=self._picture(split, row),
                        text=self._text(split, row),
                        targets=split.targets[head][row],
                        probabilities=probabilities[i],
                    )
                    for i, row in enumerate(rows)
                ],
                run.dataset.labels[head],
                target.threshold,
            )
            self._writer.picture(step, f"val/{head}", page)

    def _picture(self, split: Split, row: int) -> np.ndarray | None:
        for name, part in self._config.inputs.items():
            if isinstance(part, schema.Image) and split.present[name][row]:
                return split.inputs[name]["pixels"][row]
        return None

    def _text(self, split: Split, row: int) -> str | None:
        for name, part in self._config.inputs.items():
            if isinstance(part, schema.Text) and split.present[name][row]:
                return str(split.source[row][part.column])
        return None
