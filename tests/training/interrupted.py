"""Runs `jfusion.main` and sends itself signals at chosen moments.

    python -m tests.training.interrupted KILL:step:5 -- --config ... --workdir ...

`KILL:step:5` is SIGKILL at the fifth step; other moments are `evaluation` (after its n-th batch),
`commit` (in the background, when the files of the n-th checkpoint are written, but under a
temporary name) and `start` (before the data are loaded). At all but `commit`, checkpoints that are
still being written are waited for, so that a test knows which one is the newest.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from jfusion import command, main
from jfusion.training import checkpoint, evaluation, loop, meter

PLACES = {
    "start": (loop, "prepare"),
    "step": (meter.Meter, "add"),
    "evaluation": (evaluation, "run"),
    "commit": (checkpoint.Checkpoints, "_digests_when_written"),
}
saving = []


def interrupt(order: str) -> None:
    """Carries out an order such as `KILL:step:5`."""
    name, moment, number = order.split(":")
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1
        if calls == int(number):
            if saving and moment != "commit":
                saving[-1].wait()
            os.kill(os.getpid(), getattr(signal, f"SIG{name}"))

    place, attribute = PLACES[moment]
    original = getattr(place, attribute)

    def counted(*args: Any, **kwargs: Any) -> Any:
        count()
        return original(*args, **kwargs)

    def counted_batches(*args: Any, after_batch: Callable[[], None]) -> Any:
        return original(*args, after_batch=lambda: (count(), after_batch()))

    setattr(place, attribute, counted_batches if moment == "evaluation" else counted)


def remember_checkpoints() -> None:
    initialise = checkpoint.Checkpoints.__init__

    def remembered(self: checkpoint.Checkpoints, *args: Any) -> None:
        initialise(self, *args)
        saving.append(self)

    checkpoint.Checkpoints.__init__ = remembered


if __name__ == "__main__":
    end = sys.argv.index("--")
    remember_checkpoints()
    for order in sys.argv[1:end]:
        interrupt(order)
    sys.argv[1:] = sys.argv[end + 1 :]
    command.run(main.main)
