"""PARDISO beside SuperLU: factorisation, forward and adjoint solve in PyTorch, double precision, one thread."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import tsgu
from tests.benchmarks.bench_torch import laplacian, sides, tensor
from tsgu._core.factors import _mkl

pytestmark = pytest.mark.skipif(not _mkl.installed(), reason="needs pypardiso")


def laplacian3(m: int) -> sp.csr_array:
    """The 7-point Laplacian on an m x m x m grid."""
    second = sp.diags_array([-np.ones(m - 1), 2 * np.ones(m), -np.ones(m - 1)], offsets=[-1, 0, 1])
    return sp.csr_array(sp.kron(laplacian(m), sp.eye_array(m)) + sp.kron(sp.eye_array(m * m), second))


def both_ways(A, b, w, library):
    B, W = torch.from_numpy(b).requires_grad_(), torch.from_numpy(w)

    def run():
        A.grad = B.grad = None
        tsgu.direct(A, B, library=library).backward(W)

    return run


@pytest.mark.parametrize("values", ["definite", "general"])
@pytest.mark.parametrize(
    ("grid", "m", "rounds", "goal"), [(laplacian, 300, 7, 1.25), (laplacian3, 30, 5, 0.35), (laplacian3, 40, 1, 0.25)]
)
def bench_pardiso_beside_superlu(compare, grid, m, rounds, goal, values):
    A = grid(m)
    if values == "general":  # on the same pattern, so that SuperLU has the same work
        A.data *= 1 + 1e-3 * np.random.default_rng(0).standard_normal(A.nnz)
    b, w = sides(A.shape[0])
    A = tensor(A)
    runs = {library: both_ways(A, b, w, library) for library in ("pardiso", "superlu")}
    compare(runs, rounds, {"superlu": goal})
