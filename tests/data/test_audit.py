import io
import json

import numpy as np
import pytest
from PIL import Image

from jfusion.data import table
from jfusion.data.audit import audit
from jfusion.data.problems import DataError
from jfusion.data.source import Subset
from tests.data.rows import Rows
from tests.data.test_likeness import scene


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def splits(train, val=(), test=(), columns=("title", "image")):
    """Sources of rows, written as tuples of their cells."""
    parts = {"train": train, "val": val, "test": test}
    return {
        name: Rows([dict(zip(columns, cells, strict=True)) for cells in rows], name=name)
        for name, rows in parts.items()
    }


def texts(*parts):
    sources = splits(*([(text,) for text in part] for part in parts), columns=("title",))
    (finding,) = audit(sources, ["title"], progress=False).findings
    return finding


def pictures(*parts, distance=4):
    """The findings `same pixels` and `near picture`."""
    sources = splits(*([(cell,) for cell in part] for part in parts), columns=("image",))
    report = audit(sources, pictures=["image"], distance=distance, progress=False)
    return report, *report.findings


def test_texts_alike_in_two_splits_are_counted_and_shown():
    found = texts(
        ["Chaise haute", "Étui (noir)", "etui noir", "Lampe", "Bougie"],
        ["ETUI, NOIR!", "Lampe 2"],
        ["étui noir", "lampe", "Vase", "vase"],
    )
    assert (found.column, found.how, found.groups) == ("title", "same text", 2)
    assert found.rows == {"train": 3, "val": 1, "test": 2}
    assert found.trained == {"train": 0, "val": 1, "test": 2}
    assert found.examples == (
        ("train: train row 2", "val: val row 1", "test: test row 1"),
        ("train: train row 4", "test: test row 2"),
    )


def test_alike_within_one_split_is_no_finding():
    found = texts(["a b", "A  b", "a-b"], ["c", "C"], ["d"])
    assert found.groups == 0 and found.examples == ()
    assert set(found.rows.values()) == {0}


def test_likeness_of_val_and_test_is_not_of_train():
    found = texts(["a"], ["b"], ["b"])
    assert found.rows == {"train": 0, "val": 1, "test": 1}
    assert set(found.trained.values()) == {0}


def test_what_is_empty_is_like_nothing():
    found = texts([None, "", "?!", " ", "broken"], [None, "...", ""], [None, "?!", "", "broken"])
    assert found.groups == 1 and found.rows["test"] == 1


def test_the_same_pixels_in_other_files_are_found():
    image = scene(1)
    report, same, near = pictures(
        [encoded(scene(0)), encoded(image)],
        [encoded(scene(2)), encoded(image, compress_level=1)],
        [encoded(image, "BMP"), encoded(scene(3))],
    )
    assert (same.how, same.groups) == ("same pixels", 1)
    assert same.rows == {"train": 1, "val": 1, "test": 1}
    assert same.examples == (("train: train row 2", "val: val row 2", "test: test row 1"),)
    assert near.rows == same.rows  # the same are near, too
    assert report.unreadable == {"image": {"train": 0, "val": 0, "test": 0}}


@pytest.mark.parametrize("quality", [20, 50, 95])
def test_pictures_saved_at_other_qualities_are_near(quality):
    image = scene(4)
    _, same, near = pictures(
        [encoded(scene(seed)) for seed in range(12)], [encoded(image, "JPEG", quality=quality)]
    )
    assert same.groups == 0 and set(same.rows.values()) == {0}
    assert near.groups == 1 and near.rows == {"train": 1, "val": 1, "test": 0}
    assert near.examples == (("train: train row 5", "val: val row 1"),)


def test_near_misses_are_none():
    image = scene(5)
    moved = scene(5)
    moved.paste(image, (24, 0))
    _, same, near = pictures(
        [encoded(image)],
        [encoded(image.rotate(90)), encoded(moved), encoded(image.point(lambda v: 255 - v))],
        [encoded(scene(6))],
    )
    assert same.groups == near.groups == 0


def test_likeness_reaches_over_others_in_groups_but_not_in_rows(monkeypatch):
    # Hashes at distances of 3 in a row: the ends are 6 apart.
    hashes = iter([0b0, 0b111, 0b111111])
    monkeypatch.setattr("jfusion.data.likeness.perceptual_hash", lambda image: next(hashes))
    monkeypatch.setattr("jfusion.data.audit._CHUNK", 10)
    _, _, near = pictures([encoded(scene(0))], [encoded(scene(1))], [encoded(scene(2))])
    assert near.groups == 1
    assert near.rows == {"train": 1, "val": 1, "test": 1}
    assert near.trained == {"train": 0, "val": 1, "test": 0}
    assert near.examples == (("train: train row 1", "val: val row 1"),)


def test_broken_missing_and_plain_pictures_are_no_likeness():
    plain = encoded(Image.new("RGB", (20, 20), "white"))
    report, same, near = pictures(
        [b"no picture", None, encoded(scene())[:40]],
        [b"no picture", None, plain],
        [b"", None, plain],
    )
    assert report.unreadable == {"image": {"train": 2, "val": 1, "test": 1}}
    assert same.groups == 1 and same.rows == {"train": 0, "val": 1, "test": 1}  # the plain ones
    assert near.groups == 0
    assert report.tables()["alike in other splits"]["image: unreadable"] == [2, 1, 1]


def test_the_distance_can_be_chosen():
    one, other = encoded(scene(7)), encoded(scene(8))
    assert pictures([one], [other], distance=4)[2].groups == 0
    assert pictures([one], [other], distance=40)[2].groups == 1


def test_parts_of_a_table_are_named_by_its_rows(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(scene(0)))
    (tmp_path / "b.png").write_bytes(encoded(scene(0), compress_level=0))
    (tmp_path / "t.csv").write_text("name,image\nx,a.png\ny,\nX!,b.png\n")
    whole = table.read(tmp_path / "t.csv", pictures=["image"])
    sources = {
        "train": Subset(whole, np.array([1, 0])),
        "test": Subset(whole, np.array([2])),
    }
    report = audit(sources, ["name"], ["image"], progress=False)
    expected = ((f"train: {tmp_path}/t.csv row 1", f"test: {tmp_path}/t.csv row 3"),)
    assert [finding.examples for finding in report.findings] == [expected] * 3


def test_the_report_can_be_kept_printed_and_read():
    image = encoded(scene(0))
    sources = splits([("a", image)] * 2, [("A", None)], [("b", image)])
    report = audit(sources, ["title"], ["image"], progress=False)
    kept = json.loads(json.dumps(report.to_json()))
    assert kept["splits"] == {"train": 2, "val": 1, "test": 1}
    assert [(f["column"], f["how"], f["groups"]) for f in kept["findings"]] == [
        ("title", "same text", 1),
        ("image", "same pixels", 1),
        ("image", "near picture", 1),
    ]
    assert report.tables() == {
        "alike in other splits": {
            "rows": [2, 1, 1],
            "title: same text": [2, 1, 0],
            "image: same pixels": [2, 0, 1],
            "image: near picture": [2, 0, 1],
        },
        "alike in train": {
            "title: same text": [0, 1, 0],
            "image: same pixels": [0, 0, 1],
            "image: near picture": [0, 0, 1],
        },
    }
    assert report.remarks()[:2] == [
        "title, same text: 1 group spans splits",
        "  train: train row 1 = val: val row 1",
    ]


def test_a_column_must_be_there():
    with pytest.raises(DataError, match="train has no column 'titel'; near it: 'title'"):
        audit(splits([("a", None)], [("b", None)], [("c", None)]), ["titel"])
