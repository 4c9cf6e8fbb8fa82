import numpy as np

from jfusion.training import confusion


def test_counts_are_true_by_predicted():
    probabilities = np.eye(3)[[0, 1, 1, 2, 0]]
    counts = confusion.matrix(probabilities, np.array([0, 1, 2, 2, 2]))
    np.testing.assert_array_equal(counts, [[1, 0, 0], [0, 1, 0], [1, 1, 1]])


def test_a_class_that_nobody_has_keeps_its_place():
    counts = confusion.matrix(np.eye(4)[[0, 3]], np.array([0, 3]))
    assert counts.shape == (4, 4) and counts.sum() == 2


def test_the_picture_is_darker_where_more_went():
    counts = np.array([[9, 1, 0], [0, 0, 0], [5, 0, 5]])
    page = confusion.draw(counts, ["10", "a rather long name of a class, too long", "Émile"])
    assert page.dtype == np.uint8
    side, cell = page.shape[1], 44
    start = side - 10 - 3 * cell

    def shade(i, j):
        return page[start + cell * i + 2, start + cell * j + 2].sum()

    assert shade(0, 0) < shade(2, 0) == shade(2, 2) < shade(0, 1) < shade(0, 2)
    assert shade(1, 1) == 3 * 255, "no row of it: nothing to show"
