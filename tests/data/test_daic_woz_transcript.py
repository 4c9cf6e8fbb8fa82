import pytest

from jfusion.data.builders import daic_woz_transcript
from jfusion.data.builders.daic_woz_files import BrokenFile, File
from tests.standins import daic_woz as standin


def said(session, *lines):
    return daic_woz_transcript.read(File("T.csv", standin.transcript(list(lines))), session)


def test_offsets_and_interruptions_are_those_of_the_corpus():
    lines = [(10, 12, "Ellie", "hi"), (280, 290, "Participant", "at the edge")]
    lines += [(300, 310, "Participant", "within"), (387, 390, "Participant", "after")]
    for session, offset in {"318": 34.32, "321": 3.84, "341": 6.19, "362": 16.86}.items():
        assert said(session, *lines).turns[0] == pytest.approx((280 + offset, 290 + offset))
        assert said(session, *lines).end == pytest.approx(390 + offset)
    assert said("300", *lines).turns == ((280, 290), (300, 310), (387, 390))
    assert said("444", *lines).turns == ((387, 390),)
    assert said("444", *lines).participant == "after"
    assert said("373", *lines).turns == said("300", *lines).turns


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("<laughter> well <sigh", "well"),
        ("i was people <peop> person", "i was people person"),
        ("laughter> [laughter] fine", "fine"),
        ("xxx and XXX maxxxed", "and maxxxed"),
        ("my name is scrubbed_entry thanks", "my name is thanks"),
        ("<laughter>", ""),
    ],
)
def test_what_is_no_word_is_left_out(value, words):
    read = said("300", (1, 2, "Ellie", "hi"), (3, 4, "Participant", value))
    assert read.participant == words
    assert read.turns == ((3, 4),)


def test_chatter_and_markers_do_not_count():
    read = said(
        "300",
        (0, 1, "Participant", "are we on"),
        (1, 2, "Ellie", "<synch>"),
        (2, 3, "Participant", "[syncing]"),
        (3, 4, "Participant", "go ahead"),
        (4, 5, "Ellie", "<laughter>"),
        (4, 5, "Participant", "now"),
        (5, 6, "Ellie", "hi"),
        (6, 7, "Participant", "[sync]"),
        (7, 8, "participant ", "hello"),
        (8, 9, "Participant", ""),
    )
    assert (read.participant, read.interviewer) == ("hello", "hi")
    assert read.turns == ((7, 8),)
    alone = said("451", (0, 1, "Participant", "<sync>"), (3, 4, "Participant", "go ahead"))
    assert (alone.participant, alone.interviewer) == ("go ahead", "")


def test_utterance_ids_are_left_out_above_363():
    lines = [(0, 1, "Ellie", "how_are_you (how (are) you)"), (1, 2, "Ellie", "yeah")]
    assert said("364", *lines).interviewer == "how (are) you\nyeah"
    assert said("363", *lines).interviewer == "how_are_you (how (are) you)\nyeah"


@pytest.mark.parametrize(
    ("data", "line", "column", "reason"),
    [
        (b"a,b\n", 1, "start_time, stop_time, speaker, value", "the first line is 'a,b'"),
        (b"", 1, "start_time, stop_time, speaker, value", "the first line is ''"),
        (b"1\t2\n", 3, "start_time, stop_time, speaker, value", "2 cells instead of 4"),
        (b"1\tx\tEllie\thi\n", 3, "stop_time", "'x' is not a time"),
        (b"1\t8000\tEllie\thi\n", 3, "stop_time", "'8000' is not a time"),
        (b"1\t2\tBob\thi\n", 3, "speaker", "'Bob' is neither Ellie nor Participant"),
    ],
)
def test_a_broken_line_of_a_transcript_is_named(data, line, column, reason):
    good = standin.transcript([(0, 1, "Ellie", "hi")])
    with pytest.raises(BrokenFile) as error:
        daic_woz_transcript.read(File("T.csv", good + data if line > 1 else data), "300")
    problem = error.value.problem
    assert (problem.file, problem.row, problem.column) == ("T.csv", f"line {line}", column)
    assert problem.reason.startswith(reason)
