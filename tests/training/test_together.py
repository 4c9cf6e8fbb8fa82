"""Real processes that train one model together: what they give, and how they stop."""

import copy
import json
import shutil
import signal

import numpy as np
import pytest

from tests.training import devices, runs

PREEMPTED = 75
# The state is split over the devices of both processes.
CONFIG = copy.deepcopy(runs.PLAIN_CONFIG)
CONFIG["mesh"] = {"fsdp": 4, "min_size": 16}
CONFIG["train"]["phases"] = [{"epochs": 2, "rates": [[".*embeddings/.*", 0.0], [".*", 1e-2]]}]
HEARTBEAT = "--heartbeat_seconds=10"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def reference(place):
    done = runs.start_together(place, place / "reference", CONFIG)
    assert [process.returncode for process in done] == [0, 0], done
    return done


def steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def test_without_others_it_says_how_to_name_them(place, monkeypatch):
    done = runs.start(place, place / "lonely", flags=("--distributed",))
    assert done.returncode == 2
    assert done.stderr.startswith("error: --distributed: JAX finds no cluster")
    assert (
        "set JAX_COORDINATOR_ADDRESS=host:port, JAX_NUM_PROCESSES and JAX_PROCESS_ID" in done.stderr
    )
    monkeypatch.setenv("JAX_PROCESS_ID", "first")
    done = runs.start(place, place / "lonely", flags=("--distributed",))
    assert done.stderr == "error: --distributed: JAX_PROCESS_ID='first' is not a number\n"
    assert not (place / "lonely").exists()


def test_only_the_first_process_writes_and_speaks(place, reference):
    first, second = reference
    # The library that carries the exchanges speaks on stdout, too, and from several threads,
    # whose lines may run into each other.
    assert first.stdout.count(f"run folder: {place / 'reference'}\n") == 2
    assert "devices: 4 x cpu in 2 processes" in first.stderr
    assert ("run folder" in second.stdout, second.stderr) == (False, "")
    events = list((place / "reference").glob("events.out.*"))
    assert len(events) == 1


def test_killed_and_stopped_they_go_on_to_the_same_bits(place, reference):
    workdir = place / "stopped"
    survivor, killed = runs.start_together(
        place, workdir, CONFIG, ((), ("KILL:step:5",)), (HEARTBEAT,)
    )
    assert killed.returncode == -signal.SIGKILL
    assert survivor.returncode not in (0, PREEMPTED), survivor.stderr
    assert steps(workdir) == [3]

    stopped = runs.start_together(place, workdir, CONFIG, ((), ("TERM:step:2",)))
    assert [process.returncode for process in stopped] == [PREEMPTED] * 2, stopped
    saved = steps(workdir)[-1]
    assert 5 <= saved < 16
    assert all(f"stopped by SIGTERM at step {saved};" in process.stderr for process in stopped)
    shutil.copytree(workdir, place / "alone")

    finished = runs.start_together(place, workdir, CONFIG)
    assert [process.returncode for process in finished] == [0, 0], finished
    assert f"resuming at step {saved}" in finished[0].stderr
    one, other = runs.results(place / "reference"), runs.results(workdir)
    assert one == other


def test_a_single_process_goes_on_with_what_several_began(place, reference):
    """Another number of processes, devices and parts of the state."""
    workdir = place / "alone"
    flags = ("--config.mesh.fsdp=2", "--config.mesh.min_size=1000")
    (done,) = runs.start_together(place, workdir, CONFIG, ((),), flags)
    assert done.returncode == 0, done.stderr
    assert "resuming at step" in done.stderr
    one, other = runs.results(place / "reference"), runs.results(workdir)
    assert one["metrics"][-1]["step"] == other["metrics"][-1]["step"]
    for a, b in zip(one["metrics"], other["metrics"], strict=True):
        assert (a["step"], a["split"]) == (b["step"], b["split"])
        assert a["values"].keys() == b["values"].keys()
        for name, value in a["values"].items():
            if value is not None:
                np.testing.assert_allclose(b["values"][name], value, rtol=1e-3, atol=1e-5)


def test_scores_are_those_of_one_process(place, reference):
    """Every row counts once: 18 rows in batches of 8, parted among four devices."""
    module = ("-m", "jfusion.evaluate", f"--model={place / 'reference' / 'model'}")
    scores = []
    for count in (1, 2):
        output = place / f"scores-{count}.json"
        command = (*module, f"--output={output}", "--distributed")
        done = devices.together([command] * count, JFUSION_CACHE=str(place / "cache"))
        assert [process.returncode for process in done] == [0] * count, done
        scores.append(json.loads(output.read_text()))
    one, two = scores
    summary = runs.results(place / "reference")["summary"]
    assert one["rows"] == two["rows"] == summary["rows"]["test"]
    for name, value in summary["test"].items():
        for found in (one["scores"][name], two["scores"][name]):
            assert found == (value and pytest.approx(value, rel=1e-5)), name
