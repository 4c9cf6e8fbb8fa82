import itertools

import numpy as np
import pytest
from PIL import ImageDraw

from jfusion.training import pictures
from jfusion.training.pictures import Row

LABELS = ["drama", "comedy", "war"]
GREEN, RED, GREY = (0, 125, 55), (200, 25, 25), (125, 125, 125)


@pytest.fixture
def written(monkeypatch):
    """The words drawn on a page, with their colours, in order, without the legend."""
    words = []
    text = ImageDraw.ImageDraw.text

    def record(self, position, word, colour, font, **options):
        words.append((word, colour))
        text(self, position, word, colour, font, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    return lambda: words[3:]


def row(true, probabilities, text="Two words", picture=True):
    image = np.full((50, 50, 3), 200, np.uint8) if picture else None
    targets = np.array([label in true for label in LABELS], np.float32)
    return Row(image, text, targets, np.array(probabilities, np.float32))


def colours(words):
    return {word.rstrip(","): colour for word, colour in words}


def test_right_wrong_and_missed(written):
    pictures.draw([row(["drama", "war"], [0.9, 0.75, 0.25])], LABELS)
    words = [word for word, _ in written()]
    assert words == [
        *("Two", "words", "true:", "drama,", "war"),
        *("predicted:", "drama 0.90,", "comedy 0.75,", "war 0.25"),
    ]
    shown = colours(written())
    assert shown["drama 0.90"] == GREEN
    assert shown["comedy 0.75"] == RED
    assert shown["war 0.25"] == GREY


def test_the_threshold_decides(written):
    pictures.draw([row(["drama"], [0.3, 0.25, 0.1])], LABELS, threshold=0.25)
    shown = colours(written())
    assert shown["drama 0.30"] == GREEN and "comedy 0.25" not in shown


def test_nothing_true_and_nothing_predicted(written):
    pictures.draw([row([], [0.1, 0.1, 0.1])], LABELS)
    words = [word for word, _ in written()]
    assert words[2:] == ["true:", "none", "predicted:", "none"]


def test_absent_picture_and_text_say_so(written):
    here, gone = row([], [0.1] * 3), row([], [0.1] * 3, text=None, picture=False)
    pictures.draw([here, gone], LABELS)
    words = [word for word, _ in written()]
    assert words.count("picture") == 0 and words.count("no picture") == 1
    assert ("no", "text") in itertools.pairwise(words)


def test_a_modality_that_no_row_has_is_left_out(written):
    with_picture = pictures.draw([row([], [0.1] * 3)] * 2, LABELS)
    without = pictures.draw([row([], [0.1] * 3, picture=False)] * 2, LABELS)
    assert without.shape[0] < with_picture.shape[0] - 200
    assert "no picture" not in [word for word, _ in written()]


def test_the_page(written):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (224, 224, 3), np.uint8)
    tall = np.zeros((400, 100, 3), np.uint8)
    rows = [Row(p, "x", np.zeros(3), np.zeros(3)) for p in (image, tall, image)]
    page = pictures.draw(rows, LABELS, columns=2)
    assert page.dtype == np.uint8 and page.shape[1:] == (20 + 2 * 244, 3)
    windows = np.argwhere((page[:, 20] == image[0, 0]).all(axis=-1))
    tops = [y for (y,) in windows if (page[y : y + 224, 20:244] == image).all()]
    assert len(tops) == 2, "a picture of the right size is shown as it is, one per grid row"
    black = np.argwhere((page[tops[0] : tops[0] + 224] == 0).all(axis=-1))
    assert np.ptp(black, axis=0).tolist() == [223, 55], "the aspect ratio stays"
    np.testing.assert_array_equal(page, pictures.draw(rows, LABELS, columns=2))


def test_long_texts_and_many_labels_are_cut(written):
    labels = [f"label number {i}" for i in range(200)]
    many = Row(None, "word " * 5000, np.ones(200), np.full(200, 0.9))
    endless = Row(None, "x" * 5000, np.ones(200), np.full(200, 0.9))
    page = pictures.draw([many, endless], labels)
    assert page.shape[0] < 400
    assert sum(word.endswith("…") for word, _ in written()) == 6


def test_letters_that_the_font_does_not_have(written):
    pictures.draw([row([], [0.1] * 3, text="Über-Größe \u2013 “naïve” Łódź 愛")], LABELS)
    words = [word for word, _ in written()]
    assert words[:5] == ["Uber-Grosse", "-", "“naive”", "Lodz", "?"]
