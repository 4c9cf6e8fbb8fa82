import numpy as np
import pytest

from jfusion.data import pipeline
from jfusion.data.split import Split


class Rows:
    name = "rows"
    fingerprint = "0"
    root = None

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return {}

    def locate(self, index):
        return f"rows row {index + 1}"


def make_split(rows=23, left_out=(4, 11)):
    keep = np.array([row for row in range(rows) if row not in left_out], np.int64)
    values = np.arange(rows)
    return Split(
        name="train",
        source=Rows(rows),
        inputs={
            "plot": {
                "ids": np.stack([values + 1] * 3, axis=1).astype(np.int32),
                "length": (values + 1).astype(np.int32),
            },
            "poster": {"pixels": np.full((rows, 2, 2, 3), 7, np.uint8)},
            "audio": {
                "frames": np.full((rows, 4, 3), 0.5, np.float32),
                "valid": np.ones((rows, 4, 3), bool),
            },
        },
        present={
            "plot": np.ones(rows, bool),
            "poster": values % 2 == 0,
            "audio": values % 3 == 0,
        },
        targets={
            "genres": np.stack([values, -values], axis=1).astype(np.float32),
            "kind": (values + 1).astype(np.int32),
            "score": (values[:, None] + 0.5).astype(np.float32),
            "likeness": np.stack([np.full(rows, -1), values + 1], axis=1).astype(np.int32),
        },
        rows=values,
        keep=keep,
    )


def rows_of(dataset, limit=None):
    found = []
    for batch in dataset:
        found.append(batch["row"])
        if limit and len(found) == limit:
            break
    return np.stack(found)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("rows", [1, 8, 23])
def test_an_epoch_visits_every_kept_row_once_and_pads_with_weight_zero(shuffle, rows):
    split = make_split(rows)
    found = list(pipeline.batches(split, 4, shuffle=shuffle, seed=3))
    assert len(found) == pipeline.batch_count(len(split), 4)
    row = np.concatenate([batch["row"] for batch in found])
    weight = np.concatenate([batch["weight"] for batch in found])
    assert weight.dtype == np.float32 and row.dtype == np.int64
    np.testing.assert_array_equal(np.sort(row[weight == 1]), split.keep)
    assert (row[weight == 0] == -1).all()
    assert len(row) % 4 == 0
    if not shuffle:
        np.testing.assert_array_equal(row[: len(split)], split.keep)


def test_a_batch_holds_the_arrays_of_its_rows_and_zeros_in_the_padding():
    split = make_split()
    for batch in pipeline.batches(split, 4, shuffle=True, seed=1):
        real = batch["weight"] == 1
        row = batch["row"][real]
        assert batch["inputs"]["plot"]["ids"].dtype == np.int32
        np.testing.assert_array_equal(batch["inputs"]["plot"]["ids"][real, 0], row + 1)
        np.testing.assert_array_equal(batch["targets"]["genres"][real, 1], -row)
        np.testing.assert_array_equal(batch["present"]["poster"][real], row % 2 == 0)
        assert batch["inputs"]["poster"]["pixels"].dtype == np.uint8
        assert (batch["inputs"]["poster"]["pixels"][real] == 7).all()
        assert batch["inputs"]["audio"]["valid"].dtype == bool
        assert batch["inputs"]["audio"]["valid"][real].all()
        for part in (batch["targets"], batch["present"], *batch["inputs"].values()):
            for array in part.values():
                assert len(array) == 4 and not array[~real].any()


def test_targets_keep_their_types():
    types = {"genres": np.float32, "kind": np.int32, "score": np.float32, "likeness": np.int32}
    shapes = {"genres": (4, 2), "kind": (4,), "score": (4, 1), "likeness": (4, 2)}
    for batch in pipeline.batches(make_split(), 4, shuffle=True, seed=1):
        assert {name: x.dtype for name, x in batch["targets"].items()} == types
        assert {name: x.shape for name, x in batch["targets"].items()} == shapes
        real = batch["weight"] == 1
        row = batch["row"][real]
        np.testing.assert_array_equal(batch["targets"]["kind"][real], row + 1)
        np.testing.assert_array_equal(batch["targets"]["score"][real, 0], row + 0.5)
        np.testing.assert_array_equal(batch["targets"]["likeness"][real, 1], row + 1)


def test_each_epoch_has_an_order_of_its_own_and_a_seed_repeats_it():
    split = make_split()
    count = pipeline.batch_count(len(split), 4)
    two = rows_of(pipeline.batches(split, 4, shuffle=True, seed=5, epochs=2))
    again = rows_of(pipeline.batches(split, 4, shuffle=True, seed=5, epochs=None), 2 * count)
    other = rows_of(pipeline.batches(split, 4, shuffle=True, seed=6, epochs=2))
    np.testing.assert_array_equal(two, again)
    first, second = two[:count].ravel(), two[count:].ravel()
    np.testing.assert_array_equal(np.sort(first), np.sort(second))
    assert (first != second).any()
    assert (two != other).any()
    # Seeds must not be shifted copies of each other: seed 5's second epoch is not seed 6's first.
    assert (second != other[:count].ravel()).any()


@pytest.mark.parametrize("processes", [2, 4])
def test_batches_are_the_same_however_many_processes_share_them(processes):
    split = make_split()
    alone = list(pipeline.batches(split, 8, shuffle=True, seed=2, epochs=2))
    shares = [
        list(
            pipeline.batches(
                split,
                8,
                shuffle=True,
                seed=2,
                epochs=2,
                process_index=index,
                process_count=processes,
            )
        )
        for index in range(processes)
    ]
    for whole, *parts in zip(alone, *shares, strict=True):
        for key in ("row", "weight"):
            np.testing.assert_array_equal(np.concatenate([p[key] for p in parts]), whole[key])
        pixels = [part["inputs"]["plot"]["ids"] for part in parts]
        np.testing.assert_array_equal(np.concatenate(pixels), whole["inputs"]["plot"]["ids"])


@pytest.mark.parametrize("position", [0, 1, 5, 6, 7, 11])
def test_an_iterator_resumes_exactly(position):
    split = make_split()  # 21 rows: 6 batches an epoch
    dataset = pipeline.batches(split, 4, shuffle=True, seed=9, epochs=2)
    expected = rows_of(dataset)
    iterator = iter(dataset)
    for _ in range(position):
        next(iterator)
    state = iterator.get_state()
    fresh = iter(pipeline.batches(split, 4, shuffle=True, seed=9, epochs=2))
    fresh.set_state(state)
    np.testing.assert_array_equal(rows_of(fresh), expected[position:])
    np.testing.assert_array_equal(rows_of(iterator), expected[position:])


def test_wrong_requests_are_refused():
    with pytest.raises(ValueError, match="cannot be shared equally by 3"):
        pipeline.batches(make_split(), 4, shuffle=False, process_count=3)
    with pytest.raises(ValueError, match="no row of train takes part"):
        pipeline.batches(make_split(2, left_out=(0, 1)), 4, shuffle=False)
