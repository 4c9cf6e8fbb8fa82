"""Several processes compute the features of frozen encoders together, each on its own disk."""

import functools
import shutil
from pathlib import Path
from unittest import mock

import numpy as np

from jfusion import processes
from jfusion.training import sharding
from tests.training import devices
from tests.training.test_features import ROWS, Watch, a_network, a_split, attach, entries

WHAT = "poster: features of train"
place_read = sharding.place_read


def counted(read, shape, reader, mesh):
    """`sharding.place_read`, with the numbers of rows that this process reads."""

    def count(part):
        rows = reader(part)
        read.append(len(rows))
        return rows

    return place_read(shape, count, mesh)


def write(folder):
    """In several processes: reads features three times, and writes what came of it."""
    own = Path(folder) / str(processes.index())
    # The same in all processes, like the weights of a run.
    network, params, _ = a_network()
    for turn in range(3):
        watch, splits, read = Watch(), {"train": a_split(absent=(0, 7, ROWS - 1))}, []
        with mock.patch.object(sharding, "place_read", functools.partial(counted, read)):
            found = attach(own, network, params, splits=splits, watch=watch, batch_size=2)
        assert len(entries(own)) == 1
        features = found["train"].inputs["poster"]["features"]
        np.savez(
            own / f"{turn}.npz", features=features, computed=watch.done.get(WHAT, 0), read=sum(read)
        )
        if turn == 1 and processes.index() == 1:
            shutil.rmtree(own / "features")


def test_all_have_them_or_all_compute_them(tmp_path):
    network, params, _ = a_network()
    splits = {"train": a_split(absent=(0, 7, ROWS - 1))}
    alone = attach(tmp_path / "alone", network, params, splits=splits, batch_size=2)["train"]
    program = (
        "from jfusion import processes; processes.join(60);"
        f"from tests.training import test_shared_features as t; t.write({str(tmp_path)!r})"
    )
    done = devices.together([("-c", program)] * 2)
    assert [process.returncode for process in done] == [0, 0], done
    for process in "01":
        for turn, computed in enumerate([ROWS - 3, 0, ROWS - 3]):
            with np.load(tmp_path / process / f"{turn}.npz") as found:
                assert found["computed"] == computed, (process, turn)
                # 17 rows in batches of eight, half of which are its own, plain and mirrored.
                assert found["read"] == (24 if computed else 0), (process, turn)
                np.testing.assert_allclose(
                    found["features"], alone.inputs["poster"]["features"], rtol=1e-5, atol=1e-6
                )
