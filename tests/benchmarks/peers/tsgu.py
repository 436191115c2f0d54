"""tsgu, in PyTorch: the pattern is kept, preconditioners and factors are made in every call.

Multigrid is told the near-null space where there is one, as PyAMG is; without it, it is Ruge and Stueben's.
"""

from functools import partial

import torch

import tsgu
from tests.benchmarks.peers import Outcome, Run


def start(method, case, rtol) -> Run:
    row, col = (torch.from_numpy(index.astype("int64")) for index in (case.rows, case.A.indices))
    pattern = tsgu.Pattern(row, col, case.A.shape)
    b, w = torch.from_numpy(case.b).requires_grad_(), torch.from_numpy(case.w).conj().resolve_conj()
    arguments = choice(tsgu, method, case, rtol)

    def solve(values):
        A = tsgu.SparseMatrix(values, pattern)
        x = tsgu.sparse_generic_solve(A, b, **arguments(A))
        grad_values, grad_b = torch.autograd.grad(x, (values, b), w)
        return Outcome(x.detach(), grad_b.detach().conj().resolve_conj(), grad_values.conj().resolve_conj())

    def steps(values):
        with tsgu.record() as log:
            solve(values)
        return told(log)

    return Run(solve, lambda values: torch.from_numpy(values).requires_grad_(), steps)


def choice(package, method, case, rtol):
    """The arguments of a solve, of the matrix; ``package`` is tsgu or tsgu_jax, which have the same names."""
    name, _, extra = method.partition(" ")
    solver = getattr(package, name)
    if name == "direct":
        return lambda A: {"solve": solver, "library": extra.strip("()").lower()}
    if not extra:
        return lambda A: {"solve": solver, "rtol": rtol}
    build = package.precond.ilu
    if extra == "+ amg":
        build = package.precond.amg
        if case.modes is not None:
            build = partial(build, kind="smoothed_aggregation", B=case.modes)
    return lambda A: {"solve": solver, "rtol": rtol, "M": build(A)}


def told(log):
    """The steps of the forward and of the adjoint solve, where the method takes steps."""
    steps = {info.transposed: info.iterations for info in log}
    return steps.get(False), steps.get(True)
