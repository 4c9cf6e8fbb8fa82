import csv
import math
import sys

import numpy as np
import pytest

from jfusion.data.builders import daic_woz, daic_woz_archive, daic_woz_files
from jfusion.data.builders.daic_woz_frames import AUDIO, VIDEO, VIDEO_DEFAULT
from jfusion.data.problems import DataError
from jfusion.data.source import Source
from tests.standins import daic_woz as standin

TRAIN, DEV, TEST = daic_woz_files.LABEL_FILES.values()
VOICE = ("F0", "NAQ", "QOQ", "H1H2", "PSP", "MDQ", "peakSlope", "Rd", "Rd_conf")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """(folder, oddity -> id)."""
    folder = tmp_path_factory.mktemp("corpus") / "daic_woz"
    return folder, standin.write(folder)


@pytest.fixture(scope="module")
def built(corpus, tmp_path_factory):
    """(data_dir, the builder)."""
    data_dir = tmp_path_factory.mktemp("tfds")
    return data_dir, daic_woz.build(corpus[0], data_dir)


@pytest.fixture(scope="module")
def splits(built):
    return daic_woz.sources(built[0])


@pytest.fixture(scope="module")
def rows(splits):
    """Id -> row."""
    return {
        row["id"]: row
        for source in splits.values()
        for row in map(source.__getitem__, range(len(source)))
    }


@pytest.fixture(scope="module")
def odd(corpus, rows):
    """Oddity -> the row that has it."""
    return {oddity: rows[key] for oddity, key in corpus[1].items() if key in rows}


@pytest.fixture
def small(tmp_path):
    """A small corpus, to be broken."""
    folder = tmp_path / "daic_woz"
    standin.write(folder, {"train": 2, "dev": 1, "test": 1}, seconds=12)
    return folder


def listed(folder, name):
    with open(folder / name, newline="") as file:
        return list(csv.DictReader(file))


def known(array):
    return ~np.isnan(array)


def test_no_tensorflow_is_imported(splits):
    assert splits["train"][0]["id"]
    assert "tensorflow" not in sys.modules


def test_splits_are_those_of_the_label_files_in_their_order(corpus, splits):
    folder, oddities = corpus
    assert list(splits) == ["train", "val", "test"]
    for (split, source), name in zip(splits.items(), (TRAIN, DEV, TEST), strict=True):
        assert isinstance(source, Source)
        ids = [source[row]["id"] for row in range(len(source))]
        column = "participant_ID" if split == "test" else "Participant_ID"
        there = [row[column] for row in listed(folder, name)]
        assert ids == [key for key in there if key not in (oddities["absent"], oddities["empty"])]
        assert ids == [source[row]["participant"] for row in range(len(source))]
    assert splits["val"].locate(1) == "daic_woz/val row 2 (id 311)"
    with pytest.raises(IndexError, match="daic_woz/test has 5 rows; there is no row 6"):
        splits["test"][5]
    with pytest.raises(IndexError):
        splits["test"][-1]


def test_scores_and_genders_are_those_of_the_label_files(corpus, rows):
    for row in (*listed(corpus[0], TRAIN), *listed(corpus[0], DEV)):
        if row["Participant_ID"] in rows:
            built = rows[row["Participant_ID"]]
            assert built["phq8"] == float(row["PHQ8_Score"])
            assert built["gender"] == ("male", "female")[int(row["Gender"])]
    for row in listed(corpus[0], TEST):
        assert rows[row["participant_ID"]]["phq8"] is None
        assert rows[row["participant_ID"]]["gender"] == ("male", "female")[int(row["Gender"])]
    scores = {row["phq8"] for row in rows.values()} - {None}
    assert scores > {10.0}
    assert not scores <= {0.0, 1.0}


def test_features_are_named(splits, rows):
    features = splits["train"].features
    assert features == {"audio": AUDIO, "video": VIDEO}
    assert (len(AUDIO), len(VIDEO)) == (74, 38)
    assert AUDIO.index("creak") == 10
    assert AUDIO[:2] == ("F0", "VUV")
    assert (AUDIO[11], AUDIO[36], AUDIO[61]) == ("MCEP_0", "HMPDM_0", "HMPDD_0")
    assert len(set(AUDIO)) == 74
    assert len(set(VIDEO)) == 38
    assert len(set(VIDEO_DEFAULT) & set(VIDEO)) == len(VIDEO_DEFAULT) == 10
    for row in rows.values():
        for column, names in features.items():
            if row[column] is not None:
                assert row[column].dtype == np.float32
                assert row[column].shape[1] == len(names)
        if row["audio"] is not None and row["video"] is not None:
            assert len(row["audio"]) == len(row["video"])


