"""What a run says of its data besides bad cells: what was cut, masked, or not known."""

from collections.abc import Mapping

import numpy as np

from jfusion.data.split import InputReader, Split


def lines(split: Split, inputs: Mapping[str, InputReader]) -> list[str]:
    """A line for each modality of a split of which there is something to say.

    Args:
        split: The split; only rows that take part and have the modality count.
        inputs: What read its modalities.
    """
    said = []
    for name, notes in split.notes.items():
        rows = split.keep[split.present[name][split.keep]]
        here = {note: values[rows] for note, values in notes.items()}
        line = ""
        if len(rows) and inputs[name].kind in ("text", "tokens"):
            line = _of_text(here["used"], inputs[name].arrays["ids"][0])
        if len(rows) and inputs[name].kind == "sequence":
            line = _of_sequence(here["valid"], here["infinite"])
        if line:
            said.append(f"{name}: {line}")
    return said


def _of_text(used: np.ndarray, shape: tuple[int, ...]) -> str:
    """Of texts that were cut: their number, and how much of them is left."""
    cut = used[used < 1]
    if not len(cut):
        return ""
    *windows, tokens = shape
    size = f"{windows[0]} windows of {tokens} tokens" if windows else f"{tokens} tokens"
    share = 100 * cut.mean()
    return f"{len(cut):,} of {len(used):,} rows cut to {size} ({share:.0f} % of their text used)"


def _of_sequence(valid: np.ndarray, infinite: np.ndarray) -> str:
    """Of sequences: infinite values, and the share of what is known."""
    said = []
    if infinite.any():
        count, rows = int(infinite.sum()), int((infinite > 0).sum())
        said.append(f"{count:,} infinite values masked in {rows:,} rows")
    if (valid < 1).any():
        said.append(f"{100 * valid.mean():.0f} % of the values known")
    return "; ".join(said)
