"""A made-up corpus with the layout of DAIC-WOZ and every oddity that the real one has.

write(folder) -> folder/300_P/300_TRANSCRIPT.csv, ..., folder/303_P.zip, folder/train_split_...csv

Words, voice and face follow the score a little, so that there is something to learn.
"""

import io
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow
from pyarrow import csv

SESSIONS = {"train": 14, "dev": 5, "test": 5}
ODD = {
    "train": {
        "offset": 318,
        "interruption": 373,
        "video_stops": 402,
        "binary_differs": 409,
        "zipped": 303,
        "no_video": 304,
        "no_audio": 305,
        "no_transcript": 306,
        "blank_item": 307,
        "empty": 308,
        "absent": 309,
    },
    "dev": {"infinite": 310, "scrubbed": 311, "csv": 312, "items_differ": 314},
    "test": {"no_interviewer": 451, "no_gaze": 313},
}
"""Split -> oddity -> the session that has it."""
ITEMS = (
    *("NoInterest", "Depressed", "Sleep", "Tired"),
    *("Appetite", "Failure", "Concentrating", "Moving"),
)
CHATTER = "is this thing on"
ASKED = "how are you doing today"
CLNF = {
    "gaze": [f"{axis}_{eye}" for eye in ("0", "1", "h0", "h1") for axis in "xyz"],
    "pose": ["X", "Y", "Z", "Rx", "Ry", "Rz"],
    "AUs": [
        *(f"AU{n:02d}_r" for n in (1, 2, 4, 5, 6, 9, 10, 12, 14, 15, 17, 20, 25, 26)),
        *(f"AU{n:02d}_c" for n in (4, 12, 15, 23, 28, 45)),
    ],
}
START = 4.0  # second of the audio at which the interviewer begins
OFFSET = 34.32  # what the transcript of 318 lacks
INTERRUPTION = (395.0, 428.0)  # of 373

_WELL = ("good", "happy", "family", "friends", "fun")
_ILL = ("tired", "alone", "sad", "nothing", "hard")


