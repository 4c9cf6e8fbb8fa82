"""Trains a model, then tests the best one.

    python -m jfusion.main --config configs/genre_fusion.py
    python -m jfusion.main --config configs/genre_fusion.py:mm_imdb --workdir runs/imdb
    python -m jfusion.main --config configs/genre_fusion.py --config.train.batch_size=128

Any value of `jfusion/config.py` can be set by --config.section.key=value. The same command with the
same --workdir resumes an unfinished run.

Exit codes: 0 done; 2 wrong config, path or data; 75 stopped by SIGTERM after saving (run the same
command again to resume); 1 anything else.
"""

import sys

from absl import flags

from jfusion import command, config_file, run_folder

CONFIG = flags.DEFINE_string(
    "config",
    None,
    "The experiment: path/to/config.py, or path/to/config.py:variant.",
    required=True,
)
WORKDIR = flags.DEFINE_string(
    "workdir", "", "The run's folder; a new runs/<config>-<n> if empty. An unfinished run resumes."
)


def main() -> int:
    """Runs the command; returns its exit code."""
    config = config_file.load(CONFIG.value, command.config_overrides())
    folder = run_folder.open_run(WORKDIR.value, config)
    print(f"run folder: {folder.path}")
    if folder.summary is not None:
        print(f"this run is finished: see {folder.path}/summary.json")
        return 0
    # Only now what is heavy, so that a wrong config ends at once.
    from jfusion.data.cache import cache_root
    from jfusion.training import loop

    command.cache_compiled_programs(cache_root(config.data.cache_dir) / "xla")
    try:
        loop.train(config, folder.path)
    except loop.Preempted as stop:
        print(f"{stop}; the same command with --workdir {folder.path} resumes", file=sys.stderr)
        return command.PREEMPTED
    print(f"run folder: {folder.path}")
    return 0


if __name__ == "__main__":
    command.run(main)
