"""DAIC-WOZ as a TFDS data set in array_record files, built and read without TensorFlow.

The corpus is had from USC ICT for a signed agreement (https://dcapswoz.ict.usc.edu). A row is an
interview: what the participant and the interviewer said, COVAREP's features of the audio and CLNF's
of the video on a common grid of ten frames per second, and the PHQ-8 score. The interviewer's words
are there to measure how far they alone give the score away (arXiv 2404.14463), not to predict from.
"""

import hashlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jfusion.data.builders import built, daic_woz_files, daic_woz_labels
from jfusion.data.builders import daic_woz_archive as archive
from jfusion.data.builders.built import BuiltSplit
from jfusion.data.builders.daic_woz_files import LABEL_FILES, BrokenFile, Session
from jfusion.data.builders.daic_woz_frames import AUDIO, VIDEO, VIDEO_DEFAULT
from jfusion.data.builders.daic_woz_labels import Participant
from jfusion.data.problems import DataError
from jfusion.data.source import Row

__all__ = ["AUDIO", "VIDEO", "VIDEO_DEFAULT", "DaicWoz", "DaicWozSplit", "build", "sources"]


class DaicWoz(tfds.core.GeneratorBasedBuilder):
    """189 interviews with transcript, audio and video features, and PHQ-8 score (LREC 2014)."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The folder with 300_P.zip to 492_P.zip and the label files."

    # Nothing is downloaded. To find that out, TFDS 4.9 would need `importlib_resources`, which it
    # does not install.
    url_infos = None

    def _info(self) -> tfds.core.DatasetInfo:
        def sequence(width: int) -> tfds.features.Tensor:
            return tfds.features.Tensor(shape=(None, width), dtype=np.float32)

        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "transcript": tfds.features.Text(),
                    "interviewer": tfds.features.Text(),
                    "audio": sequence(len(AUDIO)),
                    "video": sequence(len(VIDEO)),
                    "phq8": tfds.features.Scalar(np.float32),
                    "gender": tfds.features.Text(),
                }
            ),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,  # the order of rows is that of the label files
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        corpus = daic_woz_files.find(Path(dl_manager.manual_dir))
        people = daic_woz_labels.read(corpus.labels)
        for split, listed in people.items():
            if not any(person.id in corpus.sessions for person in listed):
                raise DataError(
                    f"{corpus.root}: none of the {len(listed)} sessions of {split} is there "
                    f"({listed[0].id}_P or {listed[0].id}_P.zip, for example)"
                )
        listed = {person.id for split in people.values() for person in split}
        self.info.metadata["unlisted"] = sorted(corpus.sessions.keys() - listed)
        self.info.metadata["counts"] = {}
        self.info.metadata["fingerprints"] = {}
        return {
            split: self._generate_examples(split, listed, corpus.sessions)
            for split, listed in people.items()
        }

    def _generate_examples(
        self, split: str, people: list[Participant], sessions: dict[str, Session]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        digest = hashlib.sha256()
        facts, problems = {}, []
        for person in people:
            if person.id not in sessions:
                continue
            try:
                interview = archive.read(sessions[person.id])
            except BrokenFile as broken:
                problems.append(broken.problem)
                continue
            if interview.is_empty():
                continue
            row = len(facts)
            facts[person.id] = archive.facts(interview)
            example = {
                "id": person.id,
                "transcript": interview.transcript,
                "interviewer": interview.interviewer,
                "audio": _cells(interview.audio, len(AUDIO)),
                "video": _cells(interview.video, len(VIDEO)),
                "phq8": np.float32(math.nan if person.phq8 is None else person.phq8),
                "gender": person.gender or "",
            }
            for value in example.values():
                data = value.encode() if isinstance(value, str) else value.tobytes()
                digest.update(f"{len(data)} ".encode() + data)
            yield row, example
        # All broken files of a split are told at once; the next split is not looked at.
        if problems:
            raise DataError(f"{len(problems)} sessions of {split} cannot be read:", problems)
        # TFDS writes the metadata when all splits are generated.
        self.info.metadata["counts"][split] = archive.summary(people, facts)
        self.info.metadata["fingerprints"][split] = digest.hexdigest()


class DaicWozSplit(BuiltSplit):
    """One split of the built data set, a `Source`.

    Attributes:
        features: Column -> the names of its features.
    """

    features: dict[str, tuple[str, ...]]

    def __init__(self, builder: DaicWoz, split: str):
        super().__init__(builder, split)
        self.features = {"audio": AUDIO, "video": VIDEO}

    def row(self, record: dict[str, Any]) -> Row:
        """The interview that a record stands for."""
        texts = {key: record[key].decode() for key in ("id", "transcript", "interviewer", "gender")}
        phq8 = float(record["phq8"])
        return {
            "id": texts["id"],
            "participant": texts["id"],  # each gave one interview
            "transcript": texts["transcript"] or None,
            "interviewer": texts["interviewer"] or None,
            "audio": record["audio"] if len(record["audio"]) else None,
            "video": record["video"] if len(record["video"]) else None,
            "phq8": None if math.isnan(phq8) else phq8,
            "gender": texts["gender"] or None,
        }


def open_built(data_dir: str | os.PathLike = "") -> DaicWoz | None:
    """The built data set in `data_dir` (empty: the default), or None if it is not there."""
    return built.open_built(DaicWoz, data_dir)


def build(source: str | os.PathLike, data_dir: str | os.PathLike = "") -> DaicWoz:
    """Builds the data set unless it is built.

    Args:
        source: The folder with the sessions, or the one above it; see `daic_woz_files.find`.
        data_dir: Where to; empty: the default.

    Raises:
        DataError: The source is something else, or files of it are missing or broken.
    """
    source = Path(source).expanduser()
    daic_woz_files.find(source)  # before anything is written
    return built.build(DaicWoz, lambda scratch: source, data_dir)


def sources(
    data_dir: str | os.PathLike = "", cache_dir: str | os.PathLike = ""
) -> dict[str, DaicWozSplit]:
    """The splits `train`, `val` and `test` of the data set that was built in `data_dir`.

    One in a bucket is copied to `cache_dir`, see `cache.cache_root`.
    """
    builder = built.require_built(DaicWoz, data_dir, cache_dir)
    return {split: DaicWozSplit(builder, split) for split in LABEL_FILES}


def tables(builder: DaicWoz) -> dict[str, dict[str, list[int]]]:
    """What was built: heading -> row -> a number for each split."""
    splits = list(builder.info.metadata["counts"].values())
    kinds = ("sessions", *(f"without_{what}" for what in _CELLS), "absent")
    numbers = {kind: [split[kind] for split in splits] for kind in kinds}
    numbers["absent"] = [len(ids) for ids in numbers["absent"]]
    numbers |= {kind: [len(split[kind]) for split in splits] for kind in _DISAGREEMENTS}
    for modality in ("audio", "video"):
        numbers[f"infinite numbers in {modality}"] = [
            sum(counts[modality] for counts in split["infinite"].values()) for split in splits
        ]
    return {"": {_TITLES.get(kind, kind.replace("_", " ")): n for kind, n in numbers.items()}}


def remarks(builder: DaicWoz) -> list[str]:
    """What else is to be told of what was built: sessions by name."""
    metadata = builder.info.metadata
    splits = metadata["counts"].values()
    named = {_TITLES[kind]: [i for split in splits for i in split[kind]] for kind in _NAMED}
    named["there, but in no label file"] = metadata["unlisted"]
    return [f"{title}: {', '.join(ids)}" for title, ids in named.items() if ids]


_CELLS = ("transcript", "interviewer", "audio", "video", "score")
_DISAGREEMENTS = ("binary_differs", "items_differ")
_NAMED = ("absent", *_DISAGREEMENTS)
_TITLES = {
    "absent": "listed, but not there",
    "binary_differs": "class is not that of the score",
    "items_differ": "items do not sum to the score",
}


def _cells(sequence: np.ndarray | None, width: int) -> np.ndarray:
    """A sequence as it is stored: one that is missing has no frame."""
    return np.zeros((0, width), np.float32) if sequence is None else sequence