def write(
    folder: Path,
    sessions: Mapping[str, int] = SESSIONS,
    seconds: float = 20.0,
    scored_test: bool = False,
    seed: int = 0,
) -> dict[str, str]:
    """Writes the corpus.

    Args:
        folder: Where the sessions and label files go; made if it is not there.
        sessions: How many are listed in `train`, `dev` and `test`. The first of each are the odd
            ones, as many as fit.
        seconds: Length of an interview, at least 12; some of the odd ones are longer.
        scored_test: Whether there is `full_test_split.csv`.
        seed: Another seed, other interviews.

    Returns:
        Oddity -> id of the session that has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    odd = {
        str(key): oddity
        for split, count in sessions.items()
        for oddity, key in list(ODD[split].items())[:count]
    }
    taken = {key for oddities in ODD.values() for key in oddities.values()}
    ordinary = (key for key in range(300, 1000) if key not in {342, 394, 398, 460} | taken)
    for split, count in sessions.items():
        ids = list(ODD[split].values())[:count]
        ids += [next(ordinary) for _ in range(count - len(ids))]
        people = []
        for key in ids:
            rng = np.random.default_rng([seed, key])
            items = rng.binomial(3, rng.random(), 8)
            people.append((key, items, int(rng.integers(2))))
            oddity = odd.get(str(key), "")
            if oddity == "binary_differs":
                items[:] = (2, 2, 1, 1, 1, 1, 1, 1)  # 10
            if oddity != "absent":
                _write_session(folder, str(key), oddity, int(items.sum()), seconds, rng)
        _write_labels(folder, split, people, odd, scored_test)
    return {oddity: key for key, oddity in odd.items()}


def covarep(rng: np.random.Generator, frames: int, score: int) -> np.ndarray:
    """float64 [frames, 74]: half of the time a voice, the lower the score the higher."""
    values = rng.normal(size=(frames, 74))
    voiced = np.repeat(rng.random(frames // 25 + 1) < 0.7, 25)[:frames]
    values[:, 0] = 220 - 4 * score + 10 * values[:, 0]
    values[:, 1] = voiced
    values[~voiced, 0] = 0
    values[~voiced, 2:10] = 0
    return np.round(values, 4)


def clnf(rng: np.random.Generator, frames: int, part: str, score: int) -> np.ndarray:
    """float64 [frames, 4 + features]; every tenth frame without success, or of low confidence."""
    names = CLNF[part]
    values = rng.normal(size=(frames, len(names)))
    if part == "AUs":
        values = np.clip(values + (24 - score) / 12, 0, 5)
        classes = [place for place, name in enumerate(names) if name.endswith("_c")]
        values[:, classes] = values[:, classes] > 1
    success = np.arange(frames) % 20 != 10
    confidence = np.where(np.arange(frames) % 20 == 0, 0.3, 0.95)
    values[~success] = 0
    prefix = [np.arange(1, frames + 1), np.arange(frames) / 30, confidence, success]
    return np.round(np.column_stack([*prefix, values]), 4)


def numbers(values: np.ndarray, whole: int = 0) -> bytes:
    """Comma-separated lines; infinities are written as inf. The first columns are whole numbers."""
    columns = [
        pyarrow.array(column.astype(np.int64) if place < whole else column)
        for place, column in enumerate(values.T)
    ]
    file = io.BytesIO()
    table = pyarrow.table(columns, names=[str(place) for place in range(len(columns))])
    csv.write_csv(table, file, csv.WriteOptions(include_header=False))
    return file.getvalue()


def clnf_file(
    values: np.ndarray, part: str, padded: bool = True, success: str = "success"
) -> bytes:
    """The file of the face tracker: padded, as it mostly is, or not."""
    names = ["frame", "timestamp", "confidence", success, *CLNF[part]]
    text = ",".join(names).encode() + b"\n" + numbers(values, whole=1)
    return text.replace(b",", b", ") if padded else text


def transcript(lines: list[tuple[float, float, str, str]]) -> bytes:
    """The file of these lines: start, stop, speaker, what is said."""
    rows = ["start_time\tstop_time\tspeaker\tvalue"]
    rows += [f"{start:.3f}\t{stop:.3f}\t{who}\t{said}" for start, stop, who, said in lines]
    return "\n".join([*rows, ""]).encode()


def _write_session(
    folder: Path, key: str, oddity: str, score: int, seconds: float, rng: np.random.Generator
) -> None:
    start = START + (40 if oddity == "offset" else 0)
    end = start + seconds
    frames = round(end * 100)
    files = {"AUDIO.wav": b"RIFF"}
    audio = covarep(rng, frames, score)
    if oddity == "infinite":
        audio[700:705, 11] = -np.inf
        audio[705, 40:42] = np.inf
        audio[710, 12] = np.nan
    if oddity == "scrubbed":
        audio[800:850] = 0
    files["COVAREP.csv"] = numbers(audio)
    lines = _conversation(key, start, end, score, random.Random(int(key)))
    if oddity == "interruption":
        lines += [
            (390.0, 394.0, "Participant", "just before"),
            (396.0, 400.0, "Participant", "somebody knocks"),
            (401.0, 405.0, "Ellie", "not_me (not me)"),
            (429.0, 433.0, "Participant", "right after"),
        ]
        end = 433.0
    if oddity == "offset":
        lines = [(a - OFFSET, b - OFFSET, *rest) for a, b, *rest in lines]
    if oddity == "no_interviewer":
        lines = [line for line in lines if line[2] == "Participant"]
    if oddity == "scrubbed":
        lines.append((end - 1, end, "Participant", "my name is scrubbed_entry"))
    files["TRANSCRIPT.csv"] = transcript(lines)
    for part in CLNF:
        values = clnf(rng, round(30 * (end - (8 if oddity == "video_stops" else 0))), part, score)
        if oddity == "csv":
            name = "detection_success" if part == "AUs" else "success"
            files[f"CLNF_{part}.csv"] = clnf_file(values, part, padded=False, success=name)
        else:
            files[f"CLNF_{part}.txt"] = clnf_file(values, part)
    lacking = {
        "no_video": [name for name in files if name.startswith("CLNF")],
        "no_audio": ["COVAREP.csv"],
        "no_transcript": ["TRANSCRIPT.csv"],
        "no_gaze": ["CLNF_gaze.txt"],
        "empty": [name for name in files if name != "AUDIO.wav"],
    }
    for name in lacking.get(oddity, []):
        del files[name]
    if oddity == "zipped":
        with zipfile.ZipFile(folder / f"{key}_P.zip", "w", zipfile.ZIP_DEFLATED) as packed:
            for name, data in files.items():
                packed.writestr(f"{key}_{name}", data)
        return
    (folder / f"{key}_P").mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / f"{key}_P" / f"{key}_{name}").write_bytes(data)


def _conversation(
    key: str, start: float, end: float, score: int, rng: random.Random
) -> list[tuple[float, float, str, str]]:
    """Chatter, a marker, then question and answer, 2 and 4 seconds long."""
    lines = []
    if int(key) not in (451, 458, 480):
        lines.append((start - 3.5, start - 2.5, "Participant", CHATTER))
        lines.append((start - 2, start - 1.5, "Ellie", rng.choice(["<sync>", "[sync]", "[synch]"])))
    now = start
    while now + 6 <= end:
        asked = f"how_are_{len(lines)} ({ASKED})" if int(key) > 363 else ASKED
        words = [rng.choice(_ILL if rng.random() < score / 24 else _WELL) for _ in range(8)]
        words.insert(3, rng.choice(["<laughter>", "xxx", "people <peop>", "[laughter]"]))
        lines.append((now, now + 2, "Ellie", asked))
        lines.append((now + 2, now + 6, "Participant", " ".join(words)))
        now += 6
    return lines


def _write_labels(
    folder: Path,
    split: str,
    people: list[tuple[int, np.ndarray, int]],
    odd: Mapping[str, str],
    scored_test: bool,
) -> None:
    scored, plain, full = [], [], []
    for key, items, gender in people:
        oddity = odd.get(str(key))
        score = int(items.sum())
        binary = int(score >= 10 and oddity != "binary_differs")
        cells = [str(item) for item in items]
        if oddity == "blank_item":
            cells[2] = ""
        if oddity == "items_differ":
            cells[0] = str((items[0] + 1) % 4)
        scored.append([key, binary, score, gender, *cells])
        plain.append([key, gender])
        full.append([key, binary, score, gender])
    name = f"{split}_split_Depression_AVEC2017.csv"
    if split == "test":
        _write_csv(folder / name, ["participant_ID", "Gender"], plain)
        if scored_test:
            header = ["Participant_ID", "PHQ_Binary", "PHQ_Score", "Gender"]
            _write_csv(folder / "full_test_split.csv", header, full)
    else:
        header = ["Participant_ID", "PHQ8_Binary", "PHQ8_Score", "Gender"]
        _write_csv(folder / name, [*header, *(f"PHQ8_{item}" for item in ITEMS)], scored)


def _write_csv(file: Path, header: list[str], rows: list[list]) -> None:
    lines = [",".join(map(str, row)) for row in [header, *rows]]
    file.write_text("\r\n".join([*lines, ""]), newline="")
