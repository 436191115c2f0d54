"""What the tests of the contract have in common."""

import numpy as np
import pytest

from tests.contract.systems import BY_NAME, ITERATIVE, METHODS, PAIRS, System
from tsgu._core.methods import _registry

RTOL = 1e-12

pairs = pytest.mark.parametrize(("method", "system"), PAIRS, ids=lambda value: str(value))
methods = pytest.mark.parametrize("method", METHODS)
iterative = pytest.mark.parametrize("method", ITERATIVE)


def options(method, rtol=RTOL, **more):
    """A factorisation has no tolerance."""
    return {"rtol": rtol, **more} if _registry.method(method).iterative else {}


def usual(method) -> System:
    """A system that the method is meant for."""
    traits = _registry.method(method)
    if traits.hermitian:
        return BY_NAME["hermitian definite" if traits.definite else "hermitian indefinite"]
    return BY_NAME["complex general"]


def usual_real(method) -> System:
    """The same with real entries."""
    traits = _registry.method(method)
    if traits.hermitian:
        return BY_NAME["poisson" if traits.definite else "indefinite"]
    return BY_NAME["general"]


def direction(system, b, seed=5):
    """A direction in (values, b)."""
    rng = np.random.default_rng(seed)
    dv = rng.standard_normal(system.values.shape)
    db = rng.standard_normal(b.shape)
    if system.complex:
        dv, db = dv + 1j * rng.standard_normal(dv.shape), db + 1j * rng.standard_normal(db.shape)
    return dv.astype(system.values.dtype), db.astype(system.values.dtype)
