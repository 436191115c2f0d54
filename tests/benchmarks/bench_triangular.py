"""Triangular solves beside SciPy: forward, double precision, one thread for PyTorch, after compilation for JAX."""

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
from tests.benchmarks.bench_torch import laplacian, sides, tensor


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def triangles(n: int = 300) -> dict[str, tuple[sp.csr_array, bool]]:
    """The lower triangle of the 2-D Laplacian, its incomplete factors, and the two extremes of level scheduling."""
    A = laplacian(n)
    factors = scipy.sparse.linalg.spilu(A.tocsc(), drop_tol=1e-3)
    size = A.shape[0]
    chain = sp.diags_array([np.full(size, 2.0), np.ones(size - 1)], offsets=[0, -1])
    return {
        "laplacian": (sp.csr_array(sp.tril(A)), False),
        "ilu L": (sp.csr_array(factors.L), False),
        "ilu U": (sp.csr_array(factors.U), True),
        "bidiagonal": (sp.csr_array(chain), False),
        "diagonal": (sp.csr_array(2.0 * sp.eye_array(size)), False),
    }


@pytest.mark.parametrize("package", ["tsgu", "tsgu_jax"])
@pytest.mark.parametrize("columns", [(), (16,)], ids=["vector", "16 columns"])
@pytest.mark.parametrize("name", ["laplacian", "ilu L", "ilu U", "bidiagonal", "diagonal"])
def bench_a_triangular_solve_beside_scipy(compare, package, name, columns):
    T, upper = triangles()[name]
    T.sort_indices()
    b, _ = sides(T.shape[0], *columns)
    peers = {
        form: lambda matrix=matrix: scipy.sparse.linalg.spsolve_triangular(matrix, b, lower=not upper)
        for form, matrix in {"scipy csr": T, "scipy csc": T.tocsc()}.items()
    }
    run = of_torch(T, b, upper) if package == "tsgu" else of_jax(T, b, upper)
    compare({package: run, **peers}, 15, dict.fromkeys(peers, 1.5))


def of_torch(T, b, upper):
    A, B = tensor(T).detach(), torch.from_numpy(b)
    return lambda: tsgu.sparse_triangular_solve(A, B, upper)


def of_jax(T, b, upper):
    J, B = BCOO.from_scipy_sparse(T), jnp.asarray(b)

    @jax.jit
    def run(data, b):
        A = BCOO((data, J.indices), shape=J.shape, indices_sorted=True, unique_indices=True)
        return tsgu_jax.triangular_solve(A, b, upper)

    return lambda: jax.block_until_ready(run(J.data, B))
