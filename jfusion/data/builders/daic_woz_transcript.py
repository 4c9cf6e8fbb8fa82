"""Reads a transcript of DAIC-WOZ: who said what, and when the participant spoke.

Left out are

- everything before the interviewer's first words: technicians and the participant talk then, and
  are all called Participant. Three sessions (451, 458, 480) have no interviewer; nothing of them
  is left out;
- two interruptions, whole;
- what is no word: `<laughter>` and other tags, what was pronounced of a word that was cut off
  (`people <peop>`: the word stays), markers of synchronisation (`[sync]`), `xxx` for what could not
  be understood, and `scrubbed_entry` for what names a person.

Times become those of the audio file, which four transcripts do not follow.
"""

import math
import re
from dataclasses import dataclass

from jfusion.data.builders.daic_woz_files import BrokenFile, File

OFFSETS = {"318": 34.32, "321": 3.84, "341": 6.19, "362": 16.86}
"""Session -> seconds from the clock of its transcript to that of its audio."""
INTERRUPTIONS = {"373": (395.0, 428.0), "444": (286.0, 387.0)}
"""Session -> the seconds in which somebody came in."""
LONGEST = 2 * 60 * 60
"""Seconds that no interview reaches (the longest has 33 minutes): a later time is an error."""

_HEADER = ["start_time", "stop_time", "speaker", "value"]
_LAST_PLAIN = 363  # after this session the interviewer's lines are `utterance_id (what it says)`
_UTTERANCE = re.compile(r"\S+\s+\((.*?)\)?", re.DOTALL)
_SYNC = re.compile(r"[<\[]\s*sync[^>\]]*[>\]]?", re.IGNORECASE)
_NO_WORD = re.compile(
    r"<[^<>]*>|\[[^\[\]]*\]"  # tags
    r"|<\S*|\S*>"  # and those that were not closed or not opened
    r"|\bxxx\b|\bscrubbed_entry\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Transcript:
    """What was said in an interview.

    Attributes:
        participant: The participant's words, a line per turn; empty if there are none.
        interviewer: The interviewer's words, likewise.
        turns: (start, stop) of what the participant utters, with or without words, in seconds of
            the audio file.
        end: When the last line stops, likewise.
    """

    participant: str
    interviewer: str
    turns: tuple[tuple[float, float], ...]
    end: float


@dataclass(frozen=True)
class _Line:
    start: float
    stop: float
    ellie: bool
    words: str


def read(file: File, session: str) -> Transcript:
    """Reads the transcript of a session.

    Raises:
        BrokenFile: It is not a transcript, or a line of it is broken.
    """
    lines = _lines(file, session)
    first = next((n for n, line in enumerate(lines) if line.ellie and line.words), 0)
    come, gone = INTERRUPTIONS.get(session, (math.inf, math.inf))
    kept = [line for line in lines[first:] if line.stop <= come or line.start >= gone]
    return Transcript(
        participant="\n".join(line.words for line in kept if line.words and not line.ellie),
        interviewer="\n".join(line.words for line in kept if line.words and line.ellie),
        turns=tuple((line.start, line.stop) for line in kept if not line.ellie),
        end=max((line.stop for line in lines), default=0.0),
    )


def _lines(file: File, session: str) -> list[_Line]:
    """Every line in which somebody utters something, in order."""
    # A few bytes that are no UTF-8 are not worth the session.
    header, *rows = re.split(r"\r\n|\n|\r", file.data.decode("utf-8-sig", "replace"))
    if [name.strip() for name in header.split("\t")] != _HEADER:
        reason = f"the first line is {header[:80]!r}, not {' '.join(_HEADER)} between tabs"
        raise BrokenFile(file.name, 1, ", ".join(_HEADER), reason)
    lines, offset = [], OFFSETS.get(session, 0.0)
    for number, row in enumerate(rows, start=2):
        cells = [cell.strip() for cell in row.split("\t", 3)]
        if len(cells) < 3 and any(cells):
            reason = f"{len(cells)} cells instead of 4"
            raise BrokenFile(file.name, number, ", ".join(_HEADER), reason)
        if not any(cells[3:]) or _SYNC.fullmatch(cells[3]):
            continue  # nothing is said
        start, stop = (_time(file, number, column, cells) + offset for column in (0, 1))
        speaker = cells[2].casefold()
        if speaker not in ("ellie", "participant"):
            reason = f"{cells[2]!r} is neither Ellie nor Participant"
            raise BrokenFile(file.name, number, _HEADER[2], reason)
        ellie = speaker == "ellie"
        value = cells[3]
        if ellie and int(session) > _LAST_PLAIN and (match := _UTTERANCE.fullmatch(value)):
            value = match[1]
        lines.append(_Line(start, stop, ellie, " ".join(_NO_WORD.sub(" ", value).split())))
    return lines


def _time(file: File, number: int, column: int, cells: list[str]) -> float:
    try:
        seconds = float(cells[column])
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= LONGEST:
        reason = f"{cells[column]!r} is not a time from 0 to {LONGEST} seconds"
        raise BrokenFile(file.name, number, _HEADER[column], reason)
    return seconds
