"""JAX: forward plus backward, double precision, after compilation, rtol 1e-8."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from jax.experimental.sparse import BCOO

import tsgu
import tsgu_jax
from tests.benchmarks.bench_torch import ScipyCG, both_ways, laplacian, sides, tensor
from tsgu_jax._matrix import _products


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def timed(function, *args):
    """A call that waits for its result."""
    return lambda: jax.block_until_ready(function(*args))


def gradient(A, solve):
    """Solution and gradients of <w, x>, compiled, of the values and both sides."""

    @jax.jit
    def run(data, b, w):
        def solution(data, b):
            return solve(BCOO((data, A.indices), shape=A.shape, indices_sorted=True, unique_indices=True), b)

        x, back = jax.vjp(solution, data, b)
        return x, back(w)

    return run


def made_ready(A):
    """A compiled product with a layout that is made once, as a solve makes it."""
    matrix = tsgu_jax.SparseMatrix.from_bcoo(A) if isinstance(A, BCOO) else A
    operand = jax.jit(lambda values: _products.operand(values, matrix.pattern.entries, False))(matrix.values)
    apply = jax.jit(_products.apply)
    return lambda x: apply(operand, x)


def bench_a_product_beside_bcoo_and_memory(compare):
    A = laplacian(1000)
    J, x = BCOO.from_scipy_sparse(A), jnp.asarray(sides(A.shape[0])[0])
    # A triad that moves as many bytes as the product must: values, columns, vector and result.
    length = (12 * A.nnz + 16 * A.shape[0]) // 24
    u, v = (jnp.asarray(sides(length)[i]) for i in (0, 1))
    runs = {
        "product": timed(made_ready(J), x),
        "bcoo": timed(jax.jit(lambda A, x: A @ x), J, x),
        "triad": timed(jax.jit(lambda u, v: u + 3.0 * v), u, v),
    }
    compare(runs, 21, {"bcoo": 0.1, "triad": 2.0})


def bench_a_product_on_a_power_law_pattern_beside_the_segment_sum(compare):
    n, rng = 100_000, np.random.default_rng(3)
    length = np.minimum(5000, (1 + 2 * rng.pareto(1.3, n)).astype(int))
    length[5] = 5000
    row = np.repeat(np.arange(n), length)
    key = np.unique(row * n + rng.integers(0, n, row.size))
    row, col = (key // n).astype(np.int32), (key % n).astype(np.int32)
    values, x = jnp.asarray(rng.standard_normal(row.size)), jnp.asarray(rng.standard_normal(n))
    segments = jax.jit(lambda v, r, c, x: jax.ops.segment_sum(v * x[c], r, n, indices_are_sorted=True))
    runs = {
        "product": timed(made_ready(tsgu_jax.SparseMatrix.from_coo(row, col, values, (n, n))), x),
        "segment sum": timed(segments, values, jnp.asarray(row), jnp.asarray(col), x),
    }
    compare(runs, 41, {"segment sum": 1.0})


@pytest.mark.parametrize(("m", "rounds"), [(64, 41), (300, 5)])
def bench_a_step_of_cg_beside_jax_and_scipy(compare, m, rounds):
    A = laplacian(m)
    b, w = sides(m * m)
    J, peer = BCOO.from_scipy_sparse(A), ScipyCG(A, b, w)
    args = J.data, jnp.asarray(b), jnp.asarray(w)
    ours = gradient(J, tsgu_jax.linear_cg)
    theirs = gradient(J, lambda A, b: jax.scipy.sparse.linalg.cg(A, b, tol=1e-8, maxiter=10 * m * m)[0])
    with tsgu_jax.record() as log:
        tsgu_jax.linear_cg(J, args[1])
        tsgu_jax.linear_cg(J, args[2])
    count = sum(info.iterations for info in log)
    peer()
    runs = {"tsgu_jax": timed(ours, *args), "jax": timed(theirs, *args), "scipy": peer}
    # jax.scipy stops by the same rule on the same recurrence, so it takes the same steps.
    compare(runs, rounds, {"jax": 0.4, "scipy": 0.6}, {"tsgu_jax": count, "jax": count, "scipy": peer.count})


@pytest.mark.parametrize("width", [5, 200])
def bench_compiling_a_gradient(compare, width):
    n = 1000
    second = sp.diags_array([np.full(n, -1.0 / width)] * width, offsets=range(1, width + 1), shape=(n, n))
    J = BCOO.from_scipy_sparse(sp.csr_array(second + second.T + 3 * sp.eye_array(n)))
    b = jnp.ones(n)

    def compile_():
        jax.clear_caches()
        gradient(J, tsgu_jax.linear_cg).lower(J.data, b, b).compile()

    compare({"compile": compile_, "3 seconds": lambda: time.sleep(3)}, 3, {"3 seconds": 1.0})


@pytest.mark.parametrize(("name", "most"), [("linear_cg", 2.5), ("gmres", 4.0), ("linear_cg and amg", 6.0)])
def bench_compiling_a_gradient_beside_jax_scipy(compare, name, most):
    A = laplacian(100)
    J, matrix = BCOO.from_scipy_sparse(A), tsgu_jax.SparseMatrix.from_scipy(A)
    b = jnp.ones(A.shape[0])
    method = getattr(tsgu_jax, name.split()[0])
    arguments = {"M": tsgu_jax.precond.amg(matrix)} if name.endswith("amg") else {}

    def compiled(solve, values):
        def compile_():
            jax.clear_caches()
            jax.jit(jax.grad(lambda v, b: solve(v, b).sum(), (0, 1))).lower(values, b).compile()

        return compile_

    def peer(values, b):
        return jax.scipy.sparse.linalg.cg(lambda x: BCOO((values, J.indices), shape=J.shape) @ x, b)[0]

    ours = compiled(lambda v, b: method(matrix.with_values(v), b, **arguments), matrix.values)
    compare({name: ours, "jax.scipy": compiled(peer, J.data)}, 3, {"jax.scipy": most})


@pytest.mark.parametrize(("m", "rounds"), [(64, 41), (300, 7)])
def bench_direct_beside_torch(compare, m, rounds):
    A = laplacian(m)
    b, w = sides(m * m)
    J = BCOO.from_scipy_sparse(A)
    ours = timed(gradient(J, tsgu_jax.direct), J.data, jnp.asarray(b), jnp.asarray(w))
    assert torch.get_num_threads() == 1
    compare({"tsgu_jax": ours, "tsgu": both_ways(tensor(A), b, w, tsgu.direct)}, rounds, {"tsgu": 1.3})


@pytest.mark.parametrize("m", [10, 60])
def bench_gmres_on_a_block_beside_its_columns(compare, m):
    A = tsgu_jax.SparseMatrix.from_scipy(laplacian(m) + sp.diags_array([0.3], offsets=[1], shape=(m * m, m * m)))
    B = jnp.asarray(sides(m * m, 8)[0])
    columns = list(B.T)
    runs = {"block": timed(tsgu_jax.gmres, A, B), "columns": timed(lambda: [tsgu_jax.gmres(A, b) for b in columns])}
    compare(runs, 5, {"columns": 1.2})
