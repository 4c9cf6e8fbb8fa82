import io
import json
import multiprocessing
import os
import shutil
import signal
import time
import warnings

import numpy as np
import pytest
from PIL import Image

from jfusion.data import cache, progress
from jfusion.data.columns import Cells
from jfusion.data.image import ImageInput
from jfusion.data.problems import DataError
from jfusion.data.text import TextInput, Vocabulary


class Source:
    root = None

    def __init__(self, rows, fingerprint="0", name="rows"):
        self.rows = rows
        self.fingerprint = fingerprint
        self.name = name

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]

    def locate(self, index):
        return f"{self.name} row {index + 1}"


class Numbers:
    """A modality that squares numbers, refuses negative ones and counts its calls."""

    kind = "numbers"
    column = "n"
    notes = ("digits",)

    def __init__(self, version=0, pause=0.0):
        self.arrays = {"square": ((2,), np.int32), "odd": ((), bool)}
        self.version = version
        self.pause = pause
        self.encoded = 0

    def spec(self):
        return {"kind": self.kind, "version": self.version}

    def encode(self, cells, root):
        time.sleep(self.pause)
        self.encoded += len(cells)
        values = np.array([int(cell) for cell in cells], np.int32)
        bad = {i: "negative" for i, value in enumerate(values) if value < 0}
        values[list(bad)] = 0
        arrays = {"square": np.stack([values, values**2], 1), "odd": values % 2 == 1}
        return Cells(arrays, bad, {"digits": np.float32([len(str(value)) for value in values])})


def rows(count=100):
    """Row 3 has no number, row 50 a bad one."""
    cells = [str(i) for i in range(count)]
    cells[3], cells[50] = None, "-1"
    return Source([{"n": cell} for cell in cells])


def check(column, count=100):
    expected = np.arange(count)
    expected[[3, 50]] = 0
    np.testing.assert_array_equal(column.arrays["square"][:, 1], expected**2)
    np.testing.assert_array_equal(column.arrays["odd"], expected % 2 == 1)
    assert np.flatnonzero(~column.present).tolist() == [3, 50]
    assert column.bad == {50: "negative"}
    assert column.notes["digits"].dtype == np.float32
    assert column.notes["digits"].tolist() == [1.0] * 3 + [0.0] + [1.0] * 6 + [
        len(str(number)) for number in expected[10:]
    ]
    assert isinstance(column.arrays["square"], np.memmap)


def entries(folder):
    return sorted(path.name for path in (folder / "columns").iterdir())


def test_a_column_is_made_once_and_then_read(tmp_path, capfd):
    modality = Numbers()
    check(cache.materialize(rows(), modality, tmp_path))
    assert modality.encoded == 99
    check(cache.materialize(rows(), modality, tmp_path))
    assert modality.encoded == 99
    assert len(entries(tmp_path)) == 1
    assert capfd.readouterr().err == ""


def test_another_source_or_preprocessing_is_another_entry(tmp_path):
    cache.materialize(rows(), Numbers(), tmp_path)
    cache.materialize(rows(), Numbers(version=1), tmp_path)
    other = rows()
    other.fingerprint = "1"
    cache.materialize(other, Numbers(), tmp_path)
    assert len(entries(tmp_path)) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: os.truncate(entry / "square.npy", 300),
        lambda entry: os.truncate(entry / "square.npy", 0),
        lambda entry: (entry / "odd.npy").unlink(),
        lambda entry: np.save(entry / "odd.npy", np.zeros(100, np.int8)),
        lambda entry: np.save(entry / "present.npy", np.zeros(99, bool)),
        lambda entry: np.save(entry / "note-digits.npy", np.zeros(100)),
        lambda entry: (entry / "note-digits.npy").unlink(),
        lambda entry: (entry / "facts.json").write_text('{"bad": ['),
        lambda entry: (entry / "facts.json").write_text("{}"),
        lambda entry: (entry / "facts.json").write_text('{"bad": [1]}'),
        lambda entry: [path.unlink() for path in entry.iterdir()],
    ],
)
def test_a_damaged_entry_is_made_again(tmp_path, capfd, damage):
    cache.materialize(rows(), Numbers(), tmp_path)
    (name,) = entries(tmp_path)
    damage(tmp_path / "columns" / name)
    modality = Numbers()
    check(cache.materialize(rows(), modality, tmp_path))
    assert modality.encoded == 99
    assert "is damaged" in capfd.readouterr().err
    assert entries(tmp_path) == [name]
    check(cache.materialize(rows(), modality, tmp_path))
    assert modality.encoded == 99


def test_a_pass_that_fails_leaves_nothing(tmp_path):
    source = rows()
    source.rows[70] = {"n": "seven"}
    with pytest.raises(ValueError, match="seven"):
        cache.materialize(source, Numbers(), tmp_path)
    assert entries(tmp_path) == []


def _make(folder, pause, results=None):
    os.environ["JFUSION_CACHE"] = str(folder)
    column = cache.materialize(rows(300), Numbers(pause=pause))
    check(column, 300)
    if results:
        results.put(int(column.arrays["square"].sum()))


@pytest.fixture
def context():
    return multiprocessing.get_context("spawn")


