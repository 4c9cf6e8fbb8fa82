import shutil
import zipfile

import numpy as np
import pytest

from jfusion.data.builders import daic_woz, daic_woz_archive, daic_woz_files
from jfusion.data.builders.daic_woz_files import BrokenFile
from jfusion.data.problems import DataError
from tests.standins import daic_woz as standin

TRAIN, DEV, TEST, FULL = (*daic_woz_files.LABEL_FILES.values(), daic_woz_files.SCORED_TEST)


@pytest.fixture
def small(tmp_path):
    """A small corpus, to be broken."""
    folder = tmp_path / "daic_woz"
    standin.write(folder, {"train": 2, "dev": 1, "test": 1}, seconds=12)
    return folder


def test_sessions_and_labels_are_found_in_neighbouring_folders(small, tmp_path):
    inner, outer = small, tmp_path
    for name in (TRAIN, DEV):
        (inner / name).rename(outer / name)
    (outer / "labels").mkdir()
    for start in (inner, outer):
        corpus = daic_woz_files.find(start)
        assert list(corpus.sessions) == ["310", "318", "373", "451"]
        assert corpus.labels == {TRAIN: outer / TRAIN, DEV: outer / DEV, TEST: inner / TEST}
    (inner / TEST).rename(outer / "labels" / FULL)
    assert daic_woz_files.find(outer).labels[FULL] == outer / "labels" / FULL


def test_what_a_folder_lacks_comes_from_the_zip_file(small):
    folder = small / "310_P"
    with zipfile.ZipFile(small / "310_P.zip", "w") as packed:
        for file in folder.iterdir():
            packed.write(file, f"310_P/{file.name}")
        packed.writestr("__MACOSX/310_P/._310_COVAREP.csv", b"\0")
    whole = daic_woz_archive.read(daic_woz_files.find(small).sessions["310"])
    (folder / "310_COVAREP.csv").unlink()
    mixed = daic_woz_archive.read(daic_woz_files.find(small).sessions["310"])
    shutil.rmtree(folder)
    packed = daic_woz_archive.read(daic_woz_files.find(small).sessions["310"])
    for other in (mixed, packed):
        assert other.transcript == whole.transcript
        np.testing.assert_array_equal(other.audio, whole.audio)
        np.testing.assert_array_equal(other.video, whole.video)


def test_a_source_without_the_corpus_is_refused(small, tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        daic_woz.build(tmp_path / "nowhere", tmp_path / "tfds")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: has no session of DAIC-WOZ; .*300_P\.zip"):
        daic_woz.build(tmp_path / "empty", tmp_path / "tfds")
    (small / DEV).unlink()
    (small / TEST).unlink()
    with pytest.raises(DataError, match=rf"has no {DEV}, no {TEST} \(or {FULL}\)"):
        daic_woz.build(small, tmp_path / "tfds")
    assert not (tmp_path / "tfds").exists()


def test_a_session_in_two_places_is_refused(small, tmp_path):
    shutil.copytree(small / "310_P", tmp_path / "copy" / "310_P")
    with pytest.raises(DataError, match="session 310 is there twice"):
        daic_woz_files.find(tmp_path)


def test_a_split_without_any_session_is_refused(small, tmp_path):
    shutil.rmtree(small / "451_P")
    with pytest.raises(DataError, match=r"none of the 1 sessions of test is there \(451_P or"):
        daic_woz.build(small, tmp_path / "tfds")
    assert daic_woz.open_built(tmp_path / "tfds") is None


def test_sessions_in_no_label_file_are_told(small, tmp_path):
    shutil.copytree(small / "310_P", small / "600_P")
    builder = daic_woz.build(small, tmp_path / "tfds")
    assert daic_woz.remarks(builder) == ["there, but in no label file: 600"]


def test_a_cut_zip_file_is_named(small):
    shutil.rmtree(small / "310_P")
    packed = small / "310_P.zip"
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("310_COVAREP.csv", bytes(10_000))
    packed.write_bytes(packed.read_bytes()[:5000])
    with pytest.raises(BrokenFile, match=r"310_P\.zip .*not a whole zip file"):
        daic_woz_archive.read(daic_woz_files.find(small).sessions["310"])
