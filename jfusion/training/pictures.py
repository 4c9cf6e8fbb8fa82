"""A page of a split's rows for TensorBoard: picture, first words, true and predicted labels.

The letters are those of Pillow's built-in font, which needs no font file but knows little beyond
ASCII: accents are dropped, and letters of other scripts become question marks.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_PICTURE = 224  # side of a picture, which is also the width of the lines under it
_GAP = 20
_FONT_SIZE, _LINE, _BLOCK_GAP = 15, 19, 5
_TEXT_LINES, _LABEL_LINES = 3, 5

_BLACK, _RIGHT, _WRONG, _MISSED = (30, 30, 30), (0, 125, 55), (200, 25, 25), (125, 125, 125)
_QUIET, _EMPTY = (95, 95, 105), (240, 240, 242)

_KNOWN = "\u2018\u2019\u201c\u201d\xab\xbb\xb0"  # curly quotes, guillemets, degree
_FOLDED = str.maketrans(  # letters that Unicode does not take apart, and dashes
    dict(zip("\xdf\xe6\xc6\u0153\u0152", ("ss", "ae", "AE", "oe", "OE"), strict=True))
    | dict(zip("\xf8\xd8\u0142\u0141\u0131\u2013\u2014", "oOlLi--", strict=True))
)

Colour = tuple[int, int, int]
Word = tuple[str, Colour]
Line = list[Word]
Block = list[Line]  # lines that belong together; a little room parts it from the next


@dataclass(frozen=True)
class Row:
    """What is shown of a row.

    Attributes:
        picture: uint8 [H, W, 3], or None where the row has none.
        text: The first words are shown; None where the row has none.
        targets: 0 or 1 for each label, [C].
        probabilities: [C].
    """

    picture: np.ndarray | None
    text: str | None
    targets: np.ndarray
    probabilities: np.ndarray


def draw(
    rows: Sequence[Row], labels: Sequence[str], threshold: float = 0.5, columns: int = 4
) -> np.ndarray:
    """Draws the rows in a grid.

    Under each picture stand the first words, the true labels, and the predicted ones with their
    probabilities: green where right, red where wrong, and in grey the true ones that were missed.
    What no row has, pictures or text, is left out of the page.

    Args:
        rows: At least one.
        labels: The C names.
        threshold: A label is predicted where its probability exceeds this.
        columns: Rows side by side.

    Returns:
        The page, uint8 [H, W, 3].
    """
    font = ImageFont.load_default(_FONT_SIZE)
    top = _PICTURE + _GAP // 2 if any(row.picture is not None for row in rows) else 0
    with_text = any(row.text is not None for row in rows)
    names = [fold(label) for label in labels]
    captions = [_caption(row, names, threshold, font, with_text) for row in rows]
    columns = min(columns, len(rows))
    starts = range(0, len(rows), columns)
    heights = [top + max(map(_height, captions[i : i + columns])) for i in starts]
    width = _GAP + columns * (_PICTURE + _GAP)
    page = Image.new("RGB", (width, 2 * _GAP + _LINE + sum(h + _GAP for h in heights)), "white")
    pen = ImageDraw.Draw(page)
    legend = [("right", _RIGHT), ("wrong", _WRONG), ("missed", _MISSED)]
    _write(pen, _GAP, _GAP // 2, [[legend]], font)
    y = _GAP + _LINE
    for start, height in zip(starts, heights, strict=True):
        for column in range(min(columns, len(rows) - start)):
            x = _GAP + column * (_PICTURE + _GAP)
            if top:
                _put(page, pen, x, y, rows[start + column].picture, font)
            _write(pen, x, y + top, captions[start + column], font)
        y += height + _GAP
    return np.asarray(page)


def _caption(
    row: Row, labels: Sequence[str], threshold: float, font: ImageFont.FreeTypeFont, with_text: bool
) -> list[Block]:
    """What stands under a picture."""
    true = [label for label, target in zip(labels, row.targets, strict=True) if target > 0.5]
    predicted, missed = [], []
    for c in np.argsort(-row.probabilities, kind="stable"):
        word = f"{labels[c]} {row.probabilities[c]:.2f}"
        right = row.targets[c] > 0.5
        if row.probabilities[c] > threshold:
            predicted.append((word, _RIGHT if right else _WRONG))
        elif right:
            missed.append((word, _MISSED))
    truth = [(label, _BLACK) for label in true] or [("none", _QUIET)]
    answer = predicted + missed if predicted else [("none", _QUIET), *missed]
    blocks = [
        _wrap([("true:", _QUIET), *_listed(truth)], font, _LABEL_LINES),
        _wrap([("predicted:", _QUIET), *_listed(answer)], font, _LABEL_LINES),
    ]
    if with_text:
        text = "no text" if row.text is None else fold(row.text[:1000])  # a text can be a book
        colour = _MISSED if row.text is None else _BLACK
        blocks.insert(0, _wrap([(word, colour) for word in text.split()], font, _TEXT_LINES))
    return blocks


def fold(text: str) -> str:
    """Writes a text in the letters that the font has."""
    letters = unicodedata.normalize("NFKD", text.translate(_FOLDED))
    return "".join(
        letter if letter.isascii() or letter in _KNOWN else "?"
        for letter in letters
        if not unicodedata.combining(letter)
    )


def _listed(words: Sequence[Word]) -> list[Word]:
    return [(f"{text},", colour) for text, colour in words[:-1]] + list(words[-1:])


def _wrap(words: Iterable[Word], font: ImageFont.FreeTypeFont, most_lines: int) -> Block:
    """Breaks words into lines; those beyond the last line become an ellipsis."""
    lines: Block = [[]]
    for text, colour in words:
        while font.getlength(text) > _PICTURE:  # one word alone is too long for a line
            text = text.removesuffix("\N{HORIZONTAL ELLIPSIS}")[:-1] + "\N{HORIZONTAL ELLIPSIS}"
        if lines[-1] and _length([*lines[-1], (text, colour)], font) > _PICTURE:
            if len(lines) == most_lines:
                rest = ("\N{HORIZONTAL ELLIPSIS}", colour)
                while lines[-1][1:] and _length([*lines[-1], rest], font) > _PICTURE:
                    lines[-1].pop()
                lines[-1].append(rest)
                break
            lines.append([])
        lines[-1].append((text, colour))
    return lines


def _length(line: Line, font: ImageFont.FreeTypeFont) -> float:
    return font.getlength(" ".join(text for text, _ in line))


def _height(blocks: Sequence[Block]) -> int:
    return sum(_LINE * len(block) + _BLOCK_GAP for block in blocks)


def _write(
    pen: ImageDraw.ImageDraw,
    left: int,
    y: int,
    blocks: Sequence[Block],
    font: ImageFont.FreeTypeFont,
) -> None:
    for block in blocks:
        for line in block:
            x = float(left)
            for text, colour in line:
                pen.text((x, y), text, colour, font)
                x += font.getlength(text + " ")
            y += _LINE
        y += _BLOCK_GAP


def _put(
    page: Image.Image,
    pen: ImageDraw.ImageDraw,
    x: int,
    y: int,
    picture: np.ndarray | None,
    font: ImageFont.FreeTypeFont,
) -> None:
    """Puts a picture, or an empty frame that says so, into the square at x, y."""
    if picture is None:
        square = (x, y, x + _PICTURE - 1, y + _PICTURE - 1)
        pen.rectangle(square, fill=_EMPTY, outline=_MISSED)
        middle = (x + _PICTURE // 2, y + _PICTURE // 2)
        pen.text(middle, "no picture", _MISSED, font, anchor="mm")
        return
    image = Image.fromarray(picture)
    scale = _PICTURE / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    image = image.resize(size, Image.Resampling.BICUBIC)
    page.paste(image, (x + (_PICTURE - size[0]) // 2, y + (_PICTURE - size[1]) // 2))
