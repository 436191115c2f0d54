"""Double precision for the tests of the JAX package, as a context, and no factors: nothing outlives a test."""

import jax
import pytest

import tsgu_jax


@pytest.fixture(autouse=True)
def no_factors():
    """Those of an equal matrix would be found again."""
    tsgu_jax.factor_store.clear()


@pytest.fixture(autouse=True)
def x64():
    """64-bit types on; a module that wants them off overrides this fixture."""
    with jax.enable_x64(True):
        yield
        jax.effects_barrier()  # a report that comes late belongs to the test that caused it
