"""What every test shares: strict JAX, parsed flags, and a cache of its own."""

import jax
import pytest
from absl import flags

jax.config.update("jax_numpy_rank_promotion", "raise")
if not flags.FLAGS.is_parsed():
    flags.FLAGS(["pytest"])


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("JFUSION_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
