"""The checkpoints of a run in a bucket, which processes without a common disk write together.

A checkpoint there is a folder of files and their digests, which are sent last: it counts once all
of them are there. What one process has sent is a checkpoint; of several, each sends the parts of
the arrays that lie on its devices, and together these are one that any number can restore.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

from jfusion.bucket import Folder
from jfusion.training import digests

_STEPS, _FROZEN, _DAMAGED = "checkpoints", "frozen", "damaged"

# What Orbax keeps about a checkpoint, which changes until the very end and so has no digest.
_ABOUT = ("_CHECKPOINT_METADATA",)


class Stored:
    """The folders `checkpoints/<step>` and `frozen/<phase>` of a run in a bucket.

    Args:
        folder: The run's folder.
        keep: How many of the newest checkpoints stay, besides the best.
    """

    def __init__(self, folder: Folder, keep: int):
        self._folder, self._keep = folder, keep

    def steps(self) -> list[int]:
        """The steps of all whole checkpoints."""
        return _whole(self._found(_STEPS))

    def has_frozen(self, phase: int) -> bool:
        """Whether the frozen parameters of a phase are there."""
        return digests.are_all(self._found(_FROZEN).get(str(phase), ()))

    def clean(self) -> None:
        """Removes what processes that were killed had begun to send."""
        for kind in (_STEPS, _FROZEN):
            for name, names in self._found(kind).items():
                if not digests.are_all(names):
                    self._remove(f"{kind}/{name}", names)

    def fetch(self, folder: Path) -> None:
        """Completes the local folder of a checkpoint, or of frozen parameters, by what it lacks."""
        place = f"{folder.parent.name}/{folder.name}"
        names = [name.removeprefix(f"{place}/") for name in self._folder.list(place)]
        lacking = [f"{place}/{name}" for name in names if not (folder / name).is_file()]
        self._folder.get(lacking, folder.parent.parent)

    def send(self, folder: Path, names: Collection[str], at: str) -> None:
        """Sends files of a local folder to `checkpoints/<step>` or `frozen/<phase>`."""
        about = [name for name in _ABOUT if (folder / name).is_file()]
        self._folder.put([*about, *names], folder, at)

    def prune(self, best: int) -> None:
        """Removes whole checkpoints that are neither among the newest nor the best.

        Those that are not whole are still being sent.
        """
        found = self._found(_STEPS)
        for step in _whole(found)[: -self._keep]:
            if step != best:
                self._remove(f"{_STEPS}/{step}", found[str(step)])

    def set_aside(self, step: int) -> str:
        """Moves a damaged checkpoint out of the way; returns where to."""
        aside = f"{_DAMAGED}/{step}"
        self._folder.remove(self._folder.list(aside))
        self._folder.move(f"{_STEPS}/{step}", aside)
        return f"{self._folder.url}/{aside}"

    def _found(self, kind: str) -> dict[str, list[str]]:
        """The files of each folder of a kind, by their paths in it."""
        found: dict[str, list[str]] = {}
        for name in self._folder.list(kind):
            _, folder, *rest = name.split("/", 2)
            if rest and folder.isdecimal():
                found.setdefault(folder, []).append(rest[0])
        return found

    def _remove(self, place: str, names: Collection[str]) -> None:
        self._folder.remove(f"{place}/{name}" for name in names)


def _whole(found: Mapping[str, Collection[str]]) -> list[int]:
    return sorted(int(step) for step, names in found.items() if digests.are_all(names))
