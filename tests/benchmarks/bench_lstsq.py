"""Least squares: a step of LSMR beside SciPy's, forward, double precision, one thread for torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg
import torch
from jax.experimental.sparse import BCOO

import tsgu
import tsgu_jax

M, N, ROUNDS = 20_000, 5_000, 15


@pytest.fixture
def problem():
    """Five entries in each row, condition number about 3."""
    rng = np.random.default_rng(0)
    col = rng.integers(0, N, (M, 5)).ravel()
    A = sp.csr_array((rng.standard_normal(5 * M), (np.repeat(np.arange(M), 5), col)), shape=(M, N))
    A.sum_duplicates()
    b = rng.standard_normal(M)

    def scipy_lsmr():
        return scipy.sparse.linalg.lsmr(A, b, atol=1e-10, btol=1e-10)

    return A, b, scipy_lsmr, scipy_lsmr()[2]


def bench_a_step_of_lsmr_beside_scipy(compare, problem):
    A, b, peer, count = problem
    matrix, side = (
        torch.sparse_csr_tensor(*map(torch.from_numpy, (A.indptr, A.indices, A.data)), A.shape),
        torch.tensor(b),
    )
    with tsgu.record() as log:
        tsgu.lsmr(matrix, side, atol=1e-10, btol=1e-10)
    prepared = tsgu.lsmr.prepare(matrix, atol=1e-10, btol=1e-10)
    assert abs(log[0].iterations - count) <= 1
    runs = {
        "tsgu": lambda: tsgu.lsmr(matrix, side, atol=1e-10, btol=1e-10),
        "prepared": lambda: prepared.least_squares(side, None),
        "scipy": peer,
    }
    compare(runs, ROUNDS, {"scipy": 1.3, "prepared": 2.0}, dict.fromkeys(runs, count))


def bench_a_compiled_step_of_lsmr_beside_scipy(compare, problem):
    A, b, peer, count = problem
    with jax.enable_x64(True):
        matrix, side = BCOO.from_scipy_sparse(A), jnp.asarray(b)
        solve = jax.jit(lambda data: tsgu_jax.lsmr(
            BCOO((data, matrix.indices), shape=A.shape), side, atol=1e-10, btol=1e-10
        ))  # fmt: skip
        runs = {"tsgu_jax": lambda: jax.block_until_ready(solve(matrix.data)), "scipy": peer}
        compare(runs, ROUNDS, {"scipy": 1.3}, dict.fromkeys(runs, count))
