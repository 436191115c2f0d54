"""Double precision for the tests of the JAX package, as a context: no setting outlives a test."""

import jax
import pytest


@pytest.fixture(autouse=True)
def x64():
    """64-bit types on; a module that wants them off overrides this fixture."""
    with jax.enable_x64(True):
        yield
        jax.effects_barrier()  # a report that comes late belongs to the test that caused it
