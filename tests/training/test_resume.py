"""Real processes, killed and stopped at chosen moments, end with the bits of one that was not."""

import signal

import pytest

from tests.training import runs

PREEMPTED = 75


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for the config, and for the caches that all processes share."""
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def reference(place):
    done = runs.start(place, place / "reference")
    assert done.returncode == 0, done.stderr
    return done


def newest(workdir):
    names = (path.name for path in (workdir / "checkpoints").iterdir())
    return max(int(name) for name in names if name.isdigit())


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
        stopped = runs.start(place, workdir, *orders)
        assert stopped.returncode == code, f"{orders}: {stopped.returncode}\n{stopped.stderr}"
        assert newest(workdir) == checkpoint, f"{orders}\n{stopped.stderr}"
        assert not (workdir / "summary.json").exists()
        if code == PREEMPTED:
            assert "stopped by SIGTERM" in stopped.stderr
            assert f"--workdir {workdir} resumes" in stopped.stderr
    finished = runs.start(place, workdir)
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


def test_a_finished_run_is_reported_and_not_touched(place, reference):
    workdir = place / "reference"
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    again = runs.start(place, workdir)
    assert again.returncode == 0
    assert again.stdout.splitlines() == [
        f"run folder: {workdir}",
        f"this run is finished: see {workdir}/summary.json",
    ]
    assert again.stderr == ""
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


def test_what_a_log_shows(place, reference):
    workdir = place / "reference"
    told = reference.stdout.splitlines()
    assert told[0] == told[-1] == f"run folder: {workdir}"
    assert "macro_f1" in reference.stdout
    # Nothing but the run's own lines: no warnings, no libraries.
    known = ("devices: ", "train: ", "val: ", "test: ", "  plot: ", "phase ", "step ")
    strange = [line for line in reference.stderr.splitlines() if not line.startswith(known)]
    assert strange == []


def test_sigterm_before_the_first_step_ends_at_once(place):
    workdir = place / "not_begun"
    stopped = runs.start(place, workdir, "TERM:start:1")
    assert stopped.returncode == PREEMPTED
    assert stopped.stderr == "stopped by SIGTERM before the first step\n"
    assert [path.name for path in workdir.iterdir()] == ["config.json"]
