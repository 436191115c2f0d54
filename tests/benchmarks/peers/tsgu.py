"""tsgu, in PyTorch: the pattern is kept, preconditioners and factors are made in every call."""

import torch

import tsgu
from tests.benchmarks.peers import Outcome, Run
from tests.benchmarks.peers.methods import choice, told


def start(method, case, rtol) -> Run:
    row, col = (torch.from_numpy(index.astype("int64")) for index in (case.rows, case.A.indices))
    pattern = tsgu.Pattern(row, col, case.A.shape)
    b, w = torch.from_numpy(case.b).requires_grad_(), torch.from_numpy(case.w).conj().resolve_conj()
    arguments = choice(tsgu, method, case, rtol)

    def solve(values):
        A = pattern.matrix(values)
        x = tsgu.sparse_generic_solve(A, b, **arguments(A))
        grad_values, grad_b = torch.autograd.grad(x, (values, b), w)
        return Outcome(x.detach(), grad_b.detach().conj().resolve_conj(), grad_values.conj().resolve_conj())

    def steps(values):
        with tsgu.record() as log:
            solve(values)
        return told(log)

    return Run(solve, lambda values: torch.from_numpy(values).requires_grad_(), steps)
