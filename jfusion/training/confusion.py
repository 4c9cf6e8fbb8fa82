"""The confusion matrix of classes, and a picture of it."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.metrics import confusion_matrix

from jfusion.training.pictures import fold

_FONT_SIZE, _CELL, _GAP, _LEGEND = 13, 44, 10, 26
_INK, _PALE, _DEEP = (30, 30, 30), np.array([255, 255, 255]), np.array([20, 80, 160])
_LONGEST = 24  # letters of a name that are shown


def matrix(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """How often each true class was taken for each other.

    Args:
        probabilities: [N, C]; the class of the highest is predicted.
        targets: The classes, integers, [N].

    Returns:
        Counts, int64 [C, C]: true class by predicted class.
    """
    count = probabilities.shape[1]
    return confusion_matrix(targets, probabilities.argmax(axis=1), labels=range(count))


def draw(counts: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Draws a confusion matrix: a row per true class, darker where more of its rows went.

    Args:
        counts: See `matrix`.
        labels: The C names.

    Returns:
        The picture, uint8 [H, W, 3].
    """
    font = ImageFont.load_default(_FONT_SIZE)
    names = [fold(label)[:_LONGEST] for label in labels]
    margin = 3 * _GAP + round(max(font.getlength(name) for name in names))
    side = margin + _CELL * len(names) + _GAP
    page = Image.new("RGB", (side, side + _LEGEND), "white")
    pen = ImageDraw.Draw(page)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for i, name in enumerate(names):
        middle = margin + _CELL * i + _CELL // 2
        pen.text((margin - _GAP, middle), name, _INK, font, anchor="rm")
        _write_upwards(page, name, middle, margin - _GAP, font)
        for j, count in enumerate(counts[i]):
            x, y = margin + _CELL * j, margin + _CELL * i
            shade = tuple(np.round(_PALE + shares[i, j] * (_DEEP - _PALE)).astype(int).tolist())
            pen.rectangle((x, y, x + _CELL - 2, y + _CELL - 2), fill=shade)
            if count:
                ink = "white" if shares[i, j] > 0.5 else _INK
                pen.text((x + _CELL // 2, y + _CELL // 2), str(count), ink, font, anchor="mm")
    pen.text((_GAP, side), "row: true class, column: predicted", _INK, font)
    return np.asarray(page)


def _write_upwards(
    page: Image.Image, name: str, x: int, bottom: int, font: ImageFont.FreeTypeFont
) -> None:
    width = max(1, round(font.getlength(name)))
    line = Image.new("RGB", (width, _FONT_SIZE + 5), "white")
    ImageDraw.Draw(line).text((0, 0), name, _INK, font)
    line = line.rotate(90, expand=True)
    page.paste(line, (x - line.width // 2, bottom - line.height))
