"""What Orbax saves with: into a folder that all processes share, or into one of each process."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import PreservationPolicy

# Each process writes into a folder of its own, and every part of an array as a file of its own, so
# that the files of all processes together are one checkpoint.
_EACH = ocp.options.MultiprocessingOptions(primary_host=None)
_STATE = {"multiprocessing_options": _EACH, "use_ocdbt": False}
# In the background, each would take the others' word that its own folders are there.
_AT_ONCE = {"create_directories_asynchronously": False}
# What Orbax warns of at each such save, although it is meant to be so.
_EXPECTED = ("Skipping merge of OCDBT", "Global object size logging disabled")


class NewestAndBest(PreservationPolicy):
    """Which checkpoints stay.

    Attributes:
        keep: How many of the newest.
        best: The step of another one, or -1.
    """

    def __init__(self, keep: int):
        self.keep, self.best = keep, -1

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """Whether each of some checkpoints stays, from the oldest to the newest."""
        old = len(checkpoints) - self.keep
        return [i >= old or info.step == self.best for i, info in enumerate(checkpoints)]


def manager(
    folder: Path, policy: NewestAndBest, when_written: Callable[[], None], apart: bool
) -> ocp.CheckpointManager:
    """What saves state, data position and progress as one checkpoint.

    Args:
        folder: The folder of all checkpoints.
        policy: Which of them stay.
        when_written: Called in the background once all files of one are written: in the first
            process, or in each of them if each has its own folder.
        apart: Whether each has its own folder.
    """
    if not apart:
        background = ocp.AsyncOptions(post_finalization_callback=when_written)
        options = ocp.CheckpointManagerOptions(preservation_policy=policy, async_options=background)
        return ocp.CheckpointManager(folder, options=options)
    logging.getLogger("absl").addFilter(_is_unexpected)
    folder.mkdir(parents=True, exist_ok=True)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policy,
        async_options=ocp.AsyncOptions(post_finalization_callback=when_written, **_AT_ONCE),
        multiprocessing_options=_EACH,
        create=False,
    )
    # What there is one of is written by the first process, as it is elsewhere.
    handlers = {
        "state": ocp.StandardCheckpointHandler(**_STATE),
        "data": ocp.JsonCheckpointHandler(),
        "progress": ocp.JsonCheckpointHandler(),
    }
    return ocp.CheckpointManager(folder, options=options, item_handlers=handlers)


def checkpointer(apart: bool) -> ocp.StandardCheckpointer:
    """What saves a tree of arrays; see `manager`."""
    if not apart:
        return ocp.StandardCheckpointer()
    return ocp.StandardCheckpointer(async_options=ocp.AsyncOptions(**_AT_ONCE), **_STATE)


def _is_unexpected(record: logging.LogRecord) -> bool:
    return not any(text in str(record.msg) for text in _EXPECTED)
