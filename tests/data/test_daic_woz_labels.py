import pytest

from jfusion.data.builders import daic_woz_files, daic_woz_labels
from jfusion.data.problems import DataError, Problem
from tests.standins import daic_woz as standin

TRAIN, DEV, TEST, FULL = (*daic_woz_files.LABEL_FILES.values(), daic_woz_files.SCORED_TEST)


def labels(folder, train="", dev="", test="", full=""):
    """Reads label files of these texts; where one is empty, a good one."""
    folder.mkdir(exist_ok=True)
    texts = {
        TRAIN: train or "Participant_ID,PHQ8_Binary,PHQ8_Score,Gender\n300,0,4,1\n",
        DEV: dev or "Participant_ID,PHQ8_Binary,PHQ8_Score,Gender\n301,1,11,0\n",
        TEST: test or "participant_ID,Gender\n302,1\n303,0\n",
        FULL: full,
    }
    files = {}
    for name, text in texts.items():
        if text:
            files[name] = folder / name
            files[name].write_text(text)
    return daic_woz_labels.read(files)


def test_column_names_drift(tmp_path):
    people = labels(
        tmp_path,
        train="\ufeffGender, PHQ_Score ,participant_ID,PHQ8_Binary\n1,4.0,300.0,0\n,,,\n\n",
        full="Participant_ID,PHQ_Binary,PHQ_Score,Gender\n303,1,20,0\n",
    )
    (first,) = people["train"]
    assert (first.id, first.phq8, first.gender) == ("300", 4, "female")
    assert [(p.id, p.phq8, p.gender) for p in people["test"]] == [
        ("302", None, "female"),
        ("303", 20, "male"),
    ]


def test_the_scored_test_file_stands_alone_too(tmp_path):
    labels(tmp_path, full="Participant_ID,PHQ_Binary,PHQ_Score,Gender\n303,1,20,0\n")
    files = {name: tmp_path / name for name in (TRAIN, DEV, FULL)}
    assert [person.phq8 for person in daic_woz_labels.read(files)["test"]] == [20]


def test_the_score_stands_where_the_file_disagrees_with_itself(tmp_path):
    items = ",".join(f"PHQ8_{item}" for item in standin.ITEMS)
    people = labels(
        tmp_path,
        train=f"Participant_ID,PHQ8_Binary,PHQ8_Score,Gender,{items}\n"
        "409,0,10,1,2,2,1,1,1,1,1,1\n"
        "410,0,3,,1,1,1,,0,0,0,0\n"
        "411,0,3,0,1,1,1,1,0,0,0,0\n"
        "412,,12,0,2,2,2,2,1,1,1,1\n",
    )["train"]
    assert [person.phq8 for person in people] == [10, 3, 3, 12]
    assert [person.binary_differs for person in people] == [True, False, False, False]
    assert [person.items_differ for person in people] == [False, False, True, False]
    assert people[1].gender is None


@pytest.mark.parametrize("cell", ["", "-1", "25", "4.5", "nan", "inf", "four"])
def test_a_score_that_is_none_is_named(tmp_path, cell):
    text = f"Participant_ID,PHQ8_Binary,PHQ8_Score\n300,0,3\n304,0,{cell}\n"
    with pytest.raises(DataError) as error:
        labels(tmp_path, train=text)
    reason = f"{cell!r} is not a whole number from 0 to 24"
    where = (str(tmp_path / TRAIN), "row 2", "PHQ8_Score")
    assert error.value.problems == (Problem(*where, reason),)


def test_all_faults_of_the_label_files_are_told_at_once(tmp_path):
    head = "Participant_ID,PHQ8_Binary,PHQ8_Score,Gender\n"
    with pytest.raises(DataError) as error:
        labels(
            tmp_path,
            train=head + "300,0,3,0\n300,0,3,0\n304,2,3,0\n3o5,0,3,0\n",
            dev=head + "301,0,4,7\n300,0,3,0\n",
            full="Participant_ID,PHQ_Score\n303,3\n399,3\n",
        )
    told = [(problem.file, problem.row, problem.reason) for problem in error.value.problems]
    train, dev, full = (str(tmp_path / name) for name in (TRAIN, DEV, FULL))
    assert told == [
        (train, "row 2", "300 stands in row 1 too"),
        (train, "row 3", "'2' is not a whole number from 0 to 1"),
        (train, "row 4", "'3o5' is not a whole number from 100 to 999"),
        (dev, "row 1", "'7' is not a whole number from 0 to 1"),
        (full, "(id 399)", f"is not in {TEST}"),
        (dev, "(id 300)", "is in train too; nobody may be in two splits"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Participant_ID,PHQ8_Binary\n300,0\n", "has no column PHQ8_Score or PHQ_Score; it has"),
        ("ID,PHQ8_Score\n300,0\n", "has no column Participant_ID or participant_ID"),
        ("Participant_ID,PHQ8_Score,PHQ_Score\n300,0,1\n", "PHQ8_Score and PHQ_Score is meant"),
        ("Participant_ID,PHQ8_Score\n", "has no rows"),
    ],
)
def test_a_label_file_without_its_columns_is_named(tmp_path, text, message):
    with pytest.raises(DataError, match=rf"{TRAIN}: .*{message}"):
        labels(tmp_path, train=text)
