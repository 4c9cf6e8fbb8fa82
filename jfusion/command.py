"""What the commands share: flags, exit codes, and the caches of compiled programs."""

import os
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from jfusion.errors import UserError

# Exit codes, besides 0 and the 1 of an unexpected error.
USAGE = 2  # a wrong config, path or data set; the message says which
PREEMPTED = 75  # stopped by SIGTERM after saving; the same command resumes (EX_TEMPFAIL)

_overrides: list[str] = []


def config_overrides() -> list[str]:
    """The `a.b=value` texts of all `--config.a.b=value` arguments."""
    return list(_overrides)


def run(main: Callable[[], int | None]) -> None:
    """Parses the flags, calls `main` and exits with what it returns.

    Args:
        main: The command; its result is the exit code, None is 0.
    """

    def call(argv: Sequence[str]) -> int:
        if len(argv) > 1:
            print(f"unknown argument {argv[1]!r}; see --help", file=sys.stderr)
            return USAGE
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # libraries log every file they write
        try:
            return main() or 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return USAGE

    app.run(call, flags_parser=_parse)


def cache_compiled_programs(folder: str | os.PathLike) -> None:
    """Keeps compiled programs on disk, so that the next start of the same program is quick."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:  # a person's own setting stands
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _parse(argv: Sequence[str]) -> list[str]:
    _overrides[:] = [a.removeprefix("--config.") for a in argv if a.startswith("--config.")]
    rest = [a for a in argv if not a.startswith("--config.")]
    try:
        return flags.FLAGS(rest)
    except flags.Error as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USAGE)
