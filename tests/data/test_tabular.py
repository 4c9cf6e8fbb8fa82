import json
import math
from decimal import Decimal

import numpy as np
import pytest

from jfusion import config as schema
from jfusion.data import dataset
from jfusion.data.cache import materialize
from jfusion.data.problems import DataError
from jfusion.data.source import Subset
from jfusion.data.split import prepare_split
from jfusion.data.tabular import MISSING, OTHER, TabularInput
from tests.data.rows import Rows

NUMBERS, CATEGORIES = ("price", "reviews"), ("condition", "size")


def source(*rows):
    columns = (*NUMBERS, *CATEGORIES)
    return Rows([dict(zip(columns, row, strict=True)) for row in rows])


TRAIN = source(
    (10.0, 1, "used", "M"),
    ("30", 5, "new", None),
    (20, None, " new ", "S"),
    (None, "3", "", "M"),
)


def fitted(train=TRAIN, cache_dir="", **options):
    return TabularInput.fit(train, NUMBERS, CATEGORIES, cache_dir=cache_dir, **options)


def test_numbers_are_scaled_by_what_training_shows():
    made = fitted()
    arrays = made.encode([(10, 5, "new", "S"), ("20.0", 3, "new", "S"), (60, 1, "new", "S")]).arrays
    # Prices 10, 20, 30: mean 20, spread sqrt(200 / 3). Reviews 1, 5, 3: 3 and sqrt(8 / 3).
    price, reviews = math.sqrt(200 / 3), math.sqrt(8 / 3)
    expected = [[-10 / price, 2 / reviews], [0, 0], [40 / price, -2 / reviews]]
    np.testing.assert_allclose(arrays["numbers"], expected, atol=1e-6)
    assert arrays["known"].all()
    assert arrays["numbers"].dtype == np.float32 and arrays["known"].dtype == bool


def test_missing_cells_are_states_and_unknown_names_too():
    made = fitted()
    cells = [(None, 3, "new", "S"), (20, math.nan, "", None), (20, 3, "mint", "XL")]
    arrays = made.encode(cells).arrays
    assert arrays["known"].tolist() == [[False, True], [True, False], [True, True]]
    assert not arrays["numbers"].any()  # 0 where not known, and all others are the mean
    assert arrays["categories"].tolist() == [[2, 3], [MISSING, MISSING], [OTHER, OTHER]]
    assert arrays["categories"].dtype == np.int32
    assert made.sizes == {"numbers": 2, "categories": (4, 4)}


def test_names_are_sorted_and_forms_of_the_same_name_are_one():
    train = source((1, 1, True, 42), (2, 2, "true", "42"), (3, 3, np.True_, 42.0), (4, 4, "b", "7"))
    made = fitted(train)
    assert made.sizes["categories"] == (4, 4)
    cells = [(1, 1, "b", "7"), (1, 1, True, 42.0), (1, 1, "true ", np.int64(42))]
    assert made.encode(cells).arrays["categories"].tolist() == [[2, 3], [3, 2], [3, 2]]


def test_the_logarithm_is_of_the_size_and_keeps_the_sign():
    made = TabularInput(("a",), (), log=("a",), mean=[0.0], std=[1.0], names=[])
    arrays = made.encode([(math.e - 1,), (0,), (-(math.e**2) + 1,)]).arrays
    np.testing.assert_allclose(arrays["numbers"], [[1], [0], [-2]], atol=1e-6)
    plain = fitted().encode([(20, 3, "new", "S")]).arrays["numbers"]
    logged = fitted(log=("price",)).encode([(20, 3, "new", "S")]).arrays["numbers"]
    assert plain[0, 0] == 0 != logged[0, 0] and plain[0, 1] == logged[0, 1]


def test_far_numbers_stay_in_reach():
    arrays = fitted().encode([(1e30, -1e30, "new", "S")]).arrays
    assert arrays["numbers"].tolist() == [[10, -10]]


def test_a_constant_number_is_not_divided_by_nothing():
    made = fitted(source((5, 0.1, "a", "b"), (5, 0.1, "a", "b")))
    arrays = made.encode([(5, 0.1, "a", "b"), (7, 0.1, "a", "b")]).arrays
    np.testing.assert_allclose(arrays["numbers"], [[0, 0], [2, 0]], atol=1e-6)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (("ten", 3, "new", "S"), "price: 'ten' is not a number"),
        ((20, "inf", "new", "S"), "reviews: 'inf' is not a finite number, or too large"),
        ((True, 3, "new", "S"), "price: True is not a number"),
        ((20, 3, ["new"], "S"), "condition: ['new'] is no name"),
        ((20, 3, "new", 1.5), "size: 1.5 is no name"),
        ((20, 3, "new", b"S"), "size: b'S' is no name"),
    ],
)
def test_bad_cells_say_which_and_leave_their_neighbours_alone(cells, reason):
    good = (20, 3, "new", "S")
    made = fitted().encode([good, cells, good])
    assert list(made.bad) == [1]
    assert made.bad[1].startswith(reason)
    for array in made.arrays.values():
        assert not array[1].any()
        np.testing.assert_array_equal(array[0], array[2])


