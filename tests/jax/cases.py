"""Small systems and their dense truth, in jnp.linalg alone."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO

import tsgu_jax
from tsgu._core.methods import _registry

METHODS = tuple(method.name for method in _registry.square())
HERMITIAN = ("linear_cg", "minres")


def often(names, *these):
    """Parameters for ``parametrize``: these in every run of the tests, where each compiles for seconds; the others with
    ``--whole``."""
    return [name if name in these else pytest.param(name, marks=pytest.mark.whole) for name in names]


methods = pytest.mark.parametrize("name", METHODS)


class Case(NamedTuple):
    """Entries of a matrix that suits a method; ``parameters[expand]`` are its values, symmetric where they must be."""

    row: np.ndarray
    col: np.ndarray
    expand: np.ndarray
    parameters: np.ndarray
    b: np.ndarray
    n: int

    def values(self, parameters):
        return parameters[self.expand]

    def dense(self, values):
        return jnp.zeros((self.n, self.n), values.dtype).at[self.row, self.col].add(values)

    def truth(self, values, b):
        return jnp.linalg.solve(self.dense(values), b)

    def bcoo(self, values):
        return BCOO((values, jnp.stack([jnp.asarray(self.row), jnp.asarray(self.col)], 1)), shape=(self.n, self.n))

    def matrix(self, values):
        return tsgu_jax.SparseMatrix.from_coo(self.row, self.col, values, (self.n, self.n))


def case(name: str, n: int = 6, columns: int | None = None) -> Case:
    """A well-conditioned real system with a pattern that is not symmetric, unless the method needs it so."""
    rng = np.random.default_rng(11)
    dense = rng.standard_normal((n, n)) * (rng.random((n, n)) < 0.5)
    dense += np.diag(4 + rng.random(n))
    if name in HERMITIAN:
        dense = (dense + dense.T) / 2
        if name == "minres":
            dense[0] *= -1
            dense[:, 0] *= -1
            dense[0, 0] = -5.0
    row, col = np.nonzero(dense)
    pair = np.stack([np.minimum(row, col), np.maximum(row, col)], 1) if name in HERMITIAN else np.stack([row, col], 1)
    _, first, expand = np.unique(pair, axis=0, return_index=True, return_inverse=True)
    b = rng.standard_normal((n,) if columns is None else (n, columns))
    return Case(row, col, expand.ravel(), dense[row[first], col[first]], b, n)


def waited(function, *args):
    """The result, and every report of it."""
    result = jax.block_until_ready(function(*args))
    jax.effects_barrier()
    return result


def options(name: str) -> dict:
    """Tight enough for derivatives of derivatives; ``direct`` has no tolerance."""
    return {"rtol": 1e-13} if _registry.method(name).iterative else {}
