"""Real processes, killed and stopped at chosen moments, end with the bits of one that was not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training import runs

ROOT = Path(__file__).parents[2]
PREEMPTED = 75


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the config, and the cache that all processes share."""
    folder = tmp_path_factory.mktemp("resume")
    (folder / "small.py").write_text(f"def get_config(variant):\n    return {runs.CONFIG!r}\n")
    return folder


def start(place, workdir, *orders):
    """Runs the command, or with orders the one that interrupts itself."""
    module = ["tests.training.interrupted", *orders, "--"] if orders else ["jfusion.main"]
    return subprocess.run(
        [sys.executable, "-m", *module]
        + ["--config", str(place / "small.py"), "--workdir", str(workdir)],
        cwd=ROOT,
        env={**os.environ, "JFUSION_CACHE": str(place / "cache")},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def reference(place):
    done = start(place, place / "reference")
    assert done.returncode == 0, done.stderr
    return done


def newest(workdir):
    return max(
        int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()
    )


def test_a_run_killed_and_stopped_again_and_again_ends_with_the_same_bits(place, reference):
    workdir = place / "interrupted"
    killed = -signal.SIGKILL
    for orders, code, checkpoint in [
        (["KILL:step:5"], killed, 3),  # in the middle of the first epoch
        (["KILL:evaluation:1"], killed, 6),  # of the first epoch, at step 8
        (["KILL:commit:1"], killed, 6),  # that of step 8, which is not there yet
        (["TERM:step:5", "TERM:commit:3"], PREEMPTED, 11),  # the second SIGTERM while it saves
        (["TERM:evaluation:2"], PREEMPTED, 16),
        (["KILL:step:4"], killed, 18),  # in the second phase, at step 20
        (["KILL:evaluation:6"], killed, 32),  # in the test
    ]:
        stopped = start(place, workdir, *orders)
        assert stopped.returncode == code, f"{orders}: {stopped.returncode}\n{stopped.stderr}"
        assert newest(workdir) == checkpoint, f"{orders}\n{stopped.stderr}"
        assert not (workdir / "summary.json").exists()
        if code == PREEMPTED:
            assert "stopped by SIGTERM" in stopped.stderr
            assert f"--workdir {workdir} resumes" in stopped.stderr
    finished = start(place, workdir)
    assert finished.returncode == 0, finished.stderr
    assert "resuming at step 32" in finished.stderr
    assert "damaged" not in finished.stderr
    one, other = runs.results(place / "reference"), runs.results(workdir)
    assert one["metrics"] == other["metrics"]
    assert one["summary"] == other["summary"]
    assert one["model"] == other["model"]
    # Nothing is left of the saves that were cut off.
    names = [path.name for path in (workdir / "checkpoints").iterdir()]
    assert all(name.isdigit() for name in names), names
