"""torch-sla: ``spsolve`` on values, rows and columns, by each of its backends for the CPU.

Its relative tolerance is fixed at 1e-10 and an absolute one is offered; right-hand sides here have norm one, so that
the absolute one is what was asked for. Its conjugate gradients come with Jacobi by default, which fails for a block of
right-hand sides, and with PyAMG's levels;
backend "pyamg" iterates with multigrid cycles alone. "scipy" with "lu" is what it recommends on the CPU. That backend's
iterative methods stop at SciPy's default tolerance of 1e-5 and take no part; nor does its incomplete LU, a loop in
Python that takes a minute for 2500 unknowns.
"""

import torch
from torch_sla import spsolve

from tests.benchmarks.peers import Outcome, Run

METHODS = {
    "lu": {"backend": "scipy", "method": "lu"},
    "pyamg": {"backend": "pyamg", "method": "ruge_stuben"},
    "cg": {"backend": "pytorch", "method": "cg", "preconditioner": "none"},
    "cg + jacobi": {"backend": "pytorch", "method": "cg", "preconditioner": "jacobi"},
    "cg + amg": {"backend": "pytorch", "method": "cg", "preconditioner": "amg"},
    "bicgstab + jacobi": {"backend": "pytorch", "method": "bicgstab", "preconditioner": "jacobi"},
    "gmres + jacobi": {"backend": "pytorch", "method": "gmres", "preconditioner": "jacobi"},
}


def start(method, case, rtol) -> Run:
    row, col = (torch.from_numpy(index.astype("int64")) for index in (case.rows, case.A.indices))
    b, w = torch.from_numpy(case.b).requires_grad_(), torch.from_numpy(case.w).conj().resolve_conj()

    def solve(values):
        x = spsolve(values, row, col, case.A.shape, b, atol=rtol, maxiter=10 * case.n, **METHODS[method])
        grad_values, grad_b = torch.autograd.grad(x, (values, b), w)
        return Outcome(x.detach(), grad_b.detach().conj().resolve_conj(), grad_values.conj().resolve_conj())

    return Run(solve, lambda values: torch.from_numpy(values).requires_grad_())
