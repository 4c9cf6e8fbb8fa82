"""Real runs in buckets: begun, killed, and gone on with on machines whose disks are empty."""

import contextlib
import copy
import json
import os
import signal
import subprocess
import sys

import pytest

from jfusion import config_file
from jfusion.bucket import Folder, Mirror
from jfusion.training import repeats
from jfusion.training.stored import Stored
from tests import buckets
from tests.training import runs

PREEMPTED = 75
CONFIG = copy.deepcopy(runs.PLAIN_CONFIG)
CONFIG["train"]["phases"] = [{"epochs": 1, "rates": [[".*embeddings/.*", 0.0], [".*", 1e-2]]}]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("buckets")


@pytest.fixture(autouse=True)
def disk(tmp_path, monkeypatch):
    """Where the runs of a test work; what a killed one leaves there goes with the test."""
    (tmp_path / "disk").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "disk"))


@pytest.fixture(scope="module")
def reference(place):
    done = runs.start(place, place / "reference", config=CONFIG)
    assert done.returncode == 0, done.stderr
    return runs.results(place / "reference")


def results(url, folder):
    """What a finished run left in a bucket, see `runs.results`."""
    there = Folder(url)
    names = [name for name in there.list() if not name.startswith(("checkpoints", "frozen"))]
    there.get(names, folder)
    return runs.results(folder)


def test_killed_it_goes_on_elsewhere_to_the_same_bits(place, reference, tmp_path):
    with buckets.serving("s3") as served:
        url = f"{served}/runs/a"
        killed = runs.start(place, url, "KILL:step:5", config=CONFIG)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert Stored(Folder(url), 1).steps() == [3]
        assert "summary.json" not in Folder(url).entries()

        finished = runs.start(place, url, config=CONFIG)
        assert finished.returncode == 0, finished.stderr
        assert "resuming at step 3\n" in finished.stderr
        assert finished.stdout.splitlines()[0] == f"run folder: {url}"
        assert results(url, tmp_path) == reference
        assert len(list(tmp_path.glob("events.out.*"))) == 2  # a file for each start
        # The newest two and the best, and no more.
        assert len(Stored(Folder(url), 2).steps()) <= 3

        again = runs.start(place, url, config=CONFIG)
        assert (again.returncode, again.stderr) == (0, "")
        assert again.stdout.splitlines()[-1] == f"this run is finished: see {url}/summary.json"
        other = runs.start(place, url, config=CONFIG, flags=("--config.seed=7",))
        assert other.returncode == 2
        assert "holds a run of another config" in other.stderr
        assert "config.seed: 0 there, 7 now" in other.stderr

        scores = tmp_path / "scores.json"
        arguments = (f"--model={url}/model", f"--output={scores}")
        done = subprocess.run(
            [sys.executable, "-m", "jfusion.evaluate", *arguments],
            cwd=runs.ROOT,
            env={**os.environ, "JFUSION_CACHE": str(place / "cache")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(scores.read_text())["scores"] == reference["summary"]["test"]


def test_two_processes_without_a_common_disk_go_on_to_the_same_bits(place, tmp_path):
    config = {**CONFIG, "mesh": {"fsdp": -1, "data": 1, "min_size": 16}}
    done = runs.start_together(place, place / "two", config)
    assert [process.returncode for process in done] == [0, 0], done
    with buckets.serving("gs") as served:
        url = f"{served}/runs/two"
        stopped = runs.start_together(place, url, config, (("TERM:step:3",), ()))
        assert [process.returncode for process in stopped] == [PREEMPTED] * 2, stopped
        (saved,) = Stored(Folder(url), 2).steps()[-1:]
        assert 3 < saved < 8, "it stopped on the way"
        told = f"at step {saved}; everything is saved; the same command with --workdir {url} resum"
        assert all(told in process.stderr for process in stopped)

        finished = runs.start_together(place, url, config)
        assert [process.returncode for process in finished] == [0, 0], finished
        assert f"resuming at step {saved}\n" in finished[0].stderr
        known = ("devices: ", "train: ", "val: ", "test: ", "  plot: ", "phase ", "step ")
        known += ("resuming ",)
        assert not [x for x in finished[0].stderr.splitlines() if not x.startswith(known)]
        assert finished[1].stderr == ""
        assert results(url, tmp_path) == runs.results(place / "two")


def test_runs_that_are_finished_are_not_repeated_elsewhere(tmp_path, monkeypatch):
    trained = []

    def train(config, workdir, stop_requested, mirror):
        trained.append(mirror.url)
        if len(trained) == 2:
            raise KeyboardInterrupt
        workdir.mkdir(parents=True, exist_ok=True)
        summary = {"seed": config.seed, "best_step": 1, "test": {"loss": config.seed + 0.5}}
        summary |= {"seconds": 1.0, "versions": {}}
        (workdir / "summary.json").write_text(json.dumps(summary))
        (workdir / "test_predictions.csv").write_text("row\n")
        mirror.publish("*")

    monkeypatch.setattr(repeats.loop, "train", train)
    config = config_file.resolve({**CONFIG, "name": "several", "seeds": 2})
    with buckets.serving("gs") as served:
        url = f"{served}/runs/several"
        for machine in ("one", "other"):
            mirror = Mirror(url, tmp_path / machine)
            with contextlib.suppress(KeyboardInterrupt):
                summary = repeats.train(config, mirror.path, mirror=mirror)
        assert trained == [f"{url}/seed-0", f"{url}/seed-1", f"{url}/seed-1"]
        assert summary["test"]["loss"]["mean"] == 1.0
        assert json.loads(buckets.read(f"{url}/summary.json")) == summary
