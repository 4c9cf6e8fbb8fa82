"""The processes of one run, where there are several: how they meet, agree and stop.

All of it rests on `jax.distributed`. Where there is one process, nothing here does anything.
"""

import json
import os
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jfusion.errors import UserError

T = TypeVar("T")

# JAX itself reads the address only.
ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def join(heartbeat_seconds: int) -> None:
    """Makes this process one of several; to be called before anything else of JAX.

    JAX finds the others by itself on a TPU pod, under Slurm and under Open MPI; elsewhere three
    variables name them.

    Args:
        heartbeat_seconds: A process that was silent for so long counts as dead, and the others
            end with an error.

    Raises:
        UserError: It is not known who the others are.
        ConnectionError: They cannot be reached; at the next try they may be there.
    """
    count, index = _number(COUNT), _number(INDEX)
    try:
        jax.distributed.initialize(
            num_processes=count,
            process_id=index,
            heartbeat_timeout_seconds=heartbeat_seconds,
            # One that leaves early because of an error of its own holds the others no longer.
            shutdown_timeout_seconds=heartbeat_seconds,
        )
    except (ValueError, TypeError) as error:
        raise UserError(
            f"--distributed: JAX finds no cluster ({error}); it knows TPU pods, Slurm and Open MPI "
            f"by itself. Elsewhere set {ADDRESS}=host:port, {COUNT} and {INDEX} (from 0), or leave "
            "--distributed out to run in one process"
        ) from None
    except RuntimeError as error:
        raise ConnectionError(f"--distributed: {str(error).splitlines()[0]}") from error


def count() -> int:
    """How many there are."""
    return jax.process_count()


def index() -> int:
    """Which of them this is, counted from 0."""
    return jax.process_index()


def is_first() -> bool:
    """Whether this is the one process that writes what there is one of."""
    return jax.process_index() == 0


def meet(name: str) -> None:
    """Returns when all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def first_decides(decide: Callable[[], T]) -> T:
    """What `decide` gives in process 0, in all processes.

    Args:
        decide: Called in process 0 only; returns what JSON can hold.

    Raises:
        UserError: It raised one, which all processes raise.
    """
    if jax.process_count() == 1:
        return decide()
    answer = {}
    if is_first():
        try:
            answer = {"value": decide()}
        except UserError as error:
            answer = {"error": str(error)}
    answer = json.loads(texts(json.dumps(answer))[0])
    if "error" in answer:
        raise UserError(answer["error"])
    return answer["value"]


def together(do: Callable[[], T]) -> T:
    """What `do` returns, once it has returned in all processes.

    Raises:
        UserError: It raised one in some process; the first such error, in all processes. Without
            this the others would wait for one that has gone.
    """
    if jax.process_count() == 1:
        return do()
    done, message = None, ""
    try:
        done = do()
    except UserError as error:
        message = str(error)
    messages = texts(message)
    for index, text in enumerate(messages):
        if text:
            raise UserError(text if all(messages) else f"process {index}: {text}")
    return done


def all_of(fact: bool) -> bool:
    """Whether it is so in every process; all must call it."""
    return all(texts("x" if fact else ""))


def texts(text: str) -> list[str]:
    """The texts of all processes, in their order; all must call it."""
    if jax.process_count() == 1:
        return [text]
    data = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(data)))
    padded = np.zeros(max(int(sizes.max()), 1), np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded)
    return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]


class Termination:
    """SIGTERM to any of the processes, as a request that all of them take at the same point.

    JAX receives the signal, and its coordination service names the point: `requested` costs no word
    between the processes as long as nobody was asked to stop.
    """

    def __init__(self):
        self._asked = 0

    def requested(self) -> bool:
        """Whether all are to stop now; every process must ask equally often."""
        self._asked += 1
        return multihost_utils.reached_preemption_sync_point(self._asked)


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if text is None:
        return None
    if not text.isdecimal():
        raise UserError(f"--distributed: {name}={text!r} is not a number")
    return int(text)
