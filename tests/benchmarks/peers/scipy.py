"""SciPy with the adjoint written by hand, as an expert would: one factorisation or preconditioner, two solves, and the
sampled product. SuperLU orders a symmetric pattern by minimum degree; conjugate gradients take PyAMG's levels."""

import numpy as np
import pyamg
import scipy.sparse as sp
from scipy.sparse import linalg

from tests.benchmarks.peers import Outcome, Run


def start(method, case, rtol) -> Run:
    name, _, extra = method.partition(" + ")
    rows, columns, b, w = case.rows, case.A.indices, case.b, case.w
    pairs = "ij,ij->i" if b.ndim == 2 else "i,i->i"
    taken = []

    def solve(values):
        A = sp.csr_array((values, columns, case.A.indptr), shape=case.A.shape)
        forward, adjoint = factored(A) if name == "splu" else iterated(A)
        x, lam = forward(b), adjoint(w)
        grad = np.empty_like(values)
        for start in range(0, values.size, 2**16):  # in blocks, so that no (nnz, k) array is made
            part = slice(start, start + 2**16)
            grad[part] = -np.einsum(pairs, lam[rows[part]], x[columns[part]])
        return Outcome(x, lam, grad)

    def factored(A):
        symmetric = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.01, "options": {"SymmetricMode": True}}
        factors = linalg.splu(A.tocsc(), **(symmetric if symmetric_pattern else {}))
        return factors.solve, lambda w: factors.solve(w, "T")

    def iterated(A):
        M = transpose = None
        if extra == "pyamg":
            setup = pyamg.ruge_stuben_solver if case.modes is None else pyamg.smoothed_aggregation_solver
            near_null_space = {} if case.modes is None else {"B": case.modes}
            M = transpose = setup(A, **near_null_space).aspreconditioner()
        elif extra == "spilu":
            factors = linalg.spilu(A.tocsc())
            M = linalg.LinearOperator(A.shape, factors.solve, dtype=A.dtype)
            transpose = linalg.LinearOperator(A.shape, lambda v: factors.solve(v, "T"), dtype=A.dtype)
        return looped(A, M), looped(A if case.definite else A.T.tocsr(), transpose)

    def looped(A, M):
        options = {"rtol": rtol, "M": M, "maxiter": 10 * case.n}
        if name == "gmres":
            options |= {"restart": 30, "callback_type": "pr_norm"}

        def one(side):
            count = 0

            def step(_):
                nonlocal count
                count += 1

            x = getattr(linalg, name)(A, side, callback=step, **options)[0]
            taken.append(count)
            return x

        return lambda side: one(side) if side.ndim == 1 else np.column_stack([one(column) for column in side.T])

    def steps(values):
        taken.clear()
        solve(values)
        half = len(taken) // 2
        return (max(taken[:half]), max(taken[half:])) if half else (None, None)

    transposed = case.A.T.tocsr()
    transposed.sort_indices()
    symmetric_pattern = np.array_equal(transposed.indices, columns) and np.array_equal(transposed.indptr, case.A.indptr)
    return Run(solve, steps=steps)
