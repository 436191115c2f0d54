"""Least squares in what JAX alone can do: compiled programs, traced indices, transforms of transforms."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCOO

import tsgu_jax
from tests.contract.jax_adapter import foreign
from tests.contract.problems import BY_NAME
from tests.contract.test_lstsq import dense_lstsq
from tests.jax.test_cost import _compiled

PROBLEM = BY_NAME["real"]
ROW, COL, SHAPE = PROBLEM.row, PROBLEM.col, PROBLEM.shape
B = np.random.default_rng(1).standard_normal(SHAPE[0])


def dense_solution(values, b):
    A = jnp.zeros(SHAPE).at[ROW, COL].add(values)
    return jnp.linalg.solve(A.T @ A, A.T @ b)


def test_new_values_of_the_same_shapes_compile_nothing():
    """Catches: an eager call in a loop that compiles each time; a tolerance, a damping or a limit that is part of the
    key."""
    values, b = jnp.asarray(PROBLEM.values), jnp.asarray(B)
    indices = jnp.stack([jnp.asarray(ROW), jnp.asarray(COL)], 1)

    def solution(values, b, **options):
        return tsgu_jax.lstsq(BCOO((values, indices), shape=SHAPE), b, **options)

    gradient = jax.jit(jax.grad(lambda v, b: (solution(v, b) ** 3).sum(), (0, 1)))
    got = gradient(values, b)
    expected = jax.grad(lambda v, b: (dense_solution(v, b) ** 3).sum(), (0, 1))(values, b)
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-5, atol=1e-7)
    solution(values, b)
    others = 1.5 * values, 2.0 * b
    before = _compiled[0]
    jax.block_until_ready((gradient(*others), solution(*others), solution(*others, atol=1e-6, conlim=1e5, maxiter=50)))
    assert _compiled[0] == before


def test_the_hessian_in_any_mixture_of_modes_equals_the_dense_one():
    """Catches: a tangent that is not differentiated again, an adjoint that is not transposed."""

    def solution(values, b):
        return tsgu_jax.lstsq(tsgu_jax.SparseMatrix.from_coo(ROW, COL, values, SHAPE), b, foreign(dense_lstsq))

    def along(solve, twice):
        def loss(z):
            return (solve(PROBLEM.values + z[: ROW.size], B + z[ROW.size :]) ** 3).sum()

        size = ROW.size + B.size
        return twice(loss, jnp.zeros(size), jnp.cos(jnp.arange(float(size))))

    def forward_over_reverse(f, z, d):
        return jax.jvp(jax.grad(f), (z,), (d,))[1]

    def reverse_over_forward(f, z, d):
        return jax.grad(lambda z: jax.jvp(f, (z,), (d,))[1])(z)

    expected = along(dense_solution, forward_over_reverse)
    for twice in (forward_over_reverse, reverse_over_forward):
        np.testing.assert_allclose(along(solution, twice), expected, rtol=1e-8, atol=1e-8)


def test_traced_indices_and_padding_give_the_same_solution():
    """Catches: padding that counts as an entry of the last column; a scale gathered from outside of the matrix."""
    indices = np.concatenate([np.stack([ROW, COL], 1), [SHAPE, SHAPE]])
    data = np.concatenate([PROBLEM.values, [7.0, 8.0]])

    @jax.jit
    def solution(data, indices):
        return tsgu_jax.lsmr(BCOO((data, indices), shape=SHAPE), B, atol=1e-13, btol=1e-13)

    expected = dense_solution(PROBLEM.values, B)
    np.testing.assert_allclose(solution(jnp.asarray(data), jnp.asarray(indices)), expected, rtol=1e-9, atol=1e-12)