def plain_audio(folder, key, start):
    """The audio of an ordinary session, worked out element by element."""
    with open(folder / f"{key}_P" / f"{key}_COVAREP.csv") as file:
        frames = [[float(cell) for cell in line] for line in csv.reader(file)]
    usable = {}
    for number, frame in enumerate(frames):
        # Question and answer take turns, two and four seconds long, three times.
        turn, second = divmod(number / 100 - start, 6)
        if 0 <= turn < 3 and second >= 2 - 1e-6:
            for place, name in enumerate(AUDIO):
                if frame[1] == 1 or name not in VOICE:
                    usable.setdefault((number // 10, place), []).append(frame[place])
    return means(usable, math.ceil(len(frames) / 10), len(AUDIO))


def plain_video(folder, key, steps):
    """The video of an ordinary session, worked out element by element."""
    usable, first = {}, 0
    for part, names in standin.CLNF.items():
        with open(folder / f"{key}_P" / f"{key}_CLNF_{part}.txt") as file:
            for frame in csv.DictReader(file, skipinitialspace=True):
                step = int((float(frame["timestamp"]) + 1e-4) * 10)
                if frame["success"] == "1" and float(frame["confidence"]) >= 0.7:
                    for place, name in enumerate(names, start=first):
                        usable.setdefault((step, place), []).append(float(frame[name]))
        first += len(names)
    return means(usable, steps, len(VIDEO))


def means(usable, steps, features):
    grid = np.full((steps, features), np.nan)
    for place, values in usable.items():
        grid[place] = sum(values) / len(values)
    return grid


def test_sequences_are_means_over_tenths_of_seconds(corpus, rows):
    row = rows["300"]
    audio = plain_audio(corpus[0], "300", standin.START)
    np.testing.assert_allclose(row["audio"], audio, rtol=1e-5, atol=1e-6)
    video = plain_video(corpus[0], "300", len(audio))
    np.testing.assert_allclose(row["video"], video, rtol=1e-5, atol=1e-6)
    assert known(audio).mean() > 0.4
    assert known(video).all(axis=1).mean() > 0.98


def test_transcripts_hold_words_only(odd, rows):
    words = {*standin._WELL, *standin._ILL, "people"}
    for row in rows.values():
        if row["transcript"] and row["id"] not in ("373", "311"):
            assert set(row["transcript"].split()) <= words
        if row["interviewer"] and row["id"] != "373":
            assert set(row["interviewer"].split("\n")) == {standin.ASKED}
    assert odd["scrubbed"]["transcript"].endswith("\nmy name is")
    assert odd["no_interviewer"]["interviewer"] is None
    assert len(odd["no_interviewer"]["transcript"].split("\n")) == 3
    assert odd["no_transcript"]["transcript"] is odd["no_transcript"]["interviewer"] is None


def test_interruptions_are_cut_out(odd):
    row = odd["interruption"]
    assert row["transcript"].endswith("\njust before\nright after")
    assert "not me" not in row["interviewer"]
    come, gone = (round(10 * second) for second in standin.INTERRUPTION)
    assert not known(row["video"][come:gone]).any()
    assert known(row["video"][come - 10 : come]).any(axis=1).all()
    assert known(row["video"][gone : gone + 10]).any(axis=1).all()


def test_the_transcript_is_moved_to_the_clock_of_the_audio(odd):
    heard = np.flatnonzero(known(odd["offset"]["audio"]).any(axis=1))
    first = 10 * round(standin.START + 40 + 2)  # three answers, four of every six seconds
    assert heard.tolist() == [first + place for place in range(3 * 60) if place % 60 < 40]


def test_absent_modalities_are_empty_cells(odd, rows):
    for modality in ("video", "audio", "transcript"):
        row = odd[f"no_{modality}"]
        assert row[modality] is None
        assert sum(row[other] is None for other in ("video", "audio", "transcript")) == 1
    # Without a transcript nobody can tell whose voice it is.
    assert known(odd["no_transcript"]["audio"]).any(axis=1).all()
    gaze = [place for place, name in enumerate(VIDEO) if name.startswith("gaze")]
    assert not known(odd["no_gaze"]["video"][:, gaze]).any()
    assert known(np.delete(odd["no_gaze"]["video"], gaze, axis=1)).any(axis=1).all()
    assert "308" not in rows and "309" not in rows


def test_a_video_that_stops_early_is_unknown_from_there(odd):
    row = odd["video_stops"]
    assert len(row["video"]) == len(row["audio"]) == 240
    assert known(row["video"][:160]).any(axis=1).all()
    assert not known(row["video"][160:]).any()


def test_infinite_numbers_are_unknown_and_counted(corpus, odd, built):
    audio = odd["infinite"]["audio"]
    assert np.isfinite(audio[known(audio)]).all()
    counts = built[1].info.metadata["counts"]
    assert counts["val"]["infinite"] == {corpus[1]["infinite"]: {"audio": 7, "video": 0}}
    assert counts["train"]["infinite"] == {}


def test_removed_names_are_unknown(odd):
    audio = odd["scrubbed"]["audio"]
    assert not known(audio[80:85]).any()
    assert known(audio[79]).any()
    assert known(audio[85]).any()


def test_counts_and_remarks_are_kept_with_the_data(built):
    builder = daic_woz.open_built(built[0])
    assert daic_woz.tables(builder) == {
        "": {
            "sessions": [12, 5, 5],
            "without transcript": [1, 0, 0],
            "without interviewer": [1, 0, 1],
            "without audio": [1, 0, 0],
            "without video": [1, 0, 0],
            "without score": [0, 0, 5],
            "listed, but not there": [2, 0, 0],
            "class is not that of the score": [1, 0, 0],
            "items do not sum to the score": [0, 1, 0],
            "infinite numbers in audio": [0, 7, 0],
            "infinite numbers in video": [0, 0, 0],
        }
    }
    assert daic_woz.remarks(builder) == [
        "listed, but not there: 308, 309",
        "class is not that of the score: 409",
        "items do not sum to the score: 314",
    ]


def test_the_fingerprint_follows_the_content(small, tmp_path):
    daic_woz.build(small, tmp_path / "before")
    file = next(small.glob("310_P")) / "310_COVAREP.csv"
    lines = file.read_text().splitlines()
    lines[650] = lines[650].rpartition(",")[0] + ",123"
    file.write_text("\n".join(lines))
    daic_woz.build(small, tmp_path / "after")
    before = daic_woz.sources(tmp_path / "before")
    after = daic_woz.sources(tmp_path / "after")
    assert before["val"].fingerprint != after["val"].fingerprint
    assert before["train"].fingerprint == after["train"].fingerprint


def test_reading_what_was_not_built_says_how_to_build_it(tmp_path):
    with pytest.raises(DataError, match=r"no daic_woz .* --dataset daic_woz .* --data_dir"):
        daic_woz.sources(tmp_path)


def test_every_broken_session_of_a_split_is_named_at_once(small, tmp_path):
    files = [small / "318_P" / "318_COVAREP.csv", small / "373_P" / "373_CLNF_pose.txt"]
    good = [file.read_bytes() for file in files]
    files[0].write_bytes(good[0] + b"1,2,3\n")
    files[1].write_bytes(b"frame, timestamp\n1, 0\n")
    with pytest.raises(DataError, match="2 sessions of train cannot be read") as error:
        daic_woz.build(small, tmp_path / "tfds")
    frames = good[0].count(b"\n")
    assert [(problem.file, problem.row) for problem in error.value.problems] == [
        (str(files[0]), f"line {frames + 1}"),
        (str(files[1]), "line 1"),
    ]
    assert daic_woz.open_built(tmp_path / "tfds") is None
    for file, data in zip(files, good, strict=True):
        file.write_bytes(data)
    daic_woz.build(small, tmp_path / "tfds")
    assert len(daic_woz.sources(tmp_path / "tfds")["train"]) == 2


def test_an_interview_is_as_long_as_the_longest_of_its_files(small):
    folder = small / "310_P"
    for ending, length in (("COVAREP.csv", 1600), ("CLNF_pose.txt", 481)):  # 16 seconds
        assert (folder / f"310_{ending}").read_bytes().count(b"\n") == length
    session = daic_woz_files.find(small).sessions["310"]
    assert len(daic_woz_archive.read(session).audio) == 160
    with open(folder / "310_TRANSCRIPT.csv", "a") as file:
        file.write("17.1\t17.25\tEllie\tgoodbye\n")
    interview = daic_woz_archive.read(session)
    assert len(interview.audio) == len(interview.video) == 173
    assert not known(interview.video[160:]).any()


def test_sequences_without_anything_known_are_absent(small):
    folder = small / "310_P"
    frames = (folder / "310_COVAREP.csv").read_text().count("\n")
    (folder / "310_COVAREP.csv").write_bytes(standin.numbers(np.zeros((frames, 74))))
    interview = daic_woz_archive.read(daic_woz_files.find(small).sessions["310"])
    assert interview.audio is None
    assert interview.video is not None
