"""Preconditioners: double precision, rtol 1e-8, forward solves; torch on one thread, JAX after compilation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.experimental.sparse import BCOO

import tsgu
import tsgu_jax
from tests.benchmarks.bench_jax import timed
from tests.benchmarks.bench_torch import laplacian, sides, tensor

pyamg = pytest.importorskip("pyamg", reason="needs pyamg")


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def solved(A, b, M, solve=tsgu.linear_cg):
    """A solve with a preconditioner as a function, and its steps."""
    with tsgu.record() as log:
        solve(A, b, M=M)
    assert log[0].converged
    return (lambda: solve(A, b, M=M)), log[0].iterations


def torch_matrix(m):
    return tsgu.SparseMatrix.from_tensor(tensor(laplacian(m)).detach())


def bench_steps_of_amg_do_not_grow_with_the_grid(benchmark):
    steps = []
    for m in (64, 300, 1000):
        A = torch_matrix(m)
        steps.append(solved(A, torch.from_numpy(sides(m * m)[0]), tsgu.precond.amg(A))[1])
    print(f"steps at 64^2, 300^2, 1000^2: {steps}")
    assert steps[-1] <= 1.5 * steps[0]
    benchmark.pedantic(lambda: None, rounds=1)


@pytest.mark.parametrize(("m", "rounds"), [(300, 15), (1000, 5)])
def bench_amg_beside_pyamg(compare, m, rounds):
    """The solve, beside PyAMG with its own smoother and acceleration."""
    L, A, b = laplacian(m), torch_matrix(m), sides(m * m)[0]
    levels = pyamg.ruge_stuben_solver(L)
    run, _ = solved(A, torch.from_numpy(b), tsgu.precond.amg(A))
    compare({"amg-cg": run, "pyamg": lambda: levels.solve(b, tol=1e-8, accel="cg")}, rounds, {"pyamg": 0.8})


@pytest.mark.parametrize("m", [300, 1000])
def bench_the_set_up_of_amg_beside_pyamg(compare, m):
    L, A = laplacian(m), torch_matrix(m)
    runs = {"set-up": lambda: tsgu.precond.amg(A), "pyamg": lambda: pyamg.ruge_stuben_solver(L)}
    compare(runs, 5, {"pyamg": 1.6})


def bench_amg_beside_no_preconditioner(compare):
    """With the set-up, 300^2: the first solve with a matrix."""
    A, b = torch_matrix(300), torch.from_numpy(sides(90_000)[0])
    runs = {"amg-cg": lambda: tsgu.linear_cg(A, b, M=tsgu.precond.amg(A)), "cg": lambda: tsgu.linear_cg(A, b)}
    compare(runs, 5, {"cg": 0.6})


@pytest.mark.parametrize("kind", ["ruge_stuben", "smoothed_aggregation"])
def bench_amg_in_jax_beside_torch(compare, kind):
    m = 300
    J, A, b = BCOO.from_scipy_sparse(laplacian(m)), torch_matrix(m), sides(m * m)[0]
    run, _ = solved(A, torch.from_numpy(b), tsgu.precond.amg(A, kind))
    ours = timed(lambda b, M: tsgu_jax.linear_cg(J, b, M=M), jnp.asarray(b), tsgu_jax.precond.amg(J, kind))
    compare({"tsgu_jax": ours, "tsgu": run}, 21, {"tsgu": 1.0})


@pytest.mark.parametrize("degree", [2, 3])
@pytest.mark.parametrize("grid", ["300^2", "30^3"])
def bench_degrees_of_the_smoother(compare, grid, degree):
    """The time of the whole solve: damped Jacobi, the default, beside Chebyshev polynomials."""
    L = laplacian(300) if grid == "300^2" else pyamg.gallery.poisson((30, 30, 30), format="csr")
    A = tsgu.SparseMatrix.from_tensor(tensor(L).detach())
    b = torch.from_numpy(np.random.default_rng(0).standard_normal(L.shape[0]))
    one, more = (solved(A, b, tsgu.precond.amg(A, degree=d)) for d in (1, degree))
    other = f"degree {degree}, {more[1]} steps"
    compare({f"degree 1, {one[1]} steps": one[0], other: more[0]}, 15, {other: 1.0})
