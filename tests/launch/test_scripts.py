"""What holds for all launch scripts."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.standins import ROOT, Machine

SCRIPTS = sorted(path for kind in ("*.sh", "*.sbatch") for path in (ROOT / "launch").glob(kind))
COMMANDS = ("tpu.sh", "slurm.sh", "kubernetes.sh")
SOURCED = "common.sh"  # by those that set how errors are met


def test_shellcheck_finds_nothing():
    place = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    program = shutil.which("shellcheck", path=place)
    assert program, "pip install -e '.[test]' brings it along"
    done = subprocess.run(
        [program, "--external-sources", *SCRIPTS], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(SCRIPTS) == 6


@pytest.mark.parametrize(
    "script", [path for path in SCRIPTS if path.name != SOURCED], ids=lambda path: path.name
)
def test_a_script_stops_at_the_first_error_and_can_be_started(script):
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash" and "set -euo pipefail" in lines
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("script", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_option(tmp_path, script, flag):
    machine = Machine(tmp_path)
    done = machine.run(script, "run", flag)
    assert done.returncode == 0 and not done.stderr and not machine.calls()
    text = (machine.repository / "launch" / script).read_text().replace("\\\n", "")
    (declared,) = re.findall(r'^parse_options "(.*?)"\s+"(.*?)" "\$@"', text, re.MULTILINE)
    options = f"{' '.join(declared)} dry-run".split()
    assert len(options) > 8
    assert set(re.findall(r"--([a-z-]+)", done.stdout)) == set(options)


def written_commands():
    """The commands of launch/README.md that begin with launch/."""
    text = (ROOT / "launch/README.md").read_text()
    blocks = re.findall(r"^ *```\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    return [line.strip() for line in lines if line.strip().startswith("launch/")]


@pytest.mark.parametrize("line", written_commands())
def test_the_commands_of_the_page_are_right(tmp_path, line):
    script, *words = shlex.split(line)
    machine = Machine(tmp_path)
    done = machine.run(script.removeprefix("launch/"), "--dry-run", *words)
    assert done.returncode == 0 and done.stdout and not machine.calls(), done.stderr


def test_the_page_shows_every_command():
    shown = {shlex.split(line)[0] for line in written_commands()}
    assert shown == {f"launch/{script}" for script in COMMANDS}
