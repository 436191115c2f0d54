"""torchsparsegradutils: iterative solvers on a CSR tensor, which they multiply with many times faster than with COO.

It comes with no preconditioner. ``transpose_solve``, when left out, is the forward solver applied to A itself; so for a
nonsymmetric A the solver of the transpose is handed to it, on A^T in CSR. The limits on steps are raised to 10 n.
"""

import numpy as np
import scipy.sparse as sp
import torch
from torchsparsegradutils import sparse_generic_solve
from torchsparsegradutils.utils import bicgstab, linear_cg, minres
from torchsparsegradutils.utils.bicgstab import BICGSTABSettings
from torchsparsegradutils.utils.minres import MINRESSettings

from tests.benchmarks.peers import Outcome, Run


def start(method, case, rtol) -> Run:
    csr = [torch.from_numpy(index.astype(np.int64)) for index in (case.A.indptr, case.A.indices)]
    order = sp.csr_array((np.arange(case.A.nnz), case.A.indices, case.A.indptr), shape=case.A.shape).tocsc()
    csr_of_transpose = [torch.from_numpy(i.astype(np.int64)) for i in (order.indptr, order.indices, order.data)]
    b, w = torch.from_numpy(case.b).requires_grad_(), torch.from_numpy(case.w).conj().resolve_conj()
    taken = []

    def conjugate_gradients(A, B, **arguments):
        x, info = linear_cg(A, B, return_info=True, **arguments)
        taken.append(info.iterations)
        return x

    def of_the_transpose(A, B, **arguments):
        crow, col, place = csr_of_transpose
        return bicgstab(torch.sparse_csr_tensor(crow, col, A.values()[place], A.shape), B, **arguments)

    arguments = {
        "linear_cg": {"solve": conjugate_gradients, "tolerance": rtol, "max_iter": 10 * case.n},
        "minres": {"solve": minres, "settings": MINRESSettings(10 * case.n, rtol)},
        "bicgstab": {
            "solve": bicgstab,
            "transpose_solve": of_the_transpose,
            "settings": BICGSTABSettings(20 * case.n, 0.0, rtol),
        },
    }[method]

    def solve(values):
        A = torch.sparse_csr_tensor(*csr, values, case.A.shape).requires_grad_()
        x = sparse_generic_solve(A, b, **arguments)
        grad_A, grad_b = torch.autograd.grad(x, (A, b), w)
        return Outcome(
            x.detach(), grad_b.detach().conj().resolve_conj(), grad_A.values().detach().conj().resolve_conj()
        )

    def steps(values):
        taken.clear()
        solve(values)
        return tuple(taken) if len(taken) == 2 else (None, None)

    return Run(solve, torch.from_numpy, steps)
