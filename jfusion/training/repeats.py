"""Several runs of one experiment, by seeds and by folds, reported as one."""

import csv
import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jfusion import processes
from jfusion.bucket import Mirror
from jfusion.config import Config, Regression
from jfusion.run_folder import write_json
from jfusion.training import earlier, loop, readout, regression, tables
from jfusion.training.evaluation import prefix
from jfusion.training.progress import Display

Runs = list[tuple[str, Config]]


def plan(config: Config) -> Runs:
    """The runs that `seeds` and `folds` ask for, each with the name of its folder."""
    single = dataclasses.replace(config, seeds=1, folds=0)
    runs = [("", single)]
    if config.folds:
        runs = [(f"fold-{k}", _with_fold(single, (k, config.folds))) for k in range(config.folds)]
    if config.seeds > 1:
        runs = [
            (f"{name}-seed-{seed}".lstrip("-"), dataclasses.replace(run, seed=seed))
            for name, run in runs
            for seed in range(config.seed, config.seed + config.seeds)
        ]
    return runs


def train(
    config: Config,
    workdir: Path,
    stop_requested: Callable[[], bool] = lambda: False,
    mirror: Mirror | None = None,
) -> dict[str, Any]:
    """Trains every run in a folder of its own, and writes the summary of all.

    Runs that are finished already are not repeated, so the same command resumes.

    Args:
        config: The experiment.
        workdir: The folder of all runs.
        stop_requested: See `loop.train`.
        mirror: See `loop.train`.

    Returns:
        What `summary.json` holds: `runs` (seed, fold, best step and test scores of each), `test`
        (metric -> mean, standard deviation, lowest and highest over the runs), and `pooled`
        (metric -> the score over all test rows of all runs and its 95 % interval) of regressions.

    Raises:
        Preempted, UserError: As for `loop.train`.
    """
    for _, run in plan(config):
        earlier.find(run)  # what any of them cannot take is refused before the first is trained
    display = Display(active=processes.is_first())
    summaries = {}
    for name, run in plan(config):
        folder, copied = workdir / name, mirror and mirror.under(name)
        if not processes.first_decides(functools.partial(_is_finished, folder, copied)):
            shown = copied.url if copied else folder
            display.message(f"run {len(summaries) + 1} of {len(plan(config))}: {shown}")
            loop.train(run, folder, stop_requested, copied)
        summaries[name] = processes.first_decides(functools.partial(_read_summary, folder))
    tables_of_runs = [workdir / name / "test_predictions.csv" for name in summaries]
    summary = {
        "config": config.name,
        "runs": [
            {"folder": name, **{key: x[key] for key in ("seed", "best_step", "test")}}
            for name, x in summaries.items()
        ],
        "test": _spread([x["test"] for x in summaries.values()]),
        "pooled": processes.first_decides(lambda: _pooled(config, tables_of_runs)),
        "seconds": round(sum(x["seconds"] for x in summaries.values()), 3),
        "versions": next(iter(summaries.values()))["versions"],
    }
    if processes.is_first():
        write_json(workdir / "summary.json", summary)
        if mirror:
            mirror.publish("summary.json")
    for name, title in (("test", "over the runs"), ("pooled", "over all their test rows")):
        rows = [{"metric": metric, **x} for metric, x in summary[name].items()]
        if rows:
            display.show(tables.of_rows(rows, title))
    return summary


def _is_finished(folder: Path, mirror: Mirror | None) -> bool:
    if mirror:
        mirror.fetch("summary.json", "test_predictions.csv")
    return (folder / "summary.json").is_file()


def _read_summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def _with_fold(config: Config, fold: tuple[int, int]) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, fold=fold))


def _spread(scores: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, float | None]]:
    """Mean and spread of each metric over the runs, of those where it is defined."""
    found = {}
    for metric in scores[0]:
        values = [x[metric] for x in scores if x[metric] is not None]
        found[metric] = {
            "mean": float(np.mean(values)) if values else None,
            "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            "lowest": min(values, default=None),
            "highest": max(values, default=None),
        }
    return found


def _pooled(config: Config, files: Sequence[Path]) -> dict[str, dict[str, float | None]]:
    """The scores of the regressions over the test rows of all runs, with their intervals.

    All predictions for one person are drawn together: those of other seeds are no new evidence.
    """
    rows = [row for file in files for row in _read(file)]
    found = {}
    for name, section in config.targets.items():
        if not isinstance(section, Regression):
            continue
        known = [row for row in rows if row[name]]
        predicted, truth = (
            np.array([float(row[key]) for row in known]) for key in (name, f"{name}/true")
        )
        person = config.data.group_column or "row"
        groups = [row[person] for row in known]
        cut = readout.cut(section)
        scores = regression.scores(predicted, truth, cut)
        intervals = regression.bootstrap(predicted, truth, cut, groups=groups)
        for metric, score in scores.items():
            low, high = intervals[metric]
            key = f"{prefix(name, config.targets)}{metric}"
            found[key] = {"score": score, "from": low, "to": high}
    return found


def _read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))
