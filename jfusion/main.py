"""Trains a model, then tests the best one.

    python -m jfusion.main --config configs/genre_fusion.py
    python -m jfusion.main --config configs/genre_fusion.py:mm_imdb --workdir runs/imdb
    python -m jfusion.main --config configs/genre_fusion.py --config.train.batch_size=128

Any value of `jfusion/config.py` can be set by --config.section.key=value. An unfinished run is
resumed by the same command with its --workdir.

The run's folder may lie in a bucket, gs://BUCKET/FOLDER or s3://BUCKET/FOLDER.

With --distributed the same command, started once per process, trains on the devices of all of them;
the run folder lies on a disk that they share, or in a bucket.

Exit codes: 0 done; 2 wrong config, path or data, or a loss that is not finite; 75 stopped by
SIGTERM with everything saved, and 130 by Ctrl-C, where the steps since the last checkpoint are lost
(the same command with the same --workdir resumes); 1 anything else.
"""

import sys

from absl import flags

from jfusion import command, config_file, run_folder
from jfusion.config import Config

CONFIG = flags.DEFINE_string(
    "config",
    None,
    "The experiment: path/to/config.py, or path/to/config.py:variant.",
    required=True,
)
WORKDIR = flags.DEFINE_string(
    "workdir",
    "",
    "The run's folder, also in a bucket (gs://, s3://); a new runs/<config>-<n> if empty. An "
    "unfinished run resumes.",
)


def main() -> int:
    """Runs the command; returns its exit code."""
    config = config_file.load(CONFIG.value, command.config_overrides())
    command.join_processes()
    with _open(config) as folder:
        tell = print if folder.leads else lambda *args, **kwargs: None
        tell(f"run folder: {folder.name}", flush=True)
        if folder.summary is not None:
            tell(f"this run is finished: see {folder.name}/summary.json")
            return 0
        code = _train(config, folder)
        if code == 0:
            tell(f"run folder: {folder.name}")
        return code


def _open(config: Config) -> run_folder.RunFolder:
    if not command.DISTRIBUTED.value:
        return run_folder.open_run(WORKDIR.value, config)
    from jfusion import processes

    return processes.together(
        lambda: run_folder.open_shared(WORKDIR.value, config, processes.first_decides)
    )


def _train(config: Config, folder: run_folder.RunFolder) -> int:
    termination = command.termination()
    # Only now what is heavy, so that a wrong config ends at once.
    from jfusion.data.cache import cache_root
    from jfusion.training import loop, repeats

    command.cache_compiled_programs(cache_root(config.data.cache_dir) / "xla")
    try:
        several = config.seeds > 1 or config.folds
        train = (repeats if several else loop).train
        train(config, folder.path, termination.requested, folder.mirror)
    except loop.Preempted as stop:
        print(f"{stop}; the same command with --workdir {folder.name} resumes", file=sys.stderr)
        return command.PREEMPTED
    return 0


if __name__ == "__main__":
    command.run(main)
