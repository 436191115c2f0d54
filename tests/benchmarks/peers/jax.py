"""JAX's own: ``jax.scipy.sparse.linalg`` on a BCOO known to be sorted, and ``jax.experimental``'s spsolve (SciPy's, on
the CPU) on CSR.

The iterative solvers take a block of right-hand sides as one large system, so that the slowest column rules; mapped by
``vmap``, so that each stops by itself. spsolve cannot be mapped: it takes columns in turn. JAX brings no
preconditioner.
"""

import jax
from jax.experimental.sparse import BCOO
from jax.experimental.sparse.linalg import spsolve
from jax.scipy.sparse import linalg

from tests.benchmarks.peers import Run
from tests.benchmarks.peers.compiled import column_by_column, run


def start(method, case, rtol) -> Run:
    if method == "spsolve":
        return run(case, direct, case.A.indices, case.A.indptr)
    solver = getattr(linalg, method)
    # A restart of 30 as in the other libraries; JAX counts restarts as steps. Its default solve_method, "batched", is
    # here fifteen times faster than the other.
    options = {"restart": 30, "maxiter": case.n} if method == "gmres" else {}

    def solution(values, b, row, col):
        indices = jax.numpy.stack([row, col], axis=1)
        A = BCOO((values, indices), shape=case.A.shape, indices_sorted=True, unique_indices=True)
        return column_by_column(lambda b: solver(A, b, tol=rtol, **options)[0], b)

    return run(case, solution, case.rows, case.A.indices)


def direct(values, b, indices, indptr):
    if b.ndim == 1:
        return spsolve(values, indices, indptr, b)
    return jax.lax.map(lambda b: spsolve(values, indices, indptr, b), b.T).T
