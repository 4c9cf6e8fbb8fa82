import numpy as np
import pytest

from jfusion.data.builders import daic_woz_frames
from jfusion.data.builders.daic_woz_files import BrokenFile, File
from jfusion.data.builders.daic_woz_frames import AUDIO, Frames
from tests.standins import daic_woz as standin

VOICE = ("F0", "NAQ", "QOQ", "H1H2", "PSP", "MDQ", "peakSlope", "Rd", "Rd_conf")


def known(array):
    return ~np.isnan(array)


def covarep(**columns):
    """Four voiced frames of ones, with these columns changed."""
    values = np.ones((4, 74))
    for name, column in columns.items():
        values[:, AUDIO.index(name)] = column
    return values


def test_what_describes_a_voice_is_unknown_without_one():
    read = daic_woz_frames.read_covarep(
        File("C.csv", standin.numbers(covarep(VUV=[1, 0, np.nan, 1])))
    )
    unknown = [AUDIO[place] for place in np.flatnonzero(~known(read.values[1]))]
    assert sorted(unknown) == sorted(VOICE)
    assert sorted(np.flatnonzero(~known(read.values[2]))) == sorted(
        AUDIO.index(name) for name in (*VOICE, "VUV")
    )
    assert known(read.values[[0, 3]]).all()
    np.testing.assert_allclose(read.times, [0, 0.01, 0.02, 0.03])
    assert read.end == pytest.approx(0.04)


def test_numbers_are_read_in_every_spelling():
    line = ["1"] * 74
    line[11:19] = ["-inf", "Inf", " 2.5 ", "-nan(ind)", "", "1e-60", "1e60", "-Infinity"]
    read = daic_woz_frames.read_covarep(File("C.csv", (",".join(line) + "\r\n").encode()))
    assert read.infinite == 4  # 1e60 is too large for float32
    nan = np.nan
    np.testing.assert_array_equal(read.values[0, 11:19], [nan, nan, 2.5, nan, nan, 0, nan, nan])


@pytest.mark.parametrize(
    ("broken", "line", "column", "reason"),
    [
        (lambda lines: [*lines[:3], lines[3] + ",1"], 4, "F0 to HMPDD_12", "75 numbers instead"),
        (lambda lines: [*lines[:-1], lines[-1][:20]], 4, "F0 to HMPDD_12", "11 numbers instead of"),
        (lambda lines: ["", *lines[:1], "x" + lines[1]], 3, "F0", "'x1' is not a number"),
        (lambda lines: [",".join(AUDIO), *lines], 1, "F0", "'F0' is not a number"),
    ],
)
def test_a_broken_line_of_covarep_is_named(broken, line, column, reason):
    lines = standin.numbers(covarep()).decode().split()
    with pytest.raises(BrokenFile) as error:
        daic_woz_frames.read_covarep(File("C.csv", "\n".join(broken(lines)).encode()))
    problem = error.value.problem
    assert (problem.file, problem.row, problem.column) == ("C.csv", f"line {line}", column)
    assert problem.reason.startswith(reason)


def test_a_file_without_frames_is_named():
    with pytest.raises(BrokenFile, match=r"C\.csv .*"):
        daic_woz_frames.read_covarep(File("C.csv", b""))
    header = standin.clnf_file(np.zeros((0, 24)), "AUs")
    with pytest.raises(BrokenFile, match=r"V\.txt .*has no frame"):
        daic_woz_frames.read_clnf(File("V.txt", header), "AUs")


def test_padded_and_plain_files_read_the_same():
    values = standin.clnf(np.random.default_rng(0), 60, "AUs", 5)
    padded = daic_woz_frames.read_clnf(File("V.txt", standin.clnf_file(values, "AUs")), "AUs")
    plain = standin.clnf_file(values, "AUs", padded=False, success="detection_success")
    plain = daic_woz_frames.read_clnf(File("V.csv", plain), "AUs")
    np.testing.assert_array_equal(padded.values, plain.values)
    assert padded.end == pytest.approx(2, abs=1e-3)


def test_frames_without_a_sure_face_are_unknown():
    values = standin.clnf(np.random.default_rng(0), 6, "pose", 5)
    values[:, 2], values[:, 3] = [0.9, 0.69, 0.7, 0.9, np.nan, 1], [1, 1, 1, 0, 1, 1]
    values[5, 4] = np.inf
    read = daic_woz_frames.read_clnf(File("V.txt", standin.clnf_file(values, "pose")), "pose")
    assert known(read.values).all(axis=1).tolist() == [True, False, True, False, False, False]
    assert known(read.values[5, 1:]).all()
    assert read.infinite == 1
    np.testing.assert_allclose(read.values[0], values[0, 4:], rtol=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "line", "column", "reason"),
    [
        (b" Rx", b" R_x", 1, "Rx", "is not in the header"),
        (b" success", b" ok", 1, "success", "is not in the header"),
        (b" Ry", b" Rz", 1, "Ry, Rz", "is not in the header, or more than once"),
        (b"\n2, 0.0333", b"\n2, 9999", 3, "timestamp", "9999.0 is not a time"),
        (b"\n2, 0.0333", b"\n2, ", 3, "timestamp", "nan is not a time"),
        (b"\n2, 0.0333", b"\n2, 0, 0.0333", 3, "frame to Rz", "11 numbers instead of 10"),
    ],
)
def test_a_broken_file_of_the_face_is_named(old, new, line, column, reason):
    data = standin.clnf_file(standin.clnf(np.random.default_rng(0), 3, "pose", 5), "pose")
    assert data.count(old) == 1
    with pytest.raises(BrokenFile) as error:
        daic_woz_frames.read_clnf(File("V.txt", data.replace(old, new)), "pose")
    problem = error.value.problem
    assert (problem.file, problem.row, problem.column) == ("V.txt", f"line {line}", column)
    assert problem.reason.startswith(reason)


def test_the_grid_takes_means_of_what_is_known():
    # In any order; 0.7 is beyond the grid, and 0.29999 is 0.3, rounded.
    times = np.array([0.29999, 0.00, 0.19, 0.05, 0.31, 0.70])
    nan = np.nan
    values = np.array([[1.0, nan], [2.0, 3e38], [4.0, 5.0], [6.0, 3e38], [nan, nan], [9.0, 9.0]])
    grid = daic_woz_frames.on_grid(Frames(times, values.astype(np.float32), 0.8, 0), 10, 5)
    expected = [[4, 3e38], [4, 5], [nan, nan], [1, nan], [nan, nan]]
    np.testing.assert_allclose(grid, np.array(expected, np.float32), rtol=1e-6)
    assert grid.dtype == np.float32
    late = Frames(times + 9, values, 9.8, 0)
    assert not known(daic_woz_frames.on_grid(late, 10, 5)).any()
