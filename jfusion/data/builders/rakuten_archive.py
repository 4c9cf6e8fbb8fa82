"""Reads the Rakuten France challenge as it is handed out, by ENS or for SIGIR eCom 2020.

All of the text is read and checked before anything is built, so that every fault of the files is
told at once. The answers of the challenge's test files were never given out: they are not read.
"""

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from jfusion.data import formats, likeness
from jfusion.data.builders.rakuten_text import clean
from jfusion.data.columns import near, require_column
from jfusion.data.image import decode, upright
from jfusion.data.problems import BadCell, DataError, Problem

LABELS = (
    *("10", "40", "50", "60", "1140", "1160", "1180", "1280", "1281", "1300", "1301", "1302"),
    *("1320", "1560", "1920", "1940", "2060", "2220", "2280", "2403", "2462", "2522", "2582"),
    *("2583", "2585", "2705", "2905"),
)
"""The 27 product type codes. Their names are nobody's: each publication has its own."""


@dataclass(frozen=True)
class Form:
    """The names in which the challenge comes.

    Attributes:
        products: The file of texts.
        answers: The file of codes, row for row.
        index: The column that numbers the rows of both.
        title: Column of `products`, as the next three.
        description: See there.
        product: See there.
        picture: See there.
        code: Column of `answers`.
    """

    products: str
    answers: str
    index: str
    title: str
    description: str
    product: str
    picture: str
    code: str


FORMS = (
    Form(
        *("X_train_update.csv", "Y_train_CVw08PX.csv", ""),
        *("designation", "description", "productid", "imageid", "prdtypecode"),
    ),
    Form(
        *("X_train.tsv", "Y_train.tsv", "Integer_id"),
        *("Title", "Description", "Product_id", "Image_id", "Prdtypecode"),
    ),
)
_PICTURES = tuple(
    f"{parent}{name}"
    for name in ("image_train", "image_training")
    for parent in ("images/", "image/", "")
)
_NUMBER = re.compile(r"[0-9]+")

Progress = Callable[[Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Files:
    """Where everything lies.

    Attributes:
        form: The names.
        products: The file of texts.
        answers: The file of codes.
        pictures: The folder of pictures.
    """

    form: Form
    products: Path
    answers: Path
    pictures: Path


@dataclass(frozen=True)
class Product:
    """One product.

    Attributes:
        id: Its number.
        designation: The title; None where it has none.
        description: None where it has none.
        code: One of `LABELS`.
        picture: Where its picture should be.
        digest: What it shares with other products only if their pictures have the same pixels;
            None where the picture is missing or broken, or was not looked at.
        fault: Why it cannot be used, in a word: `missing` or `broken`; empty for a good picture.
    """

    id: str
    designation: str | None
    description: str | None
    code: str
    picture: Path
    digest: str | None = None
    fault: str = ""


def find(folder: Path) -> Files:
    """Where everything lies in a folder, in either form.

    Raises:
        DataError: A file or the folder of pictures is not there.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    for form in FORMS:
        products, answers = folder / form.products, folder / form.answers
        if not products.is_file():
            continue
        if not answers.is_file():
            raise DataError(f"{folder}: has {form.products}, but not {form.answers}")
        for name in _PICTURES:
            if (folder / name).is_dir():
                return Files(form, products, answers, folder / name)
        raise DataError(
            f"{folder}: has no pictures; expected {_PICTURES[0]} or one of "
            f"{', '.join(_PICTURES[1:])}, which the challenge's archive of pictures unpacks to"
        )
    raise DataError(
        f"{folder}: has neither {' nor '.join(form.products for form in FORMS)}, with which the "
        "challenge comes"
    )


def read(files: Files) -> list[Product]:
    """Reads and checks the texts and codes, not the pictures.

    Raises:
        DataError: Names every bad cell, and every row in which the two files do not match.
    """
    form = files.form
    products, answers = formats.read(files.products), formats.read(files.answers)
    wanted = (form.index, form.title, form.description, form.product, form.picture)
    for file, columns, names in (
        (files.products, products, wanted),
        (files.answers, answers, (form.index, form.code)),
    ):
        for name in names:
            require_column(str(file), name, columns)
    count, other = len(products[form.index]), len(answers[form.index])
    if count != other:
        raise DataError(
            f"{files.products} has {count} rows and {files.answers} {other}; they must match row "
            "for row"
        )
    problems = _mismatches(files, products[form.index], answers[form.index])
    problems += _bad_numbers(files, products) + _unknown_codes(files, answers[form.code])
    if problems:
        raise DataError("the files of the challenge cannot be used as they are", problems)
    return [
        Product(
            id=product.strip(),
            designation=clean(title),
            description=clean(description),
            code=code.strip(),
            picture=files.pictures / f"image_{picture.strip()}_product_{product.strip()}.jpg",
        )
        for title, description, product, picture, code in zip(
            *(products[name] for name in wanted[1:]), answers[form.code], strict=True
        )
    ]


def look(products: Sequence[Product], progress: Progress = iter) -> list[Product]:
    """Decodes the products' pictures, to find which are the same and which cannot be used.

    Raises:
        DataError: The machine does not let a file be read.
    """

    def look_at(product: Product) -> Product:
        if not product.picture.is_file():
            return replace(product, fault="missing")
        try:
            return replace(product, digest=decode(product.picture.read_bytes(), None, _digest))
        except BadCell:
            return replace(product, fault="broken")
        except OSError as error:
            raise DataError(f"{product.picture}: cannot be read: {error.strerror}") from None

    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata
        return list(progress(pool.map(look_at, products)))


def summary(products: Iterable[Product]) -> dict[str, Any]:
    """Counts of a split, ready for JSON."""
    products = list(products)
    codes = Counter(product.code for product in products)
    return {
        "products": len(products),
        "without_designation": sum(product.designation is None for product in products),
        "without_description": sum(product.description is None for product in products),
        "missing": [product.id for product in products if product.fault == "missing"],
        "broken": [product.id for product in products if product.fault == "broken"],
        "labels": {label: codes[label] for label in LABELS},
    }


def _digest(image: Image.Image) -> str:
    return likeness.digest(upright(image))


def _mismatches(files: Files, first: Sequence[str], second: Sequence[str]) -> list[Problem]:
    """The rows of the answers that are not those of the products."""
    return [
        Problem(
            str(files.answers),
            f"row {row}",
            files.form.index,
            f"number {answer!r} where {files.products.name} has {product!r}; they must match row "
            "for row",
        )
        for row, (product, answer) in enumerate(zip(first, second, strict=True), start=1)
        if product.strip() != answer.strip()
    ]


def _bad_numbers(files: Files, products: dict[str, Sequence[str]]) -> list[Problem]:
    """Ids of products and pictures that are none, or stand twice."""
    problems = []
    for column in (files.form.product, files.form.picture):
        first: dict[str, int] = {}
        for row, cell in enumerate(products[column], start=1):
            number = cell.strip()
            if not _NUMBER.fullmatch(number):
                reason = f"{cell!r} is not a number"
            elif first.setdefault(number, row) != row:
                reason = f"{number} stands in row {first[number]} too"
            else:
                continue
            problems.append(Problem(str(files.products), f"row {row}", column, reason))
    return problems


def _unknown_codes(files: Files, codes: Sequence[str]) -> list[Problem]:
    return [
        Problem(
            str(files.answers),
            f"row {row}",
            files.form.code,
            f"{code!r} is none of the {len(LABELS)} codes{near(code, LABELS)}",
        )
        for row, code in enumerate(codes, start=1)
        if code.strip() not in LABELS
    ]
