import csv
import io
import re
import shutil
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image

from jfusion import config as schema
from jfusion.data import dataset, likeness
from jfusion.data.audit import audit
from jfusion.data.builders import rakuten, rakuten_archive
from jfusion.data.builders.rakuten_archive import LABELS, Product
from jfusion.data.builders.rakuten_text import clean
from jfusion.data.problems import DataError
from jfusion.data.source import Source
from tests.standins import rakuten as standin


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """(folder with the challenge's files, oddity -> id)."""
    folder = tmp_path_factory.mktemp("challenge") / "rakuten"
    return folder, standin.write(folder)


@pytest.fixture(scope="module")
def built(folder, tmp_path_factory):
    """(data_dir, the builder)."""
    data_dir = tmp_path_factory.mktemp("tfds")
    return data_dir, rakuten.build(folder[0], data_dir)


@pytest.fixture(scope="module")
def splits(built):
    return rakuten.sources(built[0])


@pytest.fixture(scope="module")
def odd(folder, splits):
    """Oddity -> (split, the built row that has it)."""
    rows = {
        source[index]["id"]: (split, source[index])
        for split, source in splits.items()
        for index in range(len(source))
    }
    return {oddity: rows[product] for oddity, product in folder[1].items()}


@pytest.fixture
def broken(folder, tmp_path):
    """A copy of the files, to be broken."""
    return shutil.copytree(folder[0], tmp_path / "rakuten")


def read(path):
    delimiter = "\t" if path.suffix == ".tsv" else ","
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, delimiter=delimiter))


