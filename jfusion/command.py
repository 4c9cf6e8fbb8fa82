"""What the commands share: flags, exit codes, processes, and the caches of compiled programs."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from jfusion import host
from jfusion.errors import UserError

# Exit codes, besides 0 and the 1 of an unexpected error.
USAGE = 2  # a wrong config, path or data set; the message says which
PREEMPTED = 75  # stopped by SIGTERM; the same command resumes (EX_TEMPFAIL)
INTERRUPTED = 130  # stopped by Ctrl-C; the same command resumes from the last checkpoint

DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Run as one of several processes: on a TPU pod, under Slurm or Open MPI, or as "
    "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID say.",
)
HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_seconds",
    100,
    "With --distributed: a process that was silent for so long counts as dead, and the others end "
    "with an error.",
    lower_bound=1,
)

_overrides: list[str] = []


def config_overrides() -> list[str]:
    """The `a.b=value` texts of all `--config.a.b=value` arguments."""
    return list(_overrides)


def run(main: Callable[[], int | None]) -> None:
    """Parses the flags, calls `main` and exits with what it returns.

    Args:
        main: The command; its result is the exit code, None is 0.
    """

    host.restart_with_tuned_memory()

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
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return INTERRUPTED

    app.run(call, flags_parser=_parse)


def join_processes() -> None:
    """Meets the other processes, if `--distributed` says that there are any.

    Raises:
        UserError: See `processes.join`.
    """
    if DISTRIBUTED.value:
        from jfusion import processes

        processes.join(HEARTBEAT.value)


class Termination:
    """Takes SIGTERM as a request to stop.

    As long as nobody has asked `requested`, there is nothing to save, and SIGTERM ends the process
    at once.
    """

    def __init__(self):
        self._requested = self._asked = False
        signal.signal(signal.SIGTERM, self._receive)

    def requested(self) -> bool:
        """Whether SIGTERM came."""
        self._asked = True
        return self._requested

    def _receive(self, signum: int, frame: object) -> None:
        del frame
        signal.signal(signum, signal.SIG_IGN)  # a second one must not disturb the saving
        self._requested = True
        if not self._asked:
            print("stopped by SIGTERM before the first step", file=sys.stderr)
            sys.exit(PREEMPTED)


def termination() -> Any:
    """How SIGTERM is taken as a request to stop: `Termination`, or that of several processes."""
    if DISTRIBUTED.value:
        from jfusion import processes

        if processes.count() > 1:
            return processes.Termination()
    return Termination()


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
