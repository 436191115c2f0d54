"""Both frameworks, or a skip."""

import pytest

pytest.importorskip("torch", reason="needs torch")
jax = pytest.importorskip("jax", reason="needs jax")


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield
        jax.effects_barrier()
