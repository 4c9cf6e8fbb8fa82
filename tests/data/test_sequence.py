import json
import time
import warnings

import numpy as np
import pytest

from jfusion.data import cache
from jfusion.data.problems import DataError
from jfusion.data.sequence import SequenceInput
from jfusion.data.source import Source, Subset
from tests.data.rows import Rows, column

NAN, INF = np.nan, np.inf


def plain(total=2, steps=4, pick=None, mean=0.0, std=1.0):
    """A reader that leaves values as they are."""
    pick = range(total) if pick is None else pick
    scale = {"mean": [mean] * len(pick), "std": [std] * len(pick)}
    return SequenceInput("audio", pick=pick, total=total, steps=steps, **scale)


def encode(cell, root=None, **options):
    made = plain(**options).encode([cell], root)
    assert not made.bad, made.bad
    return (
        made.arrays["frames"][0],
        made.arrays["valid"][0],
        {k: v[0] for k, v in made.notes.items()},
    )


def reason(cell, root=None, **options):
    good = np.ones((3, 2), np.float32)
    made = plain(**options).encode([good, cell, good], root)
    assert set(made.bad) == {1}
    assert not made.arrays["valid"][1].any() and not made.arrays["frames"][1].any()
    assert made.arrays["valid"][[0, 2], :3].all() and (made.arrays["frames"][[0, 2], :3] == 1).all()
    return made.bad[1]


def slow(values, known, steps):
    """Each frame goes to the stretch that its middle lies in."""
    frames, valid = np.zeros((steps, values.shape[1])), np.zeros((steps, values.shape[1]), bool)
    stretch = np.floor((np.arange(len(values)) + 0.5) / len(values) * steps).astype(int)
    for t in range(steps):
        for f in range(values.shape[1]):
            here = [values[i, f] for i in np.flatnonzero(stretch == t) if known[i, f]]
            if here:
                frames[t, f], valid[t, f] = np.mean(np.float64(here)), True
    return frames, valid


@pytest.mark.parametrize("frames", [5, 7, 8, 13, 400, 1001])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_longer_sequences_are_averaged_over_equal_stretches_of_time(frames, steps):
    rng = np.random.default_rng(frames)
    values = rng.normal(size=(frames, 3)).astype(np.float32)
    values[rng.random(values.shape) < 0.4] = NAN
    values[0, 0], values[1, 1] = INF, -INF
    expected = slow(values, np.isfinite(values), steps)
    made, valid, notes = encode(values, total=3, steps=steps)
    np.testing.assert_array_equal(valid, expected[1])
    np.testing.assert_allclose(made, expected[0], atol=1e-6)
    assert made.dtype == np.float32 and valid.dtype == bool
    assert notes["infinite"] == 2
    assert notes["valid"] == pytest.approx(np.isfinite(values).mean())


def test_the_ends_of_time_are_treated_alike():
    values = np.random.default_rng(0).normal(size=(10, 2)).astype(np.float32)
    forward, backward = (encode(order, steps=3)[0] for order in (values, values[::-1]))
    np.testing.assert_allclose(forward, backward[::-1], atol=1e-6)


@pytest.mark.parametrize("frames", [1, 3, 4])
def test_shorter_sequences_are_kept_and_the_rest_is_not_valid(frames):
    values = np.arange(1.0, 2 * frames + 1).reshape(frames, 2)
    values[0, 1] = NAN
    made, valid, _ = encode(values)
    np.testing.assert_array_equal(made[:frames], np.nan_to_num(values))
    assert valid.sum() == 2 * frames - 1 and not valid[0, 1]
    assert not made[frames:].any() and not valid[frames:].any()


def test_what_is_not_known_changes_nothing_and_is_zero_after_scaling():
    cell = np.array([[1, NAN], [3, 5], [INF, 7], [NAN, -INF]])
    made, valid, notes = encode(cell, steps=2, mean=2.0, std=0.5)
    np.testing.assert_array_equal(made, [[0, 6], [0, 10]])
    np.testing.assert_array_equal(valid, [[True, True], [False, True]])
    assert notes == {"valid": 0.5, "infinite": 2}


