"""Made-up files with the layout of the Rakuten France challenge and every oddity of the real ones.

write(folder) -> folder/X_train_update.csv, Y_train_CVw08PX.csv, X_test_update.csv, and
folder/images/image_train/image_<imageid>_product_<productid>.jpg
"""

import csv
import io
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

CODES = (
    *("10", "40", "50", "60", "1140", "1160", "1180", "1280", "1281", "1300", "1301", "1302"),
    *("1320", "1560", "1920", "1940", "2060", "2220", "2280", "2403", "2462", "2522", "2582"),
    *("2583", "2585", "2705", "2905"),
)
_THINGS = (
    *("roman", "console", "manette", "jeu", "figurine", "carte", "masque", "jouet", "puzzle"),
    *("drone", "lampe", "tente", "poussette", "canapé", "coussin", "chocolat", "tableau"),
    *("gamelle", "revue", "encyclopédie", "stylo", "cahier", "parasol", "piscine", "tondeuse"),
    *("livre", "logiciel"),
)
_LOOKS = (
    *("noir", "bleu", "en bois", "lot de 2", "neuf", "d'occasion", "for kids", "für Kinder"),
    *("très léger", "pliable", "vintage", "officiel", "grande taille", "pour enfant"),
)

# Oddity -> the cleaned description.
DESCRIPTIONS = {
    "tags": "Un très grand sac noir, lavable.",
    "entities": "Étui & câble à 5 € \u2013 « neuf »",
    "escaped_twice": "L'été arrive en 2020 < 2021",
    "cp1252": "Prix : 10 € l\u2019ensemble \u2013 “neuf”…",
    "newlines": 'Première ligne deuxième ligne "citée" fin',
    "no_tags": "taille <XL> et 3 < 5 > 4",
    "nan": None,
    "nan_in_capitals": None,
    "no_description": None,
    "nothing_to_see": None,
}


def write(
    folder: Path, products: int = 60, *, codes: int = 27, size: int = 100, tsv: bool = False
) -> dict[str, str]:
    """Writes the files.

    Args:
        folder: Where to; made if it is not there.
        products: How many, at least as many as there are oddities.
        codes: How many of the 27 codes there are products of.
        size: Side of the pictures in pixels; the real ones have 500.
        tsv: Whether to write the files of SIGIR eCom 2020.

    Returns:
        Oddity -> id of the product that has it.
    """
    if products < len(_ODDITIES):
        raise ValueError(f"{len(_ODDITIES)} oddities do not fit into {products} products")
    rng = random.Random(0)
    pictures = folder / ("images/image_training" if tsv else "images/image_train")
    pictures.mkdir(parents=True)
    numbers = rng.sample(range(10**8, 10**9), 2 * products)
    rows, answers, odd = [], [], {}
    for index in range(products):
        code = index % codes
        row = {
            "title": _title(rng, code, index),
            "description": _description(rng, code) if rng.random() >= 0.35 else "",
            "product": str(numbers[index]),
            "image": str(numbers[products + index]),
        }
        picture = _encoded(_picture(random.Random(f"picture {index}"), code, size), quality=90)
        if index < len(_ODDITIES):
            oddity = list(_ODDITIES)[index]
            odd[oddity] = row["product"]
            picture = _ODDITIES[oddity](row, picture, size)
        if picture is not None:
            name = f"image_{row['image']}_product_{row['product']}.jpg"
            (pictures / name).write_bytes(picture)
        rows.append([index, *row.values()])
        answers.append([index, CODES[code]])
    if tsv:
        header = ["Integer_id", "Title", "Description", "Product_id", "Image_id"]
        order = [0, 1, 2, 4, 3]  # the picture's id stands before the product's
        _table(folder / "X_train.tsv", [[row[i] for i in order] for row in (header, *rows)])
        _table(folder / "Y_train.tsv", [["Integer_id", "Prdtypecode"], *answers])
        return odd
    header = ["", "designation", "description", "productid", "imageid"]
    _table(folder / "X_train_update.csv", [header, *rows])
    _table(folder / "Y_train_CVw08PX.csv", [["", "prdtypecode"], *answers])
    _table(folder / "X_test_update.csv", [header, [products, "sans réponse", "", "1", "2"]])
    return odd


