import shutil

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jfusion.errors import UserError
from jfusion.training import sharding
from jfusion.training.checkpoint import Checkpoints, Progress
from jfusion.training.state import State

MESH = sharding.make_mesh()


def state(step, size=1000):
    values = jax.random.normal(jax.random.key(step), (3, size))
    tree = State(
        step=jnp.int32(step),
        params={"a/kernel": values[0], "a/bias": values[1, :3]},
        frozen={"b": jax.random.normal(jax.random.key(99), (size,))},  # the same at every step
        stats={},
        opt_state={"adam": values[2], "average": {}, "scale": {}},
    )
    return sharding.replicate(tree, MESH)


def abstract(progress=None, size=1000):
    tree = jax.eval_shape(lambda: state(0, size))
    return sharding.abstract(tree, sharding.placement(tree, MESH, {}))


def data(progress=None, taken=0):
    batches = iter(grain.MapDataset.range(1000).to_iter_dataset())
    for _ in range(taken):
        next(batches)
    return batches


class Folder:
    """Checkpoints in a temporary folder, opened anew at will, and what they report."""

    def __init__(self, path):
        self.path, self.said, self._open = path, [], None

    def __call__(self, keep=2):
        self.close()
        self._open = Checkpoints(self.path, keep, self.said.append)
        return self._open

    def fill(self, *steps, keep=2, **progress):
        checkpoints = self(keep)
        for step in steps:
            checkpoints.save(step, state(step), data(taken=step), Progress(**progress))
        checkpoints.wait()
        return checkpoints

    def steps(self):
        return sorted(int(path.name) for path in self.path.iterdir())

    def damage(self, step, pattern, how):
        file = max(
            (path for path in (self.path / str(step)).rglob(pattern) if path.is_file()),
            key=lambda path: path.stat().st_size,
        )
        content = bytearray(file.read_bytes())
        if how == "delete":
            file.unlink()
            return
        if how == "flip":
            content[len(content) // 2] ^= 1
        file.write_bytes(content[: len(content) // 2] if how == "cut" else content)

    def close(self):
        if self._open is not None:
            self._open.close()


@pytest.fixture
def folder(tmp_path):
    folder = Folder(tmp_path / "checkpoints")
    yield folder
    folder.close()


def require_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


def test_everything_comes_back(folder):
    best = {"macro_f1": 0.1 + 0.2, "auroc": None}
    progress = Progress(1, 4, 7, 7, 1, best, 2, 12.5, {"train": "ab"})
    folder().save(7, state(7), data(taken=5), progress)
    restored, batches, found = folder().restore_newest(abstract, data)
    require_equal(restored, state(7))
    for leaf, expected in zip(jax.tree.leaves(restored), jax.tree.leaves(abstract()), strict=True):
        assert leaf.sharding == expected.sharding
    assert next(batches) == 5
    assert found == progress
    assert folder.said == []


def test_frozen_parameters_are_written_once_per_phase(folder, tmp_path):
    folder.fill(1, 2, 3)
    folder.fill(4, phase=1)
    sizes = [
        sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
        for part in (tmp_path / "frozen" / "0", folder.path / "4" / "state")
    ]
    assert sizes[0] > 4000
    bare = Checkpoints(tmp_path / "bare", 1)
    bare.save(1, state(1)._replace(frozen={}), data(), Progress())
    bare.close()
    expected = tmp_path / "bare" / "1" / "state"
    assert abs(sizes[1] - sum(p.stat().st_size for p in expected.rglob("*") if p.is_file())) < 2000
    assert sorted(path.name for path in (tmp_path / "frozen").iterdir()) == ["0", "1"]
    require_equal(folder().restore_state(4, 1, abstract()), state(4))


@pytest.mark.parametrize("how", ["flip", "delete"])
def test_damaged_frozen_parameters_are_an_error(folder, tmp_path, how):
    folder.fill(1)
    folder.path = tmp_path / "frozen"
    folder.damage(0, "*", how)
    folder.path = tmp_path / "checkpoints"
    with pytest.raises(UserError, match=r"frozen/0 are damaged .* begin anew"):
        folder().restore_newest(abstract, data)


def test_an_empty_folder_has_nothing_to_restore(folder):
    assert folder().restore_newest(abstract, data) is None
    assert folder.said == []


def test_what_is_saved_is_the_state_of_that_moment(folder):
    step = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    checkpoints, current, batches = folder(), state(1, 300_000), data()
    before = jax.tree.map(lambda x: np.array(x, copy=True), current)
    checkpoints.save(1, current, batches, Progress())
    for _ in range(20):  # the buffers are used again while the files are being written
        current = step(current)
        next(batches)
    jax.block_until_ready(current)
    restored, batches, _ = folder().restore_newest(lambda _: abstract(size=300_000), data)
    require_equal(restored, before)
    assert next(batches) == 0


@pytest.mark.parametrize("keep", [1, 3])
def test_the_newest_stay_and_the_best(folder, keep):
    checkpoints = folder(keep)
    for step in range(1, 7):
        progress = Progress(best_step=2 if step >= 2 else -1)
        checkpoints.save(step, state(step), data(), progress)
    checkpoints.wait()
    assert folder.steps() == sorted({2, *range(7 - keep, 7)})
    folder(keep).restore_newest(abstract, data)  # which one is the best is known again
    folder.fill(7, keep=keep, best_step=2)
    assert folder.steps() == sorted({2, *range(8 - keep, 8)})


def test_a_step_saved_again_changes_nothing(folder):
    folder.fill(1, evaluated=0)
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    folder.fill(1, evaluated=1)
    folder.close()
    assert {p: p.read_bytes() for p in folder.path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("pattern", "how"),
    [
        ("state/**/*", "flip"),  # which neither Orbax nor its storage would notice
        ("state/**/*", "cut"),
        ("state/**/*", "delete"),
        ("data/metadata", "cut"),
        ("progress/*", "flip"),
        ("digests.json", "delete"),
        ("digests.json", "cut"),
    ],
)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(folder, pattern, how):
    folder.fill(3, 5)
    folder.close()
    folder.damage(5, pattern, how)
    restored, batches, _ = folder().restore_newest(abstract, data)
    require_equal(restored, state(3))
    assert next(batches) == 3
    (line,) = folder.said
    assert line.startswith("checkpoint 5 is damaged (")
    assert "\n" not in line
    aside = folder.path.parent / "damaged" / "5"
    assert line.endswith(f"moved to {aside}")
    assert aside.is_dir()
    folder.fill(5)  # its place is free
    assert folder.steps() == [3, 5]


def test_all_damaged_begins_anew_and_says_so(folder):
    folder.fill(3, 5)
    folder.close()
    for step in (3, 5):
        shutil.rmtree(folder.path / str(step) / "state")
    assert folder().restore_newest(abstract, data) is None
    assert [line.split(" (")[0] for line in folder.said] == [
        "checkpoint 5 is damaged",
        "checkpoint 3 is damaged",
        "no checkpoint is whole; the run begins anew",
    ]


def test_a_lost_best_checkpoint_is_forgotten(folder):
    folder.fill(3, 5, 6, evaluated=5, best_step=3, best={"macro_f1": 0.5}, stale=1, seconds=7.0)
    folder.close()
    folder.damage(3, "state/**/*", "flip")
    restored, _, progress = folder().restore_newest(abstract, data)
    require_equal(restored, state(6))
    assert progress == Progress(seconds=7.0)
    assert [line.split(" (")[0] for line in folder.said] == [
        "checkpoint 3 is damaged",
        "the best checkpoint so far, 3, is lost: from step 6 on the best is chosen anew",
    ]
    assert folder.steps() == [5, 6]


def test_a_whole_checkpoint_of_another_program_is_not_touched(folder):
    folder.fill(3, 5)
    with pytest.raises(UserError, match=r"checkpoints/5 is whole but cannot be restored \(.+\)"):
        folder().restore_newest(lambda _: abstract()._replace(stats={"new": abstract().step}), data)
    assert folder.steps() == [3, 5]
    assert folder.said == []


def test_whoever_says_what_to_restore_may_refuse(folder):
    def refuse(progress):
        raise UserError(f"not {progress.data}")

    folder.fill(3, data={"train": "ab"})
    with pytest.raises(UserError, match="not"):
        folder().restore_newest(refuse, data)
    assert folder.steps() == [3]


def test_what_a_killed_save_left_is_removed(folder):
    folder.fill(3)
    left = folder.path / "5.orbax-checkpoint-tmp"
    shutil.copytree(folder.path / "3", left)
    restored, _, _ = folder().restore_newest(abstract, data)
    assert int(restored.step) == 3
    folder.fill(5)
    assert folder.steps() == [3, 5]


def test_what_a_killed_removal_left_is_removed(folder):
    folder.fill(3, 5)
    folder.close()
    shutil.rmtree(folder.path / "3" / "state")
    restored, _, _ = folder().restore_newest(abstract, data)
    assert int(restored.step) == 5
    folder.fill(6)
    assert folder.steps() == [5, 6]
    assert folder.said == []
