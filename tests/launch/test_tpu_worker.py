"""The script on a worker, really run, with a training that does what the test says."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.launch.standins import Machine

pytestmark = pytest.mark.skipif(
    not (shutil.which("flock") and shutil.which("setsid")), reason="a worker runs Linux"
)
# Waits for its exit code in the file `end`, or to be gone with the script that waits for it.
TRAINING = """#!/usr/bin/env bash
printf '%s\\n' "$@"
until [[ -s $HOME/end ]]; do sleep 0.01; done
code=$(< "$HOME/end")
[[ $code != killed ]] || kill -KILL $PPID $$
exit "$code"
"""
ARGUMENTS = ("--config", 'it\'s a "config"', "--workdir", "gs://b/$HOME *", "")


class Worker(Machine):
    def __init__(self, folder):
        super().__init__(folder)
        self.home = Path(self.environment["HOME"])
        python = self.home / "jfusion-environment/bin/python"
        python.parent.mkdir(parents=True)
        python.write_text(TRAINING)
        python.chmod(0o755)

    def status(self, *arguments):
        out = self.run("tpu_worker.sh", "status", *arguments).stdout
        assert out.startswith("jfusion-worker: ") and out.endswith("\n")
        return out.removeprefix("jfusion-worker: ").strip()

    def end(self, code):
        (self.home / "end").write_text(str(code))
        self.wait_until_not("running")

    def log(self):
        path = self.home / "jfusion-run/log"
        return path.read_text() if path.exists() else ""

    def wait_until_not(self, state):
        wait_for(lambda: self.status() != state)


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def worker(tmp_path):
    worker = Worker(tmp_path)
    yield worker
    (worker.home / "end").write_text("0")  # nothing is left running
    worker.wait_until_not("running")


def test_a_run_is_started_once_and_reports_its_end(worker):
    assert worker.status() == worker.status(*ARGUMENTS) == "idle"
    assert worker.run("tpu_worker.sh", "start", *ARGUMENTS).returncode == 0
    assert worker.status(*ARGUMENTS) == worker.status() == "running"
    again = worker.run("tpu_worker.sh", "start", *ARGUMENTS)
    assert again.returncode == 1 and "a run is in progress" in again.stderr
    worker.end(75)
    assert worker.status(*ARGUMENTS) == worker.status() == "exited 75"
    assert worker.status(*ARGUMENTS[:-1]) == "idle"
    assert worker.log() == "".join(f"{word}\n" for word in ("-m", "jfusion.main", *ARGUMENTS))


def test_the_next_run_forgets_the_last(worker):
    worker.run("tpu_worker.sh", "start", *ARGUMENTS)
    worker.end(0)
    (worker.home / "end").unlink()
    assert worker.run("tpu_worker.sh", "start", "other").returncode == 0
    assert worker.status("other") == "running"
    worker.end(1)
    assert worker.status("other") == "exited 1" and worker.status(*ARGUMENTS) == "idle"


def test_a_run_that_was_killed_is_lost_whatever_came_of_the_last(worker):
    worker.run("tpu_worker.sh", "start", *ARGUMENTS)
    worker.end(0)
    (worker.home / "end").unlink()
    worker.run("tpu_worker.sh", "start", *ARGUMENTS)
    worker.end("killed")
    assert worker.status(*ARGUMENTS) == "lost"


def test_setup_installs_the_pinned_versions_for_a_tpu(worker):
    assert worker.run("tpu_worker.sh", "setup").returncode == 0
    *_, install = calls = worker.calls()
    assert {call[0] for call in calls} == {"python3"}
    assert install[-4:] == ["--constraint", "requirements.lock", "--editable", ".[tpu]"]


def test_setup_stops_at_what_fails(worker):
    worker.answer("venv", 6)
    assert worker.run("tpu_worker.sh", "setup").returncode == 6
    assert "venv" in worker.calls()[-1]


@pytest.mark.parametrize("words", [(), ("dance",)])
def test_other_commands_are_refused(worker, words):
    done = worker.run("tpu_worker.sh", *words)
    assert done.returncode == 2 and "not a command" in done.stderr


def test_the_training_outlives_the_connection(worker):
    """The script's end closes all that it has in common with the training."""
    command = f"bash {worker.repository}/launch/tpu_worker.sh start a | cat"
    connection = subprocess.Popen(
        ["bash", "-c", command], env=worker.environment, start_new_session=True
    )
    assert connection.wait(timeout=60) == 0
    wait_for(worker.log)  # it has begun
    with pytest.raises(ProcessLookupError):
        os.killpg(connection.pid, signal.SIGHUP)
    assert worker.status("a") == "running"