def test_a_killed_pass_leaves_no_entry(tmp_path, context):
    process = context.Process(target=_make, args=(tmp_path, 1.0))
    process.start()
    while not (tmp_path / "columns").is_dir() or not entries(tmp_path):
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert all(name.startswith(".building-") for name in entries(tmp_path))
    check(cache.materialize(rows(300), Numbers(), tmp_path), 300)


def test_two_processes_make_the_same_entry(tmp_path, context):
    results = context.Queue()
    processes = [context.Process(target=_make, args=(tmp_path, 0.05, results)) for _ in range(2)]
    for process in processes:
        process.start()
    sums = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(sums) == 1
    assert len(entries(tmp_path)) == 1


def test_a_slower_writer_reads_the_entry_of_the_faster(tmp_path):
    class Overtaken(Numbers):
        def encode(self, cells, root):
            if not self.encoded:
                cache.materialize(rows(), Numbers(), tmp_path)
            return super().encode(cells, root)

    check(cache.materialize(rows(), Overtaken(), tmp_path))
    assert len(entries(tmp_path)) == 1


def test_another_process_may_be_first_by_a_hair(tmp_path, monkeypatch):
    rename = os.rename

    def overtaken(source, target):
        shutil.copytree(source, target)
        rename(source, target)

    monkeypatch.setattr(cache.os, "rename", overtaken)
    check(cache.materialize(rows(), Numbers(), tmp_path))
    assert len(entries(tmp_path)) == 1


def test_a_folder_that_cannot_hold_it_is_told_before_the_pass(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write the cache folder .* set data\.cache_dir"):
        cache.materialize(rows(), Numbers(), tmp_path / "file")
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: usage)
    modality = Numbers()
    with pytest.raises(DataError, match=r"needs 0\.0 GB .*set data\.cache_dir"):
        cache.materialize(rows(), modality, tmp_path)
    assert not modality.encoded


def test_the_root_is_the_argument_then_the_environment_then_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("JFUSION_CACHE", str(tmp_path / "a"))
    assert cache.cache_root(str(tmp_path / "b")) == tmp_path / "b"
    assert cache.cache_root() == tmp_path / "a"
    monkeypatch.delenv("JFUSION_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_root() == tmp_path / ".cache" / "jfusion"


def test_facts_are_computed_once(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"names": ["a", None]}

    for _ in range(2):
        assert cache.remember(tmp_path, ["labels", "x"], compute) == {"names": ["a", None]}
    cache.remember(tmp_path, ["labels", "y"], compute)
    assert len(calls) == 2
    for path in (tmp_path / "facts").iterdir():
        path.write_text("{")
    assert cache.remember(tmp_path, ["labels", "x"], compute) == {"names": ["a", None]}
    assert len(calls) == 3


def test_real_modalities_pass_through(tmp_path):
    def encoded(width, colour):
        file = io.BytesIO()
        Image.new("L", (width, 40), colour).save(file, "PNG")
        return file.getvalue()

    content = [encoded(40 + i, i) for i in range(40)]
    content[5], content[6], content[7] = None, b"", content[7][:30]
    source = Source([{"poster": cell, "plot": "dog " * i} for i, cell in enumerate(content)])
    pixels = cache.materialize(source, ImageInput("poster", size=16), tmp_path)
    assert pixels.arrays["pixels"][39].tolist() == np.full((16, 16, 3), 39).tolist()
    assert pixels.bad[6] == "zero bytes" and set(pixels.bad) == {6, 7}
    assert np.flatnonzero(~pixels.present).tolist() == [5, 6, 7]
    assert not pixels.arrays["pixels"][5:8].any()
    text = TextInput("plot", Vocabulary.fit(["dog"], 9), max_tokens=10)
    column = cache.materialize(source, text, tmp_path)
    assert column.arrays["length"].tolist() == [0, *(min(i + 2, 10) for i in range(1, 40))]
    used = [0, *(1 if i <= 8 else 8 / i for i in range(1, 40))]
    np.testing.assert_allclose(column.notes["used"], used, rtol=1e-6)


def test_warnings_of_the_decoder_are_not_shown(tmp_path):
    file = io.BytesIO()
    Image.new("L", (9500, 9500)).save(file, "PNG", compress_level=1)
    source = Source([{"poster": file.getvalue()}])
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert not cache.materialize(source, ImageInput("poster", size=16), tmp_path).bad
    assert not shown


def test_long_passes_say_how_far_they_are(capfd, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
    with progress.track("reading", 4) as advance:
        advance(2)
        advance(2)
    lines = capfd.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "reading: 2 of 4 rows",
        "reading: 4 of 4 rows",
    ]


def test_a_terminal_has_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress.track("reading", 4) as advance:
        advance(4)
    assert "4/4" in screen.getvalue()


def test_facts_json_is_plain(tmp_path):
    cache.materialize(rows(), Numbers(), tmp_path)
    (name,) = entries(tmp_path)
    facts = json.loads((tmp_path / "columns" / name / "facts.json").read_text())
    assert facts == {
        "bad": [[50, "negative"]],
        "spec": {"kind": "numbers", "version": 0},
    }