def test_features_are_picked_by_their_place():
    cell = np.arange(12.0).reshape(3, 4)
    made, _, notes = encode(cell, total=4, pick=[2, 0])
    np.testing.assert_array_equal(made[:3], [[2, 0], [6, 4], [10, 8]])
    cell[:, 1] = INF  # of no interest
    assert encode(cell, total=4, pick=[2, 0])[2] == notes == {"valid": 1, "infinite": 0}
    assert plain(total=4, pick=[2, 0]).width == 2


def test_kinds_of_cells_give_the_same(tmp_path):
    values = np.array([[1.5, 2], [3, -4.25], [0, 1]])
    expected = encode(values)
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "b.npy", np.asfortranarray(values.astype(">f4")))
    cells = [values.tolist(), values.astype(np.float16), "a.npy", " b.npy "]
    for cell in cells:
        for ours, theirs in zip(encode(cell, tmp_path)[:2], expected[:2], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    made, valid, _ = encode([[1, None], [NAN, 4]])
    np.testing.assert_array_equal(made[:2], [[1, 0], [0, 4]])
    assert valid[:2].tolist() == [[True, False], [False, True]]
    assert encode(np.array([[1, 0], [0, 1]]))[0][0].tolist() == [1, 0]


def test_numbers_too_large_for_float32_count_as_infinite():
    for cell in (np.array([[1e300, 1]]), [[1e300, 1]]):
        _, valid, notes = encode(cell)
        assert valid[0].tolist() == [False, True] and notes["infinite"] == 1
    made, valid, _ = encode(np.array([[3e38, 1]]), std=1e-3)
    assert valid[0].tolist() == [False, True] and made[0].tolist() == [0, 1000]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (np.ones(3), "expected 2 dimensions (frames x features), got 1: 3"),
        (np.ones((2, 2, 2)), "expected 2 dimensions (frames x features), got 3: 2 x 2 x 2"),
        (np.float64([[1, 2, 3]]), "expected frames of 2 features, got 3"),
        (np.ones((0, 2)), "it has no frame"),
        ([], "expected 2 dimensions"),
        ([[]], "its frames have no feature"),
        (np.full((3, 2), NAN), "not one value is known"),
        (np.full((3, 2), INF), "not one value is known"),
        (np.array([["a", "b"]]), "not numbers but <U1"),
        (np.array([[{}, []]], object), "not numbers but object"),
        ([[1, 2], [3]], "not frames of equally many numbers"),
        ([[1, "x"]], "not frames of equally many numbers"),
        ([[1, {}]], "not frames of equally many numbers"),
        (b"\x93NUMPY", "neither a path nor frames of numbers but bytes"),
        (7.5, "neither a path nor frames of numbers but float"),
        ("a.npy", "is a path, but the data set has no sequence folder"),
    ],
)
def test_bad_cells_leave_their_neighbours_alone(cell, expected):
    assert expected in reason(cell)


