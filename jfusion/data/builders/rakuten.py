"""Rakuten France's product listings as a TFDS data set, built and read without TensorFlow.

They are had from the ENS challenge no. 35 (https://challengedata.ens.fr/challenges/35, a free
account) or were given out for SIGIR eCom 2020. Of the 84,916 products with an answer, 70 % are for
training and 15 % each for validation and the test; products with the same picture or the same title
are on one side. No such split is official, since the answers of the challenge's own test were never
given out: scores on this one compare with no leaderboard.
"""

import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from jfusion.data import groups, likeness
from jfusion.data.builders import built
from jfusion.data.builders import rakuten_archive as archive
from jfusion.data.builders.built import BuiltSplit
from jfusion.data.builders.rakuten_archive import LABELS, Product
from jfusion.data.source import Row

SEED = 20
"""Seeds the division into splits."""
# Which of 20 equal parts are not for training. They stand apart, so that a rare code, whose
# products go to neighbouring parts, is in the training split, too.
PARTS = 20
VAL, TEST = (4, 11, 17), (7, 14, 19)

_NAMED = 20  # products that are named for a broken picture, at most


class Rakuten(tfds.core.GeneratorBasedBuilder):
    """84,916 products with title, description, picture and one of 27 codes (ECIR 2021)."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The folder with X_train_update.csv and images/image_train."

    # Nothing is downloaded. To find that out, TFDS 4.9 would need `importlib_resources`, which it
    # does not install.
    url_infos = None

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "designation": tfds.features.Text(),
                    "description": tfds.features.Text(),
                    "image": tfds.features.Image(),
                    "code": tfds.features.ClassLabel(names=LABELS),
                }
            ),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,  # rows stand in the order of the challenge's file
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        products = archive.read(archive.find(Path(dl_manager.manual_dir)))
        products = archive.look(products, built.progress("Looking at pictures...", " products"))
        splits, shared = divide(products)
        self.info.metadata["counts"] = {
            split: archive.summary(chosen) | {kind: shared[kind][split] for kind in shared}
            for split, chosen in splits.items()
        }
        self.info.metadata["fingerprints"] = {}
        return {split: self._generate_examples(split, rows) for split, rows in splits.items()}

    def _generate_examples(
        self, split: str, products: list[Product]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        digest = hashlib.sha256()
        for row, product in enumerate(products):
            picture = b"" if product.fault else product.picture.read_bytes()
            texts = {
                "id": product.id,
                "designation": product.designation or "",
                "description": product.description or "",
                "code": product.code,
            }
            for text in texts.values():
                digest.update(f"{len(text)} {text}".encode())
            digest.update(hashlib.sha256(picture).digest())
            # A file object: bytes are not looked into.
            yield row, texts | {"image": io.BytesIO(picture)}
        # TFDS writes the metadata when all splits are generated.
        self.info.metadata["fingerprints"][split] = digest.hexdigest()


class RakutenSplit(BuiltSplit):
    """One split of the built data set, a `Source`."""

    def __init__(self, builder: Rakuten, split: str):
        super().__init__(builder, split, {"image": tfds.decode.SkipDecoding()})

    def row(self, record: dict[str, Any]) -> Row:
        """The product that a record stands for."""
        texts = {key: record[key].decode() for key in ("designation", "description")}
        full = [text for text in texts.values() if text]
        return {
            "id": record["id"].decode(),
            **{key: text or None for key, text in texts.items()},
            "text": " ".join(full) or None,
            "image": record["image"] or None,
            "code": LABELS[record["code"]],
        }


def divide(
    products: Sequence[Product],
) -> tuple[dict[str, list[Product]], dict[str, dict[str, int]]]:
    """Divides the products, in their order, into splits that are alike in their codes.

    Those with the same picture or title, directly or by way of others, are in one split.

    Returns:
        The splits, and how many products of each share their `title` or `picture` with another.
    """
    titles = [likeness.normalised(product.designation or "") or None for product in products]
    pictures = [product.digest for product in products]
    names = groups.unite(titles, pictures)
    parts = groups.deal(names, [product.code for product in products], PARTS, SEED)
    split_of = ["val" if part in VAL else "test" if part in TEST else "train" for part in parts]
    splits: dict[str, list[Product]] = {split: [] for split in ("train", "val", "test")}
    for product, split in zip(products, split_of, strict=True):
        splits[split].append(product)
    shared = {"shared_title": titles, "shared_picture": pictures}
    counts = {}
    for kind, keys in shared.items():
        frequency = Counter(key for key in keys if key is not None)
        of = Counter(s for s, key in zip(split_of, keys, strict=True) if frequency[key] > 1)
        counts[kind] = {split: of[split] for split in splits}
    return splits, counts


def open_built(data_dir: str | os.PathLike = "") -> Rakuten | None:
    """The built data set in `data_dir` (empty: the default), or None if it is not there."""
    return built.open_built(Rakuten, data_dir)


def build(source: str | os.PathLike, data_dir: str | os.PathLike = "") -> Rakuten:
    """Builds the data set unless it is built.

    Args:
        source: The folder with the challenge's files; see `rakuten_archive.find`.
        data_dir: Where to; empty: the default.

    Raises:
        DataError: The source is something else, or files of it are missing or broken.
    """
    source = Path(source).expanduser()
    archive.find(source)  # before anything is written
    return built.build(Rakuten, lambda scratch: source, data_dir)


def sources(
    data_dir: str | os.PathLike = "", cache_dir: str | os.PathLike = ""
) -> dict[str, RakutenSplit]:
    """The splits `train`, `val` and `test` of the data set that was built in `data_dir`.

    One in a bucket is copied to `cache_dir`, see `cache.cache_root`.
    """
    builder = built.require_built(Rakuten, data_dir, cache_dir)
    return {split: RakutenSplit(builder, split) for split in ("train", "val", "test")}


def tables(builder: Rakuten) -> dict[str, dict[str, list[int]]]:
    """What was built: heading -> row -> a number for each split."""
    splits = list(builder.info.metadata["counts"].values())
    kinds = ("products", "without_designation", "without_description")
    numbers = {kind.replace("_", " "): [split[kind] for split in splits] for kind in kinds}
    for fault in ("missing", "broken"):
        numbers[f"{fault} picture"] = [len(split[fault]) for split in splits]
    for what in ("title", "picture"):
        numbers[f"{what} of another, too"] = [split[f"shared_{what}"] for split in splits]
    labels = {label: [split["labels"][label] for split in splits] for label in LABELS}
    return {"": numbers, "code": labels}


def remarks(builder: Rakuten) -> list[str]:
    """What else is to be told of what was built: products whose picture cannot be used."""
    splits = builder.info.metadata["counts"].values()
    lines = []
    for fault in ("missing", "broken"):
        ids = [product for split in splits for product in split[fault]]
        more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
        if ids:
            lines.append(f"{fault} picture: {', '.join(ids[:_NAMED])}{more}")
    return lines
