"""Paths in cells: which file a cell names, and that it lies where it may."""

from pathlib import Path

from jfusion.data.copies import shown
from jfusion.data.problems import BadCell


def inside(cell: str, root: Path | None, kind: str) -> Path:
    """The real path of a cell, which must be a file within the root.

    Args:
        cell: The path, relative to the root.
        root: The folder that paths may not leave; None where the data set has none.
        kind: What the file holds, for messages: `picture`.

    Raises:
        BadCell: There is no such file within the root.
    """
    if root is None:
        raise BadCell(f"{cell!r} is a path, but the data set has no {kind} folder")
    try:
        base = root.resolve()
        path = (base / cell).resolve()
        found = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:
        raise BadCell(f"{cell!r} is no usable path: {error}") from None
    if not path.is_relative_to(base):
        raise BadCell(
            f"{cell!r} is outside the data folder {shown(base)}; set data.root to a folder that "
            f"holds all {kind}s"
        )
    if not found:
        raise BadCell(f"no file {cell!r} in {shown(base)}")
    return path
