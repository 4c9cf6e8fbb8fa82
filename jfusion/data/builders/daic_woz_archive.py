"""Puts the files of a DAIC-WOZ session together: one interview, on one clock.

Audio has 100 frames per second and video 30, so both are averaged into `RATE` stretches per second,
by timestamp. Frame n of either is second n / RATE of the interview, and both are as long as the
longest of audio, video and transcript. The interviewer is heard in the participant's microphone, so
audio counts only where the transcript has the participant speak; without a transcript all of it
counts.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jfusion.data.builders import daic_woz_frames as frames
from jfusion.data.builders import daic_woz_transcript as transcripts
from jfusion.data.builders.daic_woz_files import Session
from jfusion.data.builders.daic_woz_frames import AUDIO, CLNF, Frames
from jfusion.data.builders.daic_woz_labels import Participant
from jfusion.data.builders.daic_woz_transcript import Transcript

RATE = 10
"""Frames per second of an interview as it is built."""


@dataclass(frozen=True)
class Interview:
    """One session.

    Attributes:
        transcript: The participant's words; empty if there are none.
        interviewer: The interviewer's words, likewise.
        audio: float32 [frames, 74], see `AUDIO`; NaN where nothing is known; None if that is
            everywhere.
        video: float32 [frames, 38], see `VIDEO`, likewise.
        infinite: How many numbers in the files were infinite, by modality.
    """

    transcript: str
    interviewer: str
    audio: np.ndarray | None
    video: np.ndarray | None
    infinite: Mapping[str, int] = field(default_factory=dict)

    def is_empty(self) -> bool:
        """Whether there is nothing that a score could be told from."""
        return not self.transcript and self.audio is None and self.video is None


def read(session: Session) -> Interview:
    """Reads the files of a session that are there.

    Raises:
        BrokenFile: A file is there and cannot be used.
    """
    file = session.read("TRANSCRIPT.csv")
    said = transcripts.read(file, session.id) if file else Transcript("", "", (), 0.0)
    file = session.read("COVAREP.csv")
    audio = frames.read_covarep(file) if file else None
    video = {}
    for part in CLNF:
        if file := session.read(f"CLNF_{part}.txt", f"CLNF_{part}.csv"):
            video[part] = frames.read_clnf(file, part)
    if audio and said.turns:
        audio.values[~_within(audio.times + 0.5 / frames.AUDIO_RATE, said.turns)] = np.nan
    known = [*([audio] if audio else []), *video.values()]
    end = max([said.end, *(part.end for part in known)])
    steps = math.ceil(end * RATE - 1e-2)  # times are rounded in the files
    infinite = {"audio": audio.infinite if audio else 0}
    infinite["video"] = sum(part.infinite for part in video.values())
    return Interview(
        transcript=said.participant,
        interviewer=said.interviewer,
        audio=_sequence({"": audio} if audio else {}, {"": AUDIO}, steps, session.id),
        video=_sequence(video, CLNF, steps, session.id),
        infinite=infinite,
    )


def summary(
    people: Iterable[Participant], interviews: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What a split consists of, ready for JSON.

    Args:
        people: All that are listed in it.
        interviews: Those that were built: id -> what `facts` said of it.
    """
    people = list(people)
    there = [interviews[person.id] for person in people if person.id in interviews]
    missing = {
        f"without_{name}": sum(not facts[name] for facts in there)
        for name in ("transcript", "interviewer", "audio", "video")
    }
    return {
        "sessions": len(there),
        **missing,
        "without_score": sum(p.phq8 is None for p in people if p.id in interviews),
        "absent": [person.id for person in people if person.id not in interviews],
        "infinite": {
            person.id: facts["infinite"]
            for person in people
            if (facts := interviews.get(person.id)) and any(facts["infinite"].values())
        },
        "binary_differs": [person.id for person in people if person.binary_differs],
        "items_differ": [person.id for person in people if person.items_differ],
    }


def facts(interview: Interview) -> dict[str, Any]:
    """What `summary` needs of an interview, without its arrays."""
    return {
        "transcript": bool(interview.transcript),
        "interviewer": bool(interview.interviewer),
        "audio": interview.audio is not None,
        "video": interview.video is not None,
        "infinite": dict(interview.infinite),
    }


def _sequence(
    files: Mapping[str, Frames], features: Mapping[str, tuple[str, ...]], steps: int, session: str
) -> np.ndarray | None:
    """The files side by side on the grid; NaN for one that is missing, None if nothing is known."""
    parts = [
        frames.on_grid(files[part], RATE, steps)
        if part in files
        else np.full((steps, len(names)), np.nan, np.float32)
        for part, names in features.items()
    ]
    grid = np.concatenate(parts, axis=1)
    if session in transcripts.INTERRUPTIONS:
        come, gone = transcripts.INTERRUPTIONS[session]
        grid[int(come * RATE) : math.ceil(gone * RATE)] = np.nan
    return None if np.isnan(grid).all() else grid


def _within(times: np.ndarray, turns: Iterable[tuple[float, float]]) -> np.ndarray:
    """bool [times]: whether each lies in one of the turns. The times ascend."""
    inside = np.zeros(len(times), bool)
    for start, stop in turns:
        first, last = np.searchsorted(times, (start, stop))
        inside[first:last] = True
    return inside