def test_decimals_are_numbers():
    assert not fitted().encode([(Decimal("20.5"), np.float32(3), "new", "S")]).bad


def test_fitting_passes_over_bad_rows_and_empty_cells_and_is_kept(tmp_path):
    again = Rows([*TRAIN.rows, {**TRAIN.rows[0], "price": "?"}])
    assert fitted(again).spec() == fitted().spec()
    reads = again.reads
    assert fitted(again).spec() == fitted().spec()
    assert again.reads == reads


def test_only_the_training_rows_are_looked_at():
    whole = Rows([*TRAIN.rows, {**TRAIN.rows[0], "price": 1000, "condition": "ruined"}])
    assert fitted(Subset(whole, np.arange(4))).spec() == fitted().spec()
    assert fitted(whole).spec() != fitted().spec()


def test_a_column_without_a_cell_is_refused():
    with pytest.raises(DataError, match="no cell that can be used in column 'size'"):
        fitted(source((1, 2, "a", None), (1, 2, "a", "")))


def test_it_comes_back_from_its_spec(tmp_path):
    made = fitted(log=("price",))
    made.save(tmp_path, "facts")
    again = dataset.input_from_spec(json.loads(json.dumps(made.spec())), tmp_path, "facts")
    assert again.spec() == made.spec() and again.sizes == made.sizes
    cells = [(12.5, None, "new", "L"), (None, 4, None, "M")]
    for key, array in made.encode(cells).arrays.items():
        np.testing.assert_array_equal(again.encode(cells).arrays[key], array)


def test_the_spec_tells_inputs_apart():
    specs = [
        fitted().spec(),
        fitted(log=("price",)).spec(),
        fitted(source((10.0, 1, "used", "M"), (30, 5, "old", "S"))).spec(),
    ]
    assert all(a != b for i, a in enumerate(specs) for b in specs[:i])


def test_a_row_without_any_of_the_cells_lacks_the_modality():
    rows = source((None, "", None, math.nan), (20, None, None, None), (None, None, None, "M"))
    rows = Rows([{**row, "other": 1} for row in rows.rows])
    column = materialize(rows, fitted(), progress=False)
    assert column.present.tolist() == [False, True, True]
    assert column.arrays["known"].tolist() == [[False, False], [True, False], [False, False]]
    assert column.arrays["categories"].tolist() == [[0, 0], [0, 0], [0, 2]]


@pytest.mark.parametrize(
    ("numbers", "categories", "arrays"),
    [(NUMBERS, (), {"numbers", "known"}), ((), CATEGORIES, {"categories"})],
)
def test_numbers_or_categories_alone(numbers, categories, arrays):
    made = TabularInput.fit(TRAIN, numbers, categories)
    column = materialize(TRAIN, made, progress=False)
    assert column.arrays.keys() == arrays
    assert all(array.shape == (4, 2) for array in column.arrays.values())
    assert made.sizes["numbers"] == len(numbers)


def test_a_split_names_the_columns_of_a_bad_cell():
    rows = source((20, 3, "new", "S"), ("x", 3, "new", "S"))
    with pytest.raises(DataError, match=r"row 2, column 'price, reviews, .*price: 'x' is not a nu"):
        prepare_split(rows, {"facts": fitted()}, progress=False)
    split = prepare_split(rows, {"facts": fitted()}, on_error="skip", progress=False)
    assert split.keep.tolist() == [0]
    assert split.status(1) == "bad: facts: price: 'x' is not a number"
    with pytest.raises(DataError, match="has no column 'size'"):
        prepare_split(Rows([dict.fromkeys(NUMBERS, 1) | {"condition": "a"}]), {"facts": fitted()})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "numbers: expected at least one column here or in categories"),
        ({"numbers": ("a", "b"), "categories": ("a",)}, "categories: expected all different"),
        ({"numbers": ("a",), "log": ("b",)}, "log: expected some of numbers"),
    ],
)
def test_the_section_refuses_what_makes_no_sense(options, message):
    with pytest.raises(schema.RangeError, match=message):
        schema.Tabular(schema.Encoder("tabular"), **options)
