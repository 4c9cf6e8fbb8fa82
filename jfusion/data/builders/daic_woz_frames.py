"""Reads the features per frame of DAIC-WOZ: COVAREP of the audio, CLNF of the video.

Elements that must not be used become NaN:

- a frame of audio in which every number is zero: a name was cut out of it;
- what describes a voice (`_VOICE`) in a frame without one (VUV is not 1); the spectrum stays;
- a frame of video in which the face was not found, or with a confidence below `CONFIDENCE`;
- infinite numbers, which are counted.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow
from pyarrow import csv

from jfusion.data.builders.daic_woz_files import BrokenFile, File
from jfusion.data.builders.daic_woz_transcript import LONGEST

AUDIO = (
    *("F0", "VUV", "NAQ", "QOQ", "H1H2", "PSP", "MDQ", "peakSlope", "Rd", "Rd_conf", "creak"),
    *(f"MCEP_{n}" for n in range(25)),
    *(f"HMPDM_{n}" for n in range(25)),
    *(f"HMPDD_{n}" for n in range(13)),
)
"""COVAREP's features by the column of the file, which has no header."""
AUDIO_RATE = 100
"""Frames per second of COVAREP."""

_GAZE = tuple(f"{axis}_{eye}" for eye in ("0", "1", "h0", "h1") for axis in "xyz")
_POSE = ("X", "Y", "Z", "Rx", "Ry", "Rz")
_UNITS = (
    *(f"AU{n:02d}_r" for n in (1, 2, 4, 5, 6, 9, 10, 12, 14, 15, 17, 20, 25, 26)),
    *(f"AU{n:02d}_c" for n in (4, 12, 15, 23, 28, 45)),
)
CLNF = {"gaze": _GAZE, "pose": _POSE, "AUs": _UNITS}
"""Part of the name of a file -> its features, by the names in its header."""
VIDEO = (
    *(f"gaze_{name}" for name in _GAZE),
    *(f"pose_{name}" for name in _POSE),
    *_UNITS,
)
"""All features of the three files."""
VIDEO_DEFAULT = (
    # How the head turns, nods and tilts, and where the eyes look from there (both eyes look the
    # same way, so one of them does): little movement and a lowered look go with depression.
    *("pose_Rx", "pose_Ry", "pose_Rz", "gaze_x_h0", "gaze_y_h0"),
    # Strengths of a smile (AU 6 and 12), and of brows, corners of the mouth and chin in sadness.
    *("AU06_r", "AU12_r", "AU04_r", "AU15_r", "AU17_r"),
)
"""Ten features of the face that do not depend on how far from the camera it was."""
CONFIDENCE = 0.7
"""The least confidence of a usable frame; the tracker's own range is 0 to 1."""

_VOICE = [AUDIO.index(name) for name in AUDIO[:10] if name != "VUV"]  # all before `creak`
_VUV = AUDIO.index("VUV")
_SUCCESS = ("success", "detection_success")
_VIDEO_FRAME = 1 / 30  # seconds
_NOT_A_NUMBER = ["", "nan", "NaN", "NAN", "-nan", "-NaN", "-nan(ind)", "nan(ind)", "-1.#IND"]


@dataclass(frozen=True)
class Frames:
    """The content of a file.

    Attributes:
        times: float64 [frames], when each begins, in seconds.
        values: float [frames, features]; NaN where they must not be used.
        end: When the last one ends.
        infinite: How many numbers of the file were infinite.
    """

    times: np.ndarray
    values: np.ndarray
    end: float
    infinite: int


def read_covarep(file: File) -> Frames:
    """Reads the audio's features: `AUDIO`.

    Raises:
        BrokenFile: A line does not hold 74 numbers.
    """
    values = _read_numbers(file, AUDIO, AUDIO, header=False)
    removed = (values == 0).all(axis=1)
    infinite = _mask_infinite(values)
    unvoiced = values[:, _VUV] != 1
    values[np.ix_(unvoiced, _VOICE)] = np.nan
    values[removed] = np.nan
    times = np.arange(len(values)) / AUDIO_RATE
    return Frames(times, values, len(values) / AUDIO_RATE, infinite)


