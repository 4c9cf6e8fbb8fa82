"""Checkpoints in buckets: what is whole, what stays, and what several processes make together."""

import json

import pytest

from jfusion.bucket import Folder
from jfusion.training import checkpoint
from jfusion.training.checkpoint import Checkpoints, Progress
from jfusion.training.stored import Stored
from tests import buckets
from tests.training import devices
from tests.training.test_checkpoint import abstract, data, state


class Machine:
    """Checkpoints on a disk that was empty before, and what they report."""

    def __init__(self, url, path, keep=1):
        self.said = []
        self.checkpoints = Checkpoints(path / "checkpoints", keep, self.said.append, Folder(url))

    def fill(self, *steps, **progress):
        for step in steps:
            self.checkpoints.save(step, state(step), data(taken=step), Progress(**progress))
        self.checkpoints.wait()
        return self

    def restored(self):
        found = self.checkpoints.restore_newest(abstract, data)
        return found and (int(found[0].step), next(found[1]), found[2].best_step)


def test_another_machine_goes_on(url, tmp_path):
    Machine(url, tmp_path / "one").fill(1, 2, 3, best_step=2)
    folder = Stored(Folder(url), 1)
    assert (folder.steps(), folder.has_frozen(0), folder.has_frozen(1)) == ([2, 3], True, False)
    other = Machine(url, tmp_path / "other")
    assert other.restored() == (3, 3, 2), other.said
    assert int(other.checkpoints.restore_state(2, 0, abstract()).step) == 2
    other.fill(4, best_step=4)
    assert folder.steps() == [4]
    assert not any(name.startswith("checkpoints/3/") for name in buckets.names(url))
    assert not other.said


def test_what_was_half_sent_does_not_count(url, tmp_path):
    Machine(url, tmp_path / "one").fill(1)
    buckets.write(f"{url}/checkpoints/2/state/d/x", "half")
    buckets.write(f"{url}/checkpoints/2/digests-1-of-2.json", "{}")
    buckets.write(f"{url}/frozen/1/params/x", "half")
    assert Machine(url, tmp_path / "other").restored() == (1, 1, -1)
    names = buckets.names(url)
    assert not [name for name in names if name.startswith(("checkpoints/2/", "frozen/1/"))]


def test_damage_is_reported_and_the_one_before_is_used(url, tmp_path):
    Machine(url, tmp_path / "one", keep=2).fill(1, 2)
    victim = max(n for n in buckets.names(url) if n.startswith("checkpoints/2/state/d/"))
    buckets.write(f"{url}/{victim}", "x")
    other = Machine(url, tmp_path / "other", keep=2)
    assert other.restored() == (1, 1, -1), other.said
    assert other.said == [
        f"checkpoint 2 is damaged ({victim.removeprefix('checkpoints/2/')} is not as it was "
        f"written); moved to {url}/damaged/2"
    ]
    assert Stored(Folder(url), 2).steps() == [1]
    assert f"damaged/2/{victim.removeprefix('checkpoints/2/')}" in buckets.names(url)
    other.fill(2)
    assert Machine(url, tmp_path / "third", keep=2).restored() == (2, 2, -1)


@pytest.mark.parametrize("bucket_url", ["s3"], indirect=True)
def test_what_was_damaged_on_its_way_is_fetched_again(url, tmp_path, monkeypatch):
    Machine(url, tmp_path / "one").fill(1)
    get, calls = Folder.get, []

    def damaged(folder, names, into):
        get(folder, names, into)
        calls.append(names)
        if len(calls) == 1:
            (into / next(name for name in names if name.endswith("progress/metadata"))).write_text(
                ""
            )

    monkeypatch.setattr(Folder, "get", damaged)
    other = Machine(url, tmp_path / "other")
    assert other.restored() == (1, 1, -1)
    assert not other.said and Stored(Folder(url), 1).steps() == [1]


@pytest.mark.parametrize("bucket_url", ["s3"], indirect=True)
def test_what_cannot_be_sent_ends_the_run(url, tmp_path, monkeypatch):
    machine = Machine(url, tmp_path)

    def fail(*args):
        raise ConnectionError("no answer")

    monkeypatch.setattr(checkpoint.Stored, "send", fail)
    with pytest.raises(ConnectionError, match="no answer"):
        machine.fill(1, 2)
    monkeypatch.undo()
    assert Stored(Folder(url), 1).steps() == []


@pytest.mark.parametrize("bucket_url", ["s3"], indirect=True)
def test_processes_with_disks_of_their_own_write_one_checkpoint(url):
    def run(count, *steps):
        command = ("-m", "tests.training.stored_parts", url, *map(str, steps))
        done = devices.together([command] * count)
        assert [process.returncode for process in done] == [0] * count, done[-1].stderr
        return json.loads(done[0].stdout.splitlines()[-1])

    assert run(2, 1, 2, 3) == []
    assert Stored(Folder(url), 1).steps()[-1] == 3
    assert run(1) == ["restored 3, best 1"]
