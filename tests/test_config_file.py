import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jfusion.config import Config, ConfigError, Image, Text, to_dict
from jfusion.config_file import load, resolve

ROOT = Path(__file__).parents[1]

FILE = """
from ml_collections import ConfigDict


def get_config(variant=""):
    if variant not in ("", "long"):
        raise ValueError(f"no variant {variant!r}; there is long")
    return ConfigDict(
        dict(
            inputs=dict(
                plot=dict(kind="text", column="plot", encoder=dict(network="distilbert")),
                poster=dict(
                    kind="image",
                    column="poster",
                    size=64,
                    encoder=dict(network="convnext", sizes=dict(depths=(1, 1, 2, 1))),
                ),
            ),
            targets=dict(genres=dict(kind="multilabel", column="genres", labels=("drama", "war"))),
            data=dict(source="table", path="movies.csv"),
            fusion=dict(kind="concat"),
            train=dict(
                phases=(
                    dict(epochs=1, rates=((".*/head/.*", 1e-3), (".*", 0))),
                    dict(epochs=9 if variant else 3),
                ),
            ),
            seed=3,
        )
    )
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "genres.py"
    path.write_text(FILE)
    return str(path)


def error(call, *args):
    with pytest.raises(ConfigError) as caught:
        call(*args)
    return str(caught.value)


def test_values_of_the_file_and_defaults(file):
    config = load(file)
    assert isinstance(config, Config) and config.name == "genres" and config.seed == 3
    assert isinstance(config.inputs["plot"], Text) and isinstance(config.inputs["poster"], Image)
    assert config.inputs["poster"].size == 64 and config.inputs["poster"].crop == 0.875
    assert config.inputs["poster"].encoder.sizes == {"depths": (1, 1, 2, 1)}
    assert config.targets["genres"].labels == ("drama", "war")
    assert config.train.phases[0].rates == ((".*/head/.*", 1e-3), (".*", 0.0))
    assert type(config.train.phases[0].rates[1][1]) is float, "an integer is a number, too"
    assert config.train.batch_size == 32


def test_variants(file):
    config = load(f"{file}:long")
    assert config.train.phases[1].epochs == 9 and config.name == "genres:long"
    assert error(load, f"{file}:lang") == f"{file}: no variant 'lang'; there is long"


def test_the_resolved_config_is_plain_json_that_resolves_to_the_same(file):
    config = load(file, ["data.path=2024.10"])
    assert resolve(json.loads(json.dumps(to_dict(config), allow_nan=False))) == config


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("seed=7", lambda c: c.seed, 7),
        ("train.batch_size=64", lambda c: c.train.batch_size, 64),
        ("train.clip=2", lambda c: c.train.clip, 2.0),
        ("train.weight_decay=1e-3", lambda c: c.train.weight_decay, 1e-3),
        ("train.precision=bfloat16", lambda c: c.train.precision, "bfloat16"),
        ("fusion.hidden=(256, 128)", lambda c: c.fusion.hidden, (256, 128)),
        ("fusion.hidden=[]", lambda c: c.fusion.hidden, ()),
        ("inputs.poster.flip=0", lambda c: c.inputs["poster"].flip, 0.0),
        ("inputs.plot.encoder.sizes.dim=64", lambda c: c.inputs["plot"].encoder.sizes["dim"], 64),
        ("targets.genres.pos_weight=true", lambda c: c.targets["genres"].pos_weight, True),
        ("targets.genres.pos_weight=True", lambda c: c.targets["genres"].pos_weight, True),
        ("targets.genres.pos_weight=false", lambda c: c.targets["genres"].pos_weight, False),
        ("targets.genres.labels=['a', 'b=c']", lambda c: c.targets["genres"].labels, ("a", "b=c")),
        ("targets.genres.labels.1=crime", lambda c: c.targets["genres"].labels, ("drama", "crime")),
        ("train.phases.1.epochs=12", lambda c: [p.epochs for p in c.train.phases], [1, 12]),
        ("train.phases.0.rates.1.1=1e-5", lambda c: c.train.phases[0].rates[1], (".*", 1e-5)),
        ("train.phases=({'epochs': 4},)", lambda c: [p.epochs for p in c.train.phases], [4]),
        (
            "inputs.poster.encoder.sizes.depths.2=9",
            lambda c: c.inputs["poster"].encoder.sizes["depths"],
            (1, 1, 9, 1),
        ),
    ],
)
def test_overrides(file, override, read, value):
    assert read(load(file, [override])) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024.10", "2024.10"),
        ("007", "007"),
        ("1e5", "1e5"),
        ("true", "true"),
        ("None.csv", "None.csv"),
        ("'quoted'", "quoted"),
        ("a=b.csv", "a=b.csv"),
        ("[x].csv", "[x].csv"),
    ],
)
def test_a_text_stays_as_it_was_typed(file, text, value):
    assert load(file, [f"data.path={text}"]).data.path == value


def test_later_overrides_win(file):
    assert load(file, ["seed=1", "seed=2"]).seed == 2


def test_several_targets_are_monitored_by_name(file):
    monitor = "train.monitor=mood/map"
    assert (
        load(
            file, ["targets.mood.kind=multilabel", "targets.mood.column=mood", monitor]
        ).train.monitor
        == "mood/map"
    )


def test_none_removes_an_entry(file):
    config = load(file, ["inputs.poster=None", "train.phases.0=None"])
    assert list(config.inputs) == ["plot"]
    assert [phase.epochs for phase in config.train.phases] == [3]


def test_an_entry_can_be_added(file):
    config = load(
        file,
        [
            "inputs.title.kind=text",
            "inputs.title.column=title",
            "inputs.title.encoder.network=bert",
        ],
    )
    assert config.inputs["title"].encoder.network == "bert"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batchsize=3", "config.train.batchsize: no such key; did you mean batch_size?"),
        ("trian.batch_size=3", "config.trian: no such key; did you mean train?"),
        ("batch_size=3", "config.batch_size: no such key; did you mean config.train.batch_size?"),
        (
            "train.epochs=3",
            "config.train.epochs: no such key; did you mean config.train.phases.0.epochs?",
        ),
        (
            "log.zzz=3",
            "config.log.zzz: no such key; known: every, pictures",
        ),
        (
            "inputs.poster.crops=0.5",
            "config.inputs.poster.crops: no such key; did you mean crop?",
        ),
        (
            "inputs.plott.max_tokens=9",
            "config.inputs.plott.kind: missing; one of text, image, sequence, tabular; did you "
            "mean config.inputs.plot?",
        ),
        (
            "targets.genre.threshold=0.3",
            "config.targets.genre.kind: missing; one of multilabel, classes, regression, "
            "embedding; did you mean config.targets.genres?",
        ),
        ("targets.other.threshold=0.3", "config.targets.other.kind: missing; one of multilabel, "),
        ("targets.other.kind=regression", "config.targets.other.column: missing"),
        (
            "inputs.plot.kind=txt",
            "config.inputs.plot.kind: 'txt' is none of text, image, sequence, tabular; "
            "did you mean text?",
        ),
        (
            "inputs.plot.kind=3",
            "config.inputs.plot.kind: '3' is none of text, image, sequence, tabular",
        ),
        ("inputs.plot=3", "config.inputs.plot: expected a section, got 3"),
        (
            "inputs={'my plot': {}}",
            "config.inputs: 'my plot' is no name; use letters, digits and _",
        ),
        ("inputs=3", "config.inputs: expected named entries, got 3"),
        (
            "train.precision=bfloat",
            "config.train.precision: 'bfloat' is none of float32, bfloat16, float16; "
            "did you mean bfloat16",
        ),
        (
            "train.precision=8",
            "config.train.precision: 8 is none of float32, bfloat16, float16",
        ),
        ("train.batch_size=many", "config.train.batch_size: expected int, got 'many'"),
        ("train.batch_size=32.0", "config.train.batch_size: expected int, got 32.0"),
        ("train.batch_size=true", "config.train.batch_size: expected int, got True"),
        ("train.clip=true", "config.train.clip: expected float, got True"),
        ("train.clip=1e999", "config.train.clip: expected a finite number, got inf"),
        ("targets.genres.pos_weight=1", "config.targets.genres.pos_weight: expected bool, got 1"),
        ("train=5", "config.train: expected a section, got 5"),
        ("fusion.hidden=128", "config.fusion.hidden: expected a list, got 128"),
        ("fusion.hidden=(128, 'x')", "config.fusion.hidden.1: expected int, got 'x'"),
        (
            "train.phases.0.rates.0=('.*', 1, 2)",
            "config.train.phases.0.rates.0: expected 2 entries, got ('.*', 1, 2)",
        ),
        ("train.phases.2.epochs=3", "config.train.phases.2.epochs: '2' is not an index below 2"),
        ("train.phases.x=3", "config.train.phases.x: 'x' is not an index below 2"),
        (
            "train.phases.1.rates.0.1=3",
            "config.train.phases.1.rates.0.1: no list to change is in the file; "
            "set config.train.phases.1.rates",
        ),
        ("seed.x=3", "config.seed.x: 'seed' is a value, not a section"),
        ("train.phases.0.rates.0.1.x=3", "config.train.phases.0.rates.0.1.x: '1' is a value, not"),
        ("inputs.postre=None", "config.inputs.postre: nothing to remove; did you mean poster"),
        ("train.phases.5=None", "config.train.phases.5: '5' is not an index below 2"),
        ("inputs=None", "config.inputs: missing"),
        ("train.phases=()", "config.train.phases: expected at least one phase, got ()"),
        ("train.accumulate=5", "config.train.accumulate: expected a divisor of batch_size (32)"),
        ("train.phases.0.epochs=0", "config.train.phases.0.epochs: expected at least 1, got 0"),
        ("train.phases.0.warmup=1", "config.train.phases.0.warmup: expected in [0, 1), got 1.0"),
        ("targets.genres.clip=1", "config.targets.genres.clip: expected in [0, 1), got 1.0"),
        ("targets.genres.delimiter=''", "config.targets.genres.delimiter: expected at least one"),
        ("targets.genres.labels=('a', 'a')", "config.targets.genres.labels: expected all differen"),
        ("inputs.poster.std=(1, 1)", "config.inputs.poster.std: expected three numbers or empty"),
        ("inputs.poster.std=(1, 0, 1)", "config.inputs.poster.std: expected numbers above 0"),
        ("data.val_fraction=0.9", "config.data.test_fraction: expected below 1 together with val"),
        ("data.path=''", "config.data.path: expected a table file, got ''"),
        ("train.patience=-1", "config.train.patience: expected 0 or more, got -1"),
        (
            "train.monitor=marco_f1",
            "config.train.monitor: 'marco_f1' is none of loss, macro_f1, micro_f1, weighted_f1, "
            "samples_f1, map, auroc; did you mean macro_f1?",
        ),
        (
            "targets.mood={'kind': 'multilabel', 'column': 'mood'}",
            "config.train.monitor: 'macro_f1' is none of loss, genres/loss, genres/macro_f1, ",
        ),
        (
            "inputs.plot.encoder.network=convnext",
            "config.inputs.plot.encoder.network: expected one that reads text (distilbert, bert, "
            "text_cnn), got 'convnext'",
        ),
        (
            "inputs.poster.encoder.network=bert",
            "config.inputs.poster.encoder.network: expected one that reads image (convnext, "
            "mobilenet_v2, efficientnet), got",
        ),
        ("batch_size", "--config.batch_size: write --config.batch_size=VALUE"),
    ],
)
def test_errors_name_the_key_and_the_nearest_right_one(file, override, message):
    said = error(load, file, [override])
    assert said.startswith(message)
    assert "\n" not in said


def test_a_file_that_is_not_there(file):
    wrong = file.replace("genres", "genre")
    assert error(load, wrong) == f"no config file {wrong!r}; did you mean {file}?"
    assert error(load, "no/such/folder.py") == "no config file 'no/such/folder.py'"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", r"config\.py: AttributeError: .*get_config"),
        ("def get_config(variant):\n    return", r"config\.py: get_config returned None"),
        ("\n\nimport nothing_of_this_name", r"config\.py line 3: ModuleNotFoundError: "),
        ("def get_config(variant):\n    return {}['x']", r"config\.py line 2: KeyError: 'x'"),
        ("def get_config(variant)\n    return", r"config\.py line 1: SyntaxError: "),
        ("def get_config(variant):\n    return {}", r"^config\.inputs: missing$"),
    ],
)
def test_a_broken_file_is_told_with_its_line(tmp_path, source, message):
    path = tmp_path / "config.py"
    path.write_text(source)
    assert re.search(message, error(load, str(path)))


def test_plain_dicts_will_do(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(FILE.replace("return ConfigDict(", "return (").replace("from ml_", "# "))
    assert load(str(path), ["seed=1"]).seed == 1


def test_a_wrong_key_ends_before_anything_heavy_is_imported(file):
    program = (
        "import sys\n"
        "from jfusion import config_file\n"
        "try:\n"
        "    config_file.load(sys.argv[1], ['train.batchsize=3'])\n"
        "except config_file.ConfigError as error:\n"
        "    print(error, {'jax', 'flax', 'numpy', 'pyarrow', 'torch'} & set(sys.modules))\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", program, file],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert out == "config.train.batchsize: no such key; did you mean batch_size? set()\n"