def read_clnf(file: File, part: str) -> Frames:
    """Reads features of the face.

    Args:
        file: The file.
        part: Which of `CLNF`.

    Raises:
        BrokenFile: A column is missing, or a line does not hold as many numbers as the header.
    """
    first = file.data.partition(b"\n")[0].decode("utf-8-sig", "replace")
    header = [name.strip() for name in first.split(",")]
    success = next((name for name in _SUCCESS if name in header), _SUCCESS[0])
    wanted = ("timestamp", "confidence", success, *CLNF[part])
    if missing := [name for name in wanted if header.count(name) != 1]:
        reason = "is not in the header, or more than once"
        raise BrokenFile(file.name, 1, ", ".join(missing), reason)
    table = _read_numbers(file, header, wanted, header=True)
    times, confidence, success, values = table[:, 0], table[:, 1], table[:, 2], table[:, 3:]
    wrong = np.flatnonzero(~((times >= 0) & (times <= LONGEST)))
    if len(wrong):
        reason = f"{times[wrong[0]]} is not a time from 0 to {LONGEST} seconds"
        raise BrokenFile(file.name, int(wrong[0]) + 2, "timestamp", reason)
    infinite = _mask_infinite(values)
    values[~((success == 1) & (confidence >= np.float32(CONFIDENCE)))] = np.nan
    return Frames(times, values, times.max(initial=-_VIDEO_FRAME) + _VIDEO_FRAME, infinite)


def on_grid(frames: Frames, rate: int, steps: int) -> np.ndarray:
    """Averages over equal stretches of time.

    Args:
        frames: At any times, in any order.
        rate: Stretches per second.
        steps: How many, from second 0 on.

    Returns:
        float32 [steps, features]: the mean of the usable elements whose frames begin in the
        stretch, NaN where there are none.
    """
    # A frame that begins with a stretch is in it, whatever the times were rounded to.
    places = np.floor(frames.times * rate + 1e-3).astype(np.int64)
    inside = places < steps
    order = np.flatnonzero(inside)[np.argsort(places[inside], kind="stable")]
    values, places = frames.values[order], places[order]
    grid = np.full((steps, values.shape[1]), np.nan, np.float32)
    if not len(places):
        return grid
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    usable = np.isfinite(values)
    counts = np.add.reduceat(usable, starts, axis=0, dtype=np.int64)
    sums = np.add.reduceat(np.where(usable, values, 0), starts, axis=0, dtype=np.float64)
    means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    grid[places[starts]] = means
    return grid


def _mask_infinite(values: np.ndarray) -> int:
    """Makes NaN of infinite numbers; returns how many there were."""
    infinite = np.isinf(values)
    values[infinite] = np.nan
    return int(infinite.sum())


def _read_numbers(
    file: File, names: Sequence[str], wanted: Sequence[str], header: bool
) -> np.ndarray:
    """Some columns of a file of numbers: [lines, wanted], NaN where nothing stands."""
    types = dict.fromkeys(wanted, pyarrow.float32())
    if "timestamp" in types:
        types["timestamp"] = pyarrow.float64()
    try:
        table = csv.read_csv(
            pyarrow.BufferReader(file.data),
            csv.ReadOptions(column_names=list(names), skip_rows=int(header)),
            csv.ParseOptions(quote_char=False),
            csv.ConvertOptions(
                column_types=types,
                include_columns=list(wanted),
                null_values=[pad + word for word in _NOT_A_NUMBER for pad in ("", " ")],
            ),
        )
    except pyarrow.ArrowInvalid as error:
        raise _find_fault(file, names, wanted, header, error) from None
    if not len(table):
        raise BrokenFile(file.name, None, ", ".join(wanted[:1]), "has no frame")
    columns = [table[name].to_numpy() for name in wanted]
    return np.stack(columns, axis=1)


def _find_fault(
    file: File, names: Sequence[str], wanted: Sequence[str], header: bool, error: Exception
) -> BrokenFile:
    """Which line could not be read; the fast reader does not tell."""
    lines = io.BytesIO(file.data)
    for number, line in enumerate(lines, start=1):
        cells = [cell.strip() for cell in line.decode("utf-8", "replace").split(",")]
        if (number == 1 and header) or cells == [""]:
            continue
        if len(cells) != len(names):
            reason = f"{len(cells)} numbers instead of {len(names)}"
            return BrokenFile(file.name, number, f"{names[0]} to {names[-1]}", reason)
        for name, cell in zip(names, cells, strict=True):
            if name in wanted and cell not in _NOT_A_NUMBER and not _is_number(cell):
                return BrokenFile(file.name, number, name, f"{cell[:40]!r} is not a number")
    return BrokenFile(file.name, None, "", f"cannot be read: {error}")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell
