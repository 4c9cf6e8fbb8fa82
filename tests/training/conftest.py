"""What tests of whole runs share."""

import jax
import pytest


@pytest.fixture(scope="module")
def compiled_programs(tmp_path_factory):
    """Compiled programs are kept between the runs of a module, as `main` keeps them."""
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (str(tmp_path_factory.mktemp("xla")), 0.0), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in zip(names, before, strict=True):
        jax.config.update(name, value)