def rewrite(path, change):
    rows = read(path)
    change(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def problems(folder):
    with pytest.raises(DataError) as error:
        rakuten_archive.read(rakuten_archive.find(folder))
    return [str(problem).removeprefix(f"{folder}/") for problem in error.value.problems]


def test_no_tensorflow_is_imported(splits):
    assert splits["train"][0]["id"]
    assert "tensorflow" not in sys.modules


def test_rows_are_those_of_the_files_in_their_order(folder, splits):
    products = read(folder[0] / "X_train_update.csv")[1:]
    codes = [code for _, code in read(folder[0] / "Y_train_CVw08PX.csv")[1:]]
    order = {product: row for row, (*_, product, _) in enumerate(products)}
    seen = []
    for source in splits.values():
        assert isinstance(source, Source)
        rows = [source[index] for index in range(len(source))]
        numbers = [order[row["id"]] for row in rows]
        assert numbers == sorted(numbers)
        for number, row in zip(numbers, rows, strict=True):
            _, _, _, product, image = products[number]
            picture = folder[0] / "images/image_train" / f"image_{image}_product_{product}.jpg"
            assert set(row) == {"id", "designation", "description", "text", "image", "code"}
            assert row["code"] == codes[number]
            assert row["image"] in (None, picture.exists() and picture.read_bytes())
        seen += numbers
    assert sorted(seen) == list(range(len(products)))


def test_descriptions_are_cleaned_and_may_be_missing(odd):
    for oddity, description in standin.DESCRIPTIONS.items():
        assert odd[oddity][1]["description"] == description, oddity
    assert len(odd["long_description"][1]["description"]) > 10_000


def test_the_text_is_title_and_description(splits, odd):
    assert odd["spaces_in_title"][1]["designation"] == "Lampe de bureau"
    whole = odd["tags"][1]
    assert whole["text"] == f"{whole['designation']} {whole['description']}"
    assert odd["nan"][1]["text"] == odd["nan"][1]["designation"]
    untitled = odd["no_title"][1]
    assert untitled["designation"] is None and untitled["text"] == untitled["description"]
    missing = [
        source[index]["description"] is None
        for source in splits.values()
        for index in range(len(source))
    ]
    assert 0.2 < np.mean(missing) < 0.5


def test_pictures_that_cannot_be_used_are_missing_and_told(folder, built, odd):
    for oddity in ("no_picture", "empty_picture", "broken_picture"):
        assert odd[oddity][1]["image"] is None
    assert Image.open(io.BytesIO(odd["tags"][1]["image"])).size == (100, 100)
    _, builder = built
    ids = folder[1]
    told = sorted([ids["empty_picture"], ids["broken_picture"]])
    assert sorted(rakuten.remarks(builder)[1].removeprefix("broken picture: ").split(", ")) == told
    assert rakuten.remarks(builder)[0] == f"missing picture: {ids['no_picture']}"
    counts = rakuten.tables(builder)[""]
    assert sum(counts["missing picture"]) == 1 and sum(counts["broken picture"]) == 2


def test_what_looks_or_is_called_the_same_is_in_one_split(odd, splits):
    pairs = ("same_title", "same_title_again"), ("same_picture", "same_picture_again")
    for one, other in (*pairs, ("white", "white_again")):
        assert odd[one][0] == odd[other][0]
    assert odd["same_picture"][1]["image"] != odd["same_picture_again"][1]["image"]
    report = audit(splits, ["designation"], ["image"], progress=False)
    ways = {(finding.column, finding.how): finding.groups for finding in report.findings}
    assert ways["designation", "same text"] == ways["image", "same pixels"] == 0


def test_counts_are_kept_with_the_data(built, splits):
    tables = rakuten.tables(rakuten.open_built(built[0]))
    rows = [[source[index] for index in range(len(source))] for source in splits.values()]
    counts = tables[""]
    assert counts["products"] == [len(part) for part in rows]
    assert counts["without description"] == [
        sum(row["description"] is None for row in part) for part in rows
    ]
    assert sum(counts["without designation"]) == 1
    assert sum(counts["title of another, too"]) == 2
    assert sum(counts["picture of another, too"]) == 4
    for place, part in enumerate(rows):
        codes = Counter(row["code"] for row in part)
        assert {label: counts[place] for label, counts in tables["code"].items()} == {
            label: codes[label] for label in LABELS
        }


def test_codes_are_the_27():
    assert LABELS == standin.CODES and len(set(LABELS)) == 27
    assert list(map(int, LABELS)) == sorted(map(int, LABELS))


def test_rows_are_found_by_position_and_id(splits):
    test = splits["test"]
    assert test.locate(0) == f"rakuten/test row 1 (id {test[0]['id']})"
    with pytest.raises(IndexError, match=f"no row {len(test) + 1}"):
        test[len(test)]


def test_the_tsv_form_gives_the_same_data(built, splits, tmp_path):
    standin.write(tmp_path / "sigir", tsv=True)
    rakuten.build(tmp_path / "sigir", tmp_path / "tfds")
    for split, source in rakuten.sources(tmp_path / "tfds").items():
        assert source.fingerprint == splits[split].fingerprint
        assert source[0] == splits[split][0]


def test_the_fingerprint_follows_the_content(broken, splits, tmp_path):
    product = splits["val"][1]["id"]
    (picture,) = (broken / "images/image_train").glob(f"*_product_{product}.jpg")
    with picture.open("ab") as file:
        file.write(b"\0")
    rakuten.build(broken, tmp_path / "tfds")
    after = rakuten.sources(tmp_path / "tfds")
    assert after["val"].fingerprint != splits["val"].fingerprint
    assert after["train"].fingerprint == splits["train"].fingerprint


def test_a_config_reads_it_with_all_of_its_codes(built, folder, splits):
    encoders = schema.Encoder("distilbert"), schema.Encoder("convnext")
    config = schema.Config(
        inputs={
            "listing": schema.Text(encoders[0], "text", max_tokens=16),
            "picture": schema.Image(encoders[1], "image", size=16, trim=True),
        },
        targets={"category": schema.Classes("code")},
        train=schema.Train(phases=(schema.Phase(1),)),
        data=schema.Data("rakuten", path=str(built[0])),
    )
    loaded = dataset.load(config, {})
    assert loaded.labels == {"category": LABELS} and loaded.best_possible == {}
    for name, split in loaded.splits.items():
        assert len(split) == len(splits[name]) and not split.problems
        codes = [LABELS[number] for number in split.targets["category"].tolist()]
        assert codes == [splits[name][row]["code"] for row in range(len(split))]
        assert split.counts()["missing"] == sum(
            splits[name][row]["image"] is None for row in range(len(split))
        )
    pictures = loaded.splits["train"].inputs["picture"]["pixels"]
    present = loaded.splits["train"].present["picture"]
    edges = np.asarray(pictures[present])[:, 0].min(axis=-1)  # the upper row of each picture
    assert (edges.min(axis=1) < 240).mean() > 0.7  # with their borders all would be white


def products(count, seed=0, groups=0.05):
    """Products without files: codes as rare and as frequent as the real ones, some related."""
    rng = np.random.default_rng(seed)
    frequent = np.linspace(1, 13, len(LABELS))
    codes = rng.choice(LABELS, count, p=frequent / frequent.sum()).tolist()
    shared = int(count * groups)
    return [
        Product(
            id=str(row),
            designation=f"Lot {row if row >= shared else rng.integers(shared // 2)}",
            description=None,
            code=code,
            picture=None,
            digest=str(row if row % 7 else rng.integers(shared // 2)),
        )
        for row, code in enumerate(codes)
    ]


def test_splits_are_70_15_15_in_every_code_by_whole_groups():
    everything = products(4000)
    made, shared = rakuten.divide(everything)
    assert {split: len(chosen) for split, chosen in made.items()} == {
        "train": 2800,
        "val": 600,
        "test": 600,
    }
    codes = {split: Counter(p.code for p in chosen) for split, chosen in made.items()}
    for code, count in Counter(p.code for p in everything).items():
        for split, share in {"train": 0.7, "val": 0.15, "test": 0.15}.items():
            assert abs(codes[split][code] - share * count) < max(4, 0.06 * count), (code, split)
    sides = defaultdict(set)
    for split, chosen in made.items():
        for product in chosen:
            sides["title", likeness.normalised(product.designation)].add(split)
            sides["picture", product.digest].add(split)
    assert {len(where) for where in sides.values()} == {1}
    titles = Counter(p.designation for p in everything)
    assert sum(shared["shared_title"].values()) == sum(n for n in titles.values() if n > 1) > 100


def test_the_division_is_always_the_same():
    first, again = (rakuten.divide(products(300))[0] for _ in range(2))
    assert first == again


def test_rare_codes_are_trained_on():
    made, _ = rakuten.divide([p for p in products(2000, groups=0.01) if int(p.id) % 25 == 0])
    trained = {product.code for product in made["train"]}
    often = Counter(p.code for chosen in made.values() for p in chosen)
    assert {code for code, count in often.items() if count >= 3} <= trained


def test_without_titles_and_pictures_nothing_belongs_together():
    alone = [Product(str(row), None, None, LABELS[row % 27], None) for row in range(100)]
    made, shared = rakuten.divide(alone)
    assert {split: len(chosen) for split, chosen in made.items()} == {
        "train": 70,
        "val": 15,
        "test": 15,
    }
    assert {count for counts in shared.values() for count in counts.values()} == {0}


def test_files_must_match_row_for_row(broken):
    answers = broken / "Y_train_CVw08PX.csv"

    def exchange(rows):
        rows[4], rows[5] = rows[5], rows[4]

    rewrite(answers, exchange)
    assert problems(broken) == [
        "Y_train_CVw08PX.csv row 4, column '': number '4' where X_train_update.csv has '3'; they "
        "must match row for row",
        "Y_train_CVw08PX.csv row 5, column '': number '3' where X_train_update.csv has '4'; they "
        "must match row for row",
    ]
    rewrite(answers, lambda rows: rows.pop())
    with pytest.raises(DataError, match=r"X_train_update\.csv has 60 rows and .*\.csv 59"):
        rakuten.build(broken, broken / "tfds")


def test_bad_cells_are_all_named_at_once(broken):
    def products(rows):
        rows[2][3] = "12x"
        rows[7][3] = rows[6][3]
        rows[8][4] = "../../secret"

    def answers(rows):
        rows[3][1] = "1500"
        rows[9][1] = ""

    rewrite(broken / "X_train_update.csv", products)
    rewrite(broken / "Y_train_CVw08PX.csv", answers)
    told = problems(broken)
    assert told[0] == "X_train_update.csv row 2, column 'productid': '12x' is not a number"
    assert re.fullmatch(r"X_.* row 7, column 'productid': \d+ stands in row 6 too", told[1])
    assert told[2].endswith("row 8, column 'imageid': '../../secret' is not a number")
    assert told[3].startswith(
        "Y_train_CVw08PX.csv row 3, column 'prdtypecode': '1500' is none of the 27 codes; near it: "
    )
    assert told[4].startswith("Y_train_CVw08PX.csv row 9, column 'prdtypecode': '' is none of")
    assert len(told) == 5


def test_a_missing_column_is_named(broken):
    rewrite(broken / "X_train_update.csv", lambda rows: rows[0].__setitem__(1, "Designation"))
    with pytest.raises(DataError, match=r"X_train_.* has no column 'designation'; near it: 'Des"):
        rakuten.build(broken, broken / "tfds")


def test_a_source_without_the_files_is_refused(broken, tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        rakuten.build(tmp_path / "nowhere", tmp_path / "tfds")
    (broken / "images").rename(broken / "pictures")
    with pytest.raises(DataError, match="has no pictures; expected images/image_train or one of"):
        rakuten.build(broken, tmp_path / "tfds")
    (broken / "pictures" / "image_train").rename(broken / "image_train")
    assert rakuten_archive.find(broken).pictures == broken / "image_train"
    (broken / "Y_train_CVw08PX.csv").unlink()
    with pytest.raises(DataError, match=r"has X_train_update\.csv, but not Y_train_CVw08PX\.csv"):
        rakuten.build(broken, tmp_path / "tfds")
    (broken / "X_train_update.csv").unlink()
    with pytest.raises(DataError, match=r"has neither X_train_update\.csv nor X_train\.tsv"):
        rakuten.build(broken, tmp_path / "tfds")
    assert not (tmp_path / "tfds").exists()


def test_reading_what_was_not_built_says_how_to_build_it(tmp_path):
    with pytest.raises(DataError, match=r"no rakuten .* jfusion\.prepare --dataset rakuten"):
        rakuten.sources(tmp_path)
    assert rakuten.open_built(tmp_path) is None


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("<UL><LI>un</LI><LI>deux</LI></UL>", "un deux"),
        ("gr<strong>an</strong>d <a href='x?a=1&b=2'>lien</a>", "grand lien"),
        ("un<br>deux<br/>trois<BR />quatre", "un deux trois quatre"),
        ("<style>p {color: red}</style>texte<!-- note\n --> clair", "texte clair"),
        ("&#39;&#x27;&quot;&apos;", "''\"'"),
        ("&#146;&hellip;", "\u2019…"),
        ("prix < 10 et > 5, 3<5, x<y et z>w", "prix < 10 et > 5, 3<5, x<y et z>w"),
        ("un <i et deux", "un <i et deux"),
        ("5&nbsp;kg\u200b\xad", "5 kg"),
        ("\x9cuvre \x8cuvre \x81\x8d", "œuvre Œuvre"),
        ("nanotechnologie", "nanotechnologie"),
        ("a\x00b\x1fc", "a b c"),
        ("R&D, AT&T, &inconnu;", "R&D, AT&T, &inconnu;"),
        ("NaN", None),
        ("&nbsp;", None),
    ],
)
def test_texts_are_made_plain(raw, expected):
    assert clean(raw) == expected