def test_bad_files_are_bad_cells(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    np.save(root / "good.npy", np.ones((50, 2)))
    np.save(tmp_path / "secret.npy", np.ones((3, 2)))
    (root / "link.npy").symlink_to(tmp_path / "secret.npy")
    content = (root / "good.npy").read_bytes()
    files = {"cut": content[:300], "head": content[:40], "text": b"hello", "empty": b""}
    files["header"] = content.replace(b"'<f8'", b"'<f8)")
    for name, content in files.items():
        (root / f"{name}.npy").write_bytes(content)
        assert "is no .npy file of numbers, or damaged" in reason(f"{name}.npy", root)
    np.savez(root / "archive.npy.npz", a=np.ones((3, 2)))
    (root / "archive.npz").write_bytes((root / "archive.npy.npz").read_bytes())
    assert "is no .npy file of numbers" in reason("archive.npz", root)
    assert reason("no.npy", root) == f"no file 'no.npy' in {root}"
    for cell in ("../secret.npy", "link.npy", str(tmp_path / "secret.npy")):
        assert "is outside the data folder" in reason(cell, root)
    np.save(root / "wide.npy", np.ones((3, 5)))
    assert reason("wide.npy", root) == "expected frames of 2 features, got 5"


def test_pickles_are_not_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.save(tmp_path / "trap.npy", np.array([[Trap(), 1]], object), allow_pickle=True)
    assert "is no .npy file of numbers, or damaged" in reason("trap.npy", tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_long_sequences_are_fast():
    cells = [np.random.default_rng(0).normal(size=(10_000, 74)).astype(np.float32)] * 4
    reader = plain(total=74, steps=100)
    start = time.perf_counter()
    reader.encode(cells)
    assert time.perf_counter() - start < 2  # 0.05 s when nothing else runs


def sequences(count=6, features=3, offset=1e4):
    """Sequences of different lengths, some of whose elements are not known."""
    rng = np.random.default_rng(3)
    cells = []
    for i in range(count):
        cell = rng.normal(offset, [1, 20, 0.5], size=(20 + 7 * i, features)).astype(np.float32)
        cell[rng.random(cell.shape) < 0.3] = NAN
        cell[i, 0] = INF
        cells.append(cell)
    return cells


@pytest.mark.parametrize("offset", [0, 1e4])
def test_scalers_are_those_of_all_known_elements(tmp_path, offset):
    cells = sequences(offset=offset)
    source = column("audio", [*cells, None, np.full((4, 3), NAN), np.ones(3), "no.npy"])
    fitted = SequenceInput.fit(source, "audio", steps=10, cache_dir=tmp_path).spec()
    frames = np.concatenate(cells).astype(np.float64)
    frames[~np.isfinite(frames)] = NAN
    np.testing.assert_allclose(fitted["mean"], np.nanmean(frames, 0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(fitted["std"], np.nanstd(frames, 0), rtol=1e-7)
    assert fitted["pick"] == [0, 1, 2] and fitted["total"] == 3 and fitted["features"] == []


def test_scaled_training_frames_have_mean_0_and_spread_1(tmp_path):
    source = column("audio", sequences())
    reader = SequenceInput.fit(source, "audio", steps=100, cache_dir=tmp_path)
    made = cache.materialize(source, reader, tmp_path)
    known = [made.arrays["frames"][..., f][made.arrays["valid"][..., f]] for f in range(3)]
    assert all(abs(values.mean()) < 1e-3 and abs(values.std() - 1) < 1e-3 for values in known)
    assert made.notes["infinite"].tolist() == [1] * 6
    assert ((made.notes["valid"] > 0.5) & (made.notes["valid"] < 0.9)).all()


def test_scalers_know_the_training_rows_only(tmp_path):
    cells = sequences()
    source = column("audio", [cells[0], cells[1], 1e6 * cells[2]])
    alone = SequenceInput.fit(column("audio", cells[:2]), "audio", steps=9, cache_dir=tmp_path)
    part = Subset(source, np.array([0, 1]))
    assert SequenceInput.fit(part, "audio", steps=9, cache_dir=tmp_path).spec() == alone.spec()
    whole = SequenceInput.fit(source, "audio", steps=9, cache_dir=tmp_path)
    assert whole.spec()["std"] != alone.spec()["std"]


def test_features_that_never_change_or_are_never_known_are_not_blown_up(tmp_path):
    cell = np.ones((50, 4), np.float32)
    cell[:, 1], cell[:, 2], cell[:, 3] = NAN, 0.1, np.arange(50)
    source = column("audio", [cell, 3 * cell[:, [1, 1, 2, 3]] / 3])
    reader = SequenceInput.fit(source, "audio", steps=5, cache_dir=tmp_path)
    spec = reader.spec()
    assert spec["std"][:3] == [1, 1, 1] and spec["std"][3] > 10
    assert spec["mean"][1] == 0
    made = reader.encode([cell + np.float32([1, 0, 0, 0])])
    np.testing.assert_allclose(made.arrays["frames"][0, :, :3], [[1, 0, 0]] * 5, atol=1e-6)


def test_scalers_are_fitted_once(tmp_path):
    source = column("audio", sequences())
    first = SequenceInput.fit(source, "audio", steps=10, cache_dir=tmp_path)
    reads = source.reads
    other = SequenceInput.fit(source, "audio", steps=20, cache_dir=tmp_path)
    assert source.reads == reads
    assert other.spec() == first.spec() | {"steps": 20}


def named(names=("f0", "vuv", "nap")):
    return column("audio", sequences(), features={"audio": names})


def test_features_are_chosen_by_name(tmp_path):
    options = {"steps": 10, "cache_dir": tmp_path}
    chosen = SequenceInput.fit(named(), "audio", features=["nap", "f0"], **options)
    spec, all_of_them = chosen.spec(), SequenceInput.fit(named(), "audio", **options).spec()
    assert spec["features"] == ["nap", "f0"] and spec["pick"] == [2, 0] and spec["total"] == 3
    assert chosen.width == 2 and all_of_them["features"] == ["f0", "vuv", "nap"]
    assert spec["mean"] == [all_of_them["mean"][2], all_of_them["mean"][0]]
    part = Subset(named(), np.arange(3))
    assert SequenceInput.fit(part, "audio", features=["nap"], **options).width == 1


def test_unknown_features_are_told_with_the_nearest(tmp_path):
    with pytest.raises(DataError, match="column 'audio' has no feature 'F0'; near it: 'f0'"):
        SequenceInput.fit(named(), "audio", features=["F0"], steps=9, cache_dir=tmp_path)
    unnamed = column("audio", sequences())
    with pytest.raises(DataError, match="the features of column 'audio' have no names"):
        SequenceInput.fit(unnamed, "audio", features=["f0"], steps=9, cache_dir=tmp_path)


def test_without_names_most_cells_say_how_many_features_there_are(tmp_path):
    source = column("audio", [np.ones((3, 5)), *sequences(3)])
    reader = SequenceInput.fit(source, "audio", steps=9, cache_dir=tmp_path)
    assert reader.spec()["total"] == 3
    made = cache.materialize(source, reader, tmp_path)
    assert made.bad == {0: "expected frames of 3 features, got 5"}
    with pytest.raises(DataError, match="has no sequence that can be read in column 'audio'"):
        SequenceInput.fit(column("audio", [None, 7.0]), "audio", steps=9, cache_dir=tmp_path)


def test_a_saved_input_is_the_same_input(tmp_path):
    made = SequenceInput.fit(named(), "audio", features=["nap"], steps=9, cache_dir=tmp_path)
    made.save(tmp_path, "audio")
    again = SequenceInput.from_spec(json.loads(json.dumps(made.spec())), tmp_path, "audio")
    assert again.spec() == made.spec() and again.arrays == made.arrays
    cells = sequences()
    for key, array in made.encode(cells).arrays.items():
        np.testing.assert_array_equal(again.encode(cells).arrays[key], array)


def test_an_absent_sequence_is_absent_and_not_zeros(tmp_path):
    source = column("audio", [sequences()[0], None, np.full((3, 3), NAN)])
    assert isinstance(source, Source)
    reader = SequenceInput.fit(source, "audio", steps=9, cache_dir=tmp_path)
    made = cache.materialize(source, reader, tmp_path)
    assert made.present.tolist() == [True, False, False]
    assert made.bad == {2: "not one value is known"}
    assert not made.arrays["valid"][1:].any()


def test_no_warning_of_numpy_is_shown(tmp_path):
    cells = [np.array([[1e300, -1e300, NAN]]), [[1e300, 2, 3.0]], np.full((30, 3), 3e38)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reader = SequenceInput.fit(column("audio", cells), "audio", steps=4, cache_dir=tmp_path)
        reader.encode(cells)


def test_rows_of_a_source_without_the_column_are_absent(tmp_path):
    reader = plain()
    made = cache.materialize(Rows([{"id": 1}]), reader, tmp_path)
    assert made.present.tolist() == [False] and not made.bad
