"""What the tests of the contract have in common."""

import numpy as np
import pytest

from tests.contract.systems import BY_NAME, METHODS, PAIRS, System

RTOL = 1e-12

pairs = pytest.mark.parametrize(("method", "system"), PAIRS, ids=lambda value: str(value))
methods = pytest.mark.parametrize("method", METHODS)
iterative = pytest.mark.parametrize("method", METHODS[:4])


def options(method, rtol=RTOL, **more):
    """``direct`` has no tolerance."""
    return {} if method == "direct" else {"rtol": rtol, **more}


def usual(method) -> System:
    """A system that the method is meant for."""
    name = {"linear_cg": "hermitian definite", "minres": "hermitian indefinite"}.get(method, "complex general")
    return BY_NAME[name]


def direction(system, b, seed=5):
    """A direction in (values, b)."""
    rng = np.random.default_rng(seed)
    dv = rng.standard_normal(system.values.shape)
    db = rng.standard_normal(b.shape)
    if system.complex:
        dv, db = dv + 1j * rng.standard_normal(dv.shape), db + 1j * rng.standard_normal(db.shape)
    return dv.astype(system.values.dtype), db.astype(system.values.dtype)
