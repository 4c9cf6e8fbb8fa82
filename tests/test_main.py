"""How the command ends when it cannot train; `training/test_resume.py` has the runs."""

import subprocess
import sys

import pytest

from tests.training import runs

# Runs the command as `python -m jfusion.main` does, then tells what it has imported.
PROGRAM = """
import sys
from jfusion import command, main
try:
    command.run(main.main)
finally:
    heavy = {"jax", "flax", "numpy", "orbax", "sklearn", "PIL"} & sys.modules.keys()
    print("heavy:", *sorted(heavy))
"""


@pytest.fixture
def start(tmp_path):
    config = tmp_path / "small.py"
    config.write_text(f"def get_config(variant):\n    return {runs.CONFIG!r}\n")

    def start(*flags):
        return subprocess.run(
            [sys.executable, "-c", PROGRAM, f"--config={config}", *flags],
            cwd=runs.ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return start


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.train.batchsize=4"], "did you mean batch_size?"),
        (["--config.train.monitor=macro_f2"], "config.train.monitor: "),
        (["--config.train.phases.0.epochs=0"], "config.train.phases.0.epochs: expected at least 1"),
        (["--config=nowhere.py"], "no config file 'nowhere.py'"),
        (["--wrokdir=x"], "workdir"),
        (["something"], "unknown argument 'something'"),
        ([f"--workdir={__file__}"], f"--workdir: {__file__}: "),
    ],
)
def test_a_wrong_flag_ends_at_once(start, tmp_path, flags, message):
    workdir = tmp_path / "run"
    done = start(f"--workdir={workdir}", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == "heavy:\n"
    assert not workdir.exists()


def test_another_config_is_refused_at_once(start, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "metrics.jsonl").write_text("")
    (workdir / "config.json").write_text('{"seed": 3}')
    done = start(f"--workdir={workdir}")
    assert done.returncode == 2
    assert f"error: --workdir: {workdir} holds a run of another config" in done.stderr
    assert "  config.seed: 3 there, 0 now\n" in done.stderr
    assert done.stdout == "heavy:\n"


def test_training_loads_no_torch_even_where_it_is_installed():
    program = (
        "import sys, jfusion.training.loop; print({'torch', 'tensorflow'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=runs.ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "set()\n", done.stderr