def _table(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Writes a table as pandas does."""
    with path.open("w", encoding="utf-8", newline="") as file:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)


def _title(rng: random.Random, code: int, index: int) -> str:
    looks = " ".join(rng.sample(_LOOKS, 2))
    return f"{_THINGS[code].capitalize()} {looks} réf. {index}-{rng.randrange(1000)}"


def _description(rng: random.Random, code: int) -> str:
    words = [_THINGS[code], *(rng.choice(_LOOKS) for _ in range(rng.randrange(5, 60)))]
    return f"<p>{'&nbsp;: '.join(words)}</p>"


def _picture(rng: random.Random, code: int, size: int) -> Image.Image:
    """Some forms in the colours of a code, in the middle of a white square."""
    canvas = Image.new("RGB", (size, size), "white")
    pen = ImageDraw.Draw(canvas)
    low, high = size // 5, size - size // 5
    for form in range(4):
        left, top = (rng.randrange(low, high - size // 8) for _ in range(2))
        right, bottom = (rng.randrange(at + size // 10, high + 1) for at in (left, top))
        colour = tuple((37 * (code + 1) * (channel + 1) + 29 * form) % 220 for channel in range(3))
        (pen.ellipse if form % 2 else pen.rectangle)((left, top, right, bottom), fill=colour)
    return canvas


def _encoded(picture: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", **options)
    return file.getvalue()


def _described(text: str) -> Callable:
    """An oddity of the description."""

    def change(row: dict[str, str], picture: bytes, size: int) -> bytes:
        row["description"] = text
        return picture

    return change


def _titled(text: str) -> Callable:
    """An oddity of the title."""

    def change(row: dict[str, str], picture: bytes, size: int) -> bytes:
        row["title"] = text
        return picture

    return change


def _pictured(make: Callable[[int], bytes | None]) -> Callable:
    """An oddity of the picture, which is made of its size."""
    return lambda row, picture, size: make(size)


def _twin(size: int) -> Image.Image:
    return _picture(random.Random("twin"), 3, size)


_ODDITIES = {
    "tags": _described('<p class="x">Un très <b>gr</b>and sac<br />noir,</P><!-- <a> -->lavable.'),
    "entities": _described("&Eacute;tui &amp; c&acirc;ble &agrave; 5&nbsp;&#128; &ndash; « neuf »"),
    "escaped_twice": _described(
        "L&amp;#39;&amp;eacute;t&amp;eacute;&lt;br&gt;arrive en 2020 < 2021"
    ),
    "cp1252": _described("Prix : 10 \x80 l\x92ensemble \x96 \x93neuf\x94\x85\x81"),
    "newlines": _described('Première ligne\r\ndeuxième\tligne\n\n"citée" fin\n'),
    "no_tags": _described("taille <XL> et 3 < 5 > 4"),
    "nan": _described("nan"),
    "nan_in_capitals": _described(" NaN "),
    "no_description": _described(""),
    "nothing_to_see": _described("<br />&nbsp;<p></p>\x81"),
    "long_description": _described("<li>Un coussin très doux</li>" * 500),
    "spaces_in_title": _titled("  Lampe de\xa0bureau \n"),
    "same_title": _titled("Étui rigide, noir (XL)"),
    "same_title_again": _titled("ETUI RIGIDE NOIR XL"),
    "no_title": _titled("&nbsp;"),
    "no_picture": _pictured(lambda size: None),
    "empty_picture": _pictured(lambda size: b""),
    "broken_picture": _pictured(lambda size: _encoded(_twin(size))[:-200]),
    "same_picture": _pictured(lambda size: _encoded(_twin(size), quality=90)),
    "same_picture_again": _pictured(
        lambda size: _encoded(_twin(size), quality=90, comment="other bytes, same pixels")
    ),
    "near_picture": _pictured(lambda size: _encoded(_twin(size), quality=40)),
    "white": _pictured(lambda size: _encoded(Image.new("RGB", (size, size), "white"))),
    "white_again": _pictured(lambda size: _encoded(Image.new("RGB", (size, size), "white"))),
}
