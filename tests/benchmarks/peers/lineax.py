"""lineax: its Krylov solvers on a function that multiplies with a BCOO, since it has no sparse operator of its own.

The norm is the 2-norm and the tolerance an absolute one, which is relative here, as right-hand sides have norm one. It
brings no preconditioner. Right-hand sides are mapped by ``vmap``.
"""

import jax
import lineax as lx
from jax.experimental.sparse import BCOO

from tests.benchmarks.peers import Run
from tests.benchmarks.peers.compiled import column_by_column, run


def start(method, case, rtol) -> Run:
    options = {"rtol": 0.0, "atol": rtol, "norm": lx.internal.two_norm, "max_steps": 10 * case.n}
    if method == "GMRES":
        options["restart"] = 30
    solver = getattr(lx, method)(**options)
    tags = lx.positive_semidefinite_tag if case.definite else ()
    vector = jax.ShapeDtypeStruct((case.n,), case.b.dtype)

    def solution(values, b, row, col):
        indices = jax.numpy.stack([row, col], axis=1)
        A = BCOO((values, indices), shape=case.A.shape, indices_sorted=True, unique_indices=True)
        operator = lx.FunctionLinearOperator(lambda x: A @ x, vector, tags)
        return column_by_column(lambda b: lx.linear_solve(operator, b, solver, throw=False).value, b)

    return run(case, solution, case.rows, case.A.indices)
