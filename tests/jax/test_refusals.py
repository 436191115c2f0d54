"""Errors in our words where one from inside JAX, NumPy or Python would come; and what may well be given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

import tsgu_jax

EYE = sp.csr_array(np.eye(3))


def matrix():
    return tsgu_jax.SparseMatrix.from_coo([0, 1, 2, 0], [0, 1, 2, 1], np.array([2.0, 3.0, 4.0, 1.0]), (3, 3))


def test_a_matrix_of_scipy_is_sent_to_from_scipy():
    """Catches: TypeError that leaves a reader with a matrix and nowhere to go."""
    b = np.ones(3)
    for call in (
        lambda M: tsgu_jax.solve(M, b),
        lambda M: tsgu_jax.lstsq(M, b),
        lambda M: tsgu_jax.triangular_solve(M, b),
        lambda M: tsgu_jax.gmres(M, b),
        tsgu_jax.gmres.prepare,
        tsgu_jax.direct.prepare,
        tsgu_jax.precond.amg,
        tsgu_jax.SparseMatrix.from_bcoo,
    ):
        message = r"A must be .*; got csr_array\. Convert it by SparseMatrix\.from_scipy\(A\)"
        with pytest.raises((ValueError, TypeError), match=message):
            call(EYE)
    with pytest.raises(ValueError, match=r"B must be a dense .*; got csr_array\. Convert it by B\.toarray\(\)"):
        tsgu_jax.gmres(matrix(), EYE)
    with pytest.raises(TypeError, match=r"M must be .*; got csr_array\. Convert it by SparseMatrix\.from_scipy\(M\)"):
        tsgu_jax.gmres(matrix(), b, M=EYE)


SOLVES = {
    "gmres": lambda A, b: tsgu_jax.gmres(A, b),
    "direct": lambda A, b: tsgu_jax.direct(A, b),
    "least squares": lambda A, b: tsgu_jax.lstsq(A, b),
    "triangular": lambda A, b: tsgu_jax.triangular_solve(A, b),
    "product": lambda A, b: A @ b,
    "product of products": lambda A, b: (A @ A + A) @ b,
}


@pytest.mark.parametrize("name", SOLVES)
def test_a_batch_of_nothing_has_an_empty_solution_with_empty_gradients(name):
    """Catches: ZeroDivisionError from the grouping of columns."""
    A = matrix()
    values, b = jnp.ones((0, 4)), jnp.ones((0, 3))
    solve = SOLVES[name]
    assert solve(A.with_values(values), b).shape == (0, 3)
    gradient = jax.jit(jax.grad(lambda v, b: solve(A.with_values(v), b).sum(), (0, 1)))
    assert [g.shape for g in gradient(values, b)] == [(0, 4), (0, 3)]
    over_sides = jax.vmap(lambda b: solve(A, b))
    assert over_sides(b).shape == (0, 3)
    nothing = jax.grad(lambda v: jax.vmap(lambda b: solve(A.with_values(v), b))(b).sum())(A.values)
    np.testing.assert_array_equal(nothing, np.zeros(4))
